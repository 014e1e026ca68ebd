"""One listener's bounded post over a Trio memory channel.

The channel holds one ring of the bell, not the items: one wake-up carries everything that waits, and a publisher never
waits for anybody.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
import trio

from komas.errors import Dismissed
from komas.hub.policy import Batch, Item, Overflow, Post

# The busiest second of a captured major pair had 1362 frames: a listener may sleep through one and a half of those.
MAILBOX_POSTS = 2048


class MailboxStatistics(msgspec.Struct, frozen=True):
    """Counts of one mailbox: items waiting now, taken and dropped since it was opened."""

    waiting: int
    taken: int
    dropped: int


class Mailbox:
    """Post for one listener: ``put()`` by the hub, ``take()`` by the listener's task alone."""

    __slots__ = ("_bell", "_dismissed", "_is_closed", "_is_ringing", "_post", "_ring", "_taken")

    def __init__(self, capacity: int = MAILBOX_POSTS, overflow: Overflow = Overflow.DROP_OLDEST) -> None:
        self._post = Post(capacity, overflow)
        self._ring, self._bell = trio.open_memory_channel[None](1)
        self._is_ringing = False
        self._is_closed = False
        self._dismissed = False
        self._taken = 0

    def put(self, item: Item) -> None:
        """Leave one item; never waits, never fails, whatever the listener does."""
        if self._dismissed:
            return
        if not self._post.put(item):
            self._dismissed = True
        self.ring()

    def give_back(self, batch: Batch) -> None:
        """Leave what was not delivered in another way."""
        self._post.give_back(batch)
        self.ring()

    def ring(self) -> None:
        """Wake the listener's task, were it for nothing."""
        if not self._is_ringing:
            self._is_ringing = True
            # It rings already, or nobody will hear it again.
            with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
                self._ring.send_nowait(None)

    async def rung(self) -> None:
        """Wait for a ring, or the end."""
        with suppress(trio.EndOfChannel):
            await self._bell.receive()
        self._is_ringing = False

    async def take(self) -> Batch:
        """Wait for post, then take all of it; see ``take_now()`` for what it raises."""
        while True:
            if not self._dismissed:
                await self.rung()
            if (batch := self.take_now()) is not None:
                return batch

    def take_now(self) -> Batch | None:
        """Take what waits, ``None`` for nothing.

        Raises ``trio.EndOfChannel`` once the mailbox is closed and empty, ``Dismissed`` as soon as the listener fell
        further behind than its capacity (under ``Overflow.DISMISS``).
        """
        if self._dismissed:
            raise Dismissed("the listener fell behind and must resume from its last position")
        if self._is_ringing:
            self._is_ringing = False
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                self._bell.receive_nowait()
        if not len(self._post):
            if self._is_closed:
                raise trio.EndOfChannel
            return None
        batch = self._post.take()
        self._taken += len(batch.items)
        return batch

    def close(self) -> None:
        """End the mailbox: what waits can still be taken, then ``take()`` raises ``trio.EndOfChannel``."""
        self._is_closed = True
        self._ring.close()

    def statistics(self) -> MailboxStatistics:
        """Counts, for telemetry."""
        return MailboxStatistics(len(self._post), self._taken, self._post.dropped_in_all)
