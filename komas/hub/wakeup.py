"""A wake-up for one task, or a call where there is none: a parking lot takes half a kilobyte and twice the time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Wakeup:
    """Wakes the one task that waits for it; a wake-up that nobody waits for is not remembered."""

    __slots__ = ("_call", "_sleeper")

    def __init__(self) -> None:
        self._sleeper: trio.lowlevel.Task | None = None
        self._call: Callable[[], None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits, or a call."""
        return self._sleeper is not None or self._call is not None

    def wake(self) -> bool:
        """Wake the waiting task, or make the call; whether there was one."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            trio.lowlevel.reschedule(sleeper)
            return True
        call, self._call = self._call, None
        if call is not None:
            call()
            return True
        return False

    def call_once(self, call: Callable[[], None]) -> None:
        """Have this called at the next wake-up, in place of a task."""
        self._call = call

    def wait(self) -> Awaitable[object]:
        """Wait for the next wake-up; await the result at once. ``trio.BusyResourceError`` if it is waited for."""
        if self.is_awaited:
            raise trio.BusyResourceError("this wake-up is waited for already")
        self._sleeper = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._give_up)  # noqa: ASYNC105 - a coroutine of ours would cost each subscriber 200 bytes

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
