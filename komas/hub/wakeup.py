"""A bell for one task: cheaper than a lot to park in, which takes half a kilobyte and twice the time."""

from __future__ import annotations

from collections.abc import Awaitable

import trio


class Bell:
    """Wakes the one task that waits for it; a ring that nobody waits for is not remembered."""

    __slots__ = ("_sleeper",)

    def __init__(self) -> None:
        self._sleeper: trio.lowlevel.Task | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits."""
        return self._sleeper is not None

    def ring(self) -> bool:
        """Wake the task that waits; whether there was one."""
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None:
            return False
        trio.lowlevel.reschedule(sleeper)
        return True

    def wait(self) -> Awaitable[object]:
        """Wait for the next ring; to be awaited at once. ``trio.BusyResourceError`` where another task does."""
        if self._sleeper is not None:
            raise trio.BusyResourceError("another task waits for this bell")
        self._sleeper = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._give_up)  # noqa: ASYNC105 - one coroutine of ours would cost each listener 200 bytes

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
