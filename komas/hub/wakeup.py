"""A wake-up for one task: cheaper than a parking lot, which takes half a kilobyte and twice the time."""

from __future__ import annotations

from collections.abc import Awaitable

import trio


class Wakeup:
    """Wakes the one task that waits for it; a wake-up that no task waits for is not remembered."""

    __slots__ = ("_sleeper",)

    def __init__(self) -> None:
        self._sleeper: trio.lowlevel.Task | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits."""
        return self._sleeper is not None

    def wake(self) -> bool:
        """Wake the waiting task; whether there was one."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None:
            return False
        trio.lowlevel.reschedule(sleeper)
        return True

    def wait(self) -> Awaitable[object]:
        """Wait for the next wake-up; await the result at once. ``trio.BusyResourceError`` if another task waits."""
        if self._sleeper is not None:
            raise trio.BusyResourceError("another task waits for this wake-up")
        self._sleeper = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._give_up)  # noqa: ASYNC105 - a coroutine of ours would cost each subscriber 200 bytes

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
