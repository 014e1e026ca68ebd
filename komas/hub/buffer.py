"""One subscriber's bounded buffer, and the wake-up of its task.

A wake-up is remembered until the task runs, and several are one: one wake-up carries everything that waits, and a
publisher never waits for a subscriber.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from komas.errors import SlowConsumer
from komas.hub.overflow import EventQueue
from komas.hub.wakeup import Wakeup

T = TypeVar("T")
B = TypeVar("B")

# The busiest second of a captured major pair had 1362 frames: a subscriber may sleep through one and a half of those.
BUFFER_EVENTS = 2048


class Buffer(Generic[T, B]):
    """A queue with a wake-up: the hub calls ``put()``, the subscriber's task ``receive()``; tasks may share it."""

    __slots__ = ("_is_closed", "_is_nudged", "_is_woken", "_others", "_queue", "_wakeup", "is_disconnected")

    def __init__(self, queue: EventQueue[T, B]) -> None:
        self._queue = queue
        self._wakeup = Wakeup()
        # More tasks than one are the exception.
        self._others: trio.lowlevel.ParkingLot | None = None
        self._is_woken = False
        self._is_nudged = False
        self._is_closed = False
        self.is_disconnected = False

    def put(self, *items: T) -> None:
        """Add items; never waits and never fails, whatever the subscriber does."""
        if not self.is_disconnected:
            self.is_disconnected = not self._queue.put(*items)
            if self.is_disconnected or not self._is_woken:
                self.wake()

    def put_back(self, batch: B) -> None:
        """Add what was not delivered in another way."""
        if not self.is_disconnected:
            self.is_disconnected = not self._queue.put_back(batch)
            self.wake()

    def disconnect(self) -> None:
        """Disconnect the subscriber: it must resume from a position."""
        self.is_disconnected = True
        self.wake()

    def wake(self) -> None:
        """Wake the subscriber's task, even if nothing waits."""
        self._is_woken = True
        self._wake()

    def nudge(self) -> None:
        """Have ``receive()`` return, if with nothing."""
        self._is_nudged = True
        self.wake()

    async def woken(self) -> None:
        """Wait for a wake-up, or the end."""
        if self._is_woken or self._is_closed:
            await trio.lowlevel.checkpoint()
        elif not self._wakeup.is_awaited:
            await self._wakeup.wait()
        else:
            self._others = self._others or trio.lowlevel.ParkingLot()
            await self._others.park()
        self._is_woken = False

    def call_when_woken(self, call: Callable[[], None]) -> bool:
        """Have this called once, at the next wake-up, or the end; ``False`` where that has come already."""
        if self._is_woken or self.is_finished:
            self._is_woken = False
            return False
        self._wakeup.call_once(call)
        return True

    def _wake(self) -> None:
        """Wake one task, or all of them when there is nothing more to share."""
        was_awaited = self._wakeup.wake()
        if self._others is not None and self.is_finished:
            self._others.unpark_all()
        elif self._others is not None and not was_awaited:
            self._others.unpark()

    async def receive(self) -> B:
        """Wait until something is there, then return all of it: nothing after a nudge; raises what ``drain()`` does."""
        while True:
            if not self.is_disconnected:
                await self.woken()
            if (batch := self.drain_nowait()) is not None:
                return batch
            if self._is_nudged:
                return self.drain()

    @property
    def is_finished(self) -> bool:
        """Whether it is closed, or its subscriber was disconnected."""
        return self._is_closed or self.is_disconnected

    def drain_nowait(self) -> B | None:
        """Return everything that waits, or ``None`` for nothing; raises what ``drain()`` raises."""
        return self.drain() if len(self._queue) or self.is_finished else None

    def drain(self) -> B:
        """Return everything that waits, which may be nothing.

        Raises ``trio.EndOfChannel`` once the buffer is closed and empty, and ``SlowConsumer`` as soon as the subscriber
        fell further behind than its queue has room for, where nothing may be dropped.
        """
        if self.is_disconnected:
            raise SlowConsumer("the subscriber fell behind and must resume from its last position")
        self._is_woken = self._is_nudged = False
        if self._is_closed and not len(self._queue):
            raise trio.EndOfChannel
        return self._queue.drain()

    def close(self) -> None:
        """End the buffer: what waits can still be drained, then ``receive()`` raises ``trio.EndOfChannel``."""
        self._is_closed = True
        self._wake()

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._queue)
