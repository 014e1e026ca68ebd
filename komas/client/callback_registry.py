"""The callbacks of a program: kept in lists, called one after the other, and what they raise is reported."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from komas.errors import KomasError
from komas.model.market import Event, Gap
from komas.observability.logs import LogLimit

log = logging.getLogger(__name__)

EventCallback: TypeAlias = Callable[[Event], object]


class CallbackError(KomasError):
    """A callback raised; ``stream`` is the stream whose event it was given, the cause is what it raised."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"a callback for {name} raised {type(error).__name__}: {error}")
        self.stream = name
        self.__cause__ = error


class CallbackRegistry:
    """The callbacks that belong to no single stream, and the way in which every callback is called.

    A callback may be a plain function or a coroutine function, and may be added at any time, by a callback too.
    """

    def __init__(self) -> None:
        self.on_connect: list[Callable[[], object]] = []
        self.on_disconnect: list[Callable[[], object]] = []
        self.on_error: list[Callable[[Exception], object]] = []
        self.on_message: list[EventCallback] = []
        self.on_gap: list[Callable[[Gap], object]] = []
        self._log_limits: dict[str, LogLimit] = {}

    async def call(
        self, callbacks: Sequence[Callable[..., object]], *given: object, name: str = "the connection"
    ) -> None:
        """Call each; ``name`` is the stream that an error is reported with."""
        for callback in tuple(callbacks):
            try:
                await call_one(callback, *given)
            except Exception as error:  # noqa: BLE001 - whatever a user's callback raises is reported, not spread
                await self._report(CallbackError(name, error))

    async def _report(self, error: CallbackError) -> None:
        if not self.on_error:
            self._log(error.stream, "%s; there is no on_error", error, error.__cause__)
        for callback in tuple(self.on_error):
            try:
                await call_one(callback, error)
            except Exception as failure:  # noqa: BLE001 - there is no handler for the failure of the error handler
                self._log("on_error", "on_error raised %s", failure, failure)

    def _log(self, kind: str, text: str, error: Exception, raised: BaseException | None) -> None:
        """Log what nobody hears of, with its traceback: once a minute for each stream, for each event may bring one."""
        left_out = self._log_limits.setdefault(kind, LogLimit()).due(trio.current_time())
        if left_out is not None:
            log.error(text, error, exc_info=raised, extra={"left_out": left_out})


async def call_one(callback: Callable[..., object], *given: object) -> None:
    """Call a plain function or a coroutine function, and wait for what it returns."""
    outcome = callback(*given)
    if inspect.isawaitable(outcome):
        await outcome
