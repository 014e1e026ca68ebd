"""One listener's bounded post, and the bell that wakes its task.

A ring is remembered until it is heard, and several are one: one wake-up carries everything that waits, and a publisher
never waits for anybody.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
import trio

from komas.errors import Dismissed
from komas.hub.overflow import Waiting
from komas.hub.wakeup import Bell

T = TypeVar("T")
B = TypeVar("B")

# The busiest second of a captured major pair had 1362 frames: a listener may sleep through one and a half of those.
MAILBOX_POSTS = 2048


class MailboxStatistics(msgspec.Struct, frozen=True):
    """Counts of one mailbox: items waiting now, dropped since it was opened."""

    waiting: int
    dropped: int


class Mailbox(Generic[T, B]):
    """Post for one listener: ``put()`` by the hub, ``take()`` by the listener's task; several share what comes."""

    __slots__ = ("_bell", "_is_closed", "_is_ringing", "_others", "_post", "is_dismissed")

    def __init__(self, post: Waiting[T, B]) -> None:
        self._post = post
        self._bell = Bell()
        # There is one task that listens, as a rule.
        self._others: trio.lowlevel.ParkingLot | None = None
        self._is_ringing = False
        self._is_closed = False
        self.is_dismissed = False

    def put(self, *items: T) -> None:
        """Leave items; never waits, never fails, whatever the listener does."""
        if not self.is_dismissed:
            self.is_dismissed = not self._post.put(*items)
            if self.is_dismissed or not self._is_ringing:
                self.ring()

    def give_back(self, batch: B) -> None:
        """Leave what was not delivered in another way."""
        if not self.is_dismissed:
            self.is_dismissed = not self._post.give_back(batch)
            self.ring()

    def dismiss(self) -> None:
        """Let the listener go: it must come back with a position."""
        self.is_dismissed = True
        self.ring()

    def ring(self) -> None:
        """Wake the listener's task, were it for nothing."""
        self._is_ringing = True
        self._wake()

    async def rung(self) -> None:
        """Wait for a ring, or the end."""
        if self._is_ringing or self._is_closed:
            await trio.lowlevel.checkpoint()
        elif not self._bell.is_awaited:
            await self._bell.wait()
        else:
            self._others = self._others or trio.lowlevel.ParkingLot()
            await self._others.park()
        self._is_ringing = False

    def _wake(self) -> None:
        """Wake a task; every one, where there is nothing more to share."""
        was_awaited = self._bell.ring()
        if self._others is not None and self.is_over:
            self._others.unpark_all()
        elif self._others is not None and not was_awaited:
            self._others.unpark()

    async def take(self) -> B:
        """Wait for post, then take all of it; see ``take_all()`` for what it raises."""
        while True:
            if not self.is_dismissed:
                await self.rung()
            if (batch := self.take_now()) is not None:
                return batch

    @property
    def is_over(self) -> bool:
        """Whether it is closed, or its listener was dismissed."""
        return self._is_closed or self.is_dismissed

    def take_now(self) -> B | None:
        """Take what waits, ``None`` for nothing; see ``take_all()`` for what it raises."""
        return self.take_all() if len(self._post) or self.is_over else None

    def take_all(self) -> B:
        """Take what waits, were it nothing.

        Raises ``trio.EndOfChannel`` once the mailbox is closed and empty, ``Dismissed`` as soon as the listener fell
        further behind than its post has room for, and may not lose anything.
        """
        if self.is_dismissed:
            raise Dismissed("the listener fell behind and must resume from its last position")
        self._is_ringing = False
        if self._is_closed and not len(self._post):
            raise trio.EndOfChannel
        return self._post.take()

    def close(self) -> None:
        """End the mailbox: what waits can still be taken, then ``take()`` raises ``trio.EndOfChannel``."""
        self._is_closed = True
        self._wake()

    def statistics(self) -> MailboxStatistics:
        """Counts, for telemetry."""
        return MailboxStatistics(len(self._post), self._post.dropped_in_all)
