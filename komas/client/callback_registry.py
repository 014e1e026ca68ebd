"""The callbacks of a program: kept in lists, called one after the other, and what they raise is reported."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from komas.errors import KomasError
from komas.model.market import Event, Gap

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

    async def call(
        self, callbacks: Sequence[Callable[..., object]], *given: object, name: str = "the connection"
    ) -> None:
        """Call each; ``name`` is the stream that an error is reported with."""
        for callback in tuple(callbacks):
            try:
                await _call(callback, *given)
            except Exception as error:  # noqa: BLE001 - whatever a user's callback raises is reported, not spread
                await self._report(CallbackError(name, error))

    async def _report(self, error: CallbackError) -> None:
        for callback in tuple(self.on_error):
            try:
                await _call(callback, error)
            except Exception:
                log.exception("on_error raised")  # there is no handler for the failure of the error handler


async def _call(callback: Callable[..., object], *given: object) -> None:
    outcome = callback(*given)
    if inspect.isawaitable(outcome):
        await outcome
