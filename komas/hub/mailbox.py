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

    __slots__ = ("_bell", "_dismissed", "_is_ringing", "_post", "_ring", "_taken")

    def __init__(self, capacity: int = MAILBOX_POSTS, overflow: Overflow = Overflow.DROP_OLDEST) -> None:
        self._post = Post(capacity, overflow)
        self._ring, self._bell = trio.open_memory_channel[None](1)
        self._is_ringing = False
        self._dismissed = False
        self._taken = 0

    def put(self, item: Item) -> None:
        """Leave one item; never waits, never fails, whatever the listener does."""
        if self._dismissed:
            return
        if not self._post.put(item):
            self._dismissed = True
        if not self._is_ringing:
            self._is_ringing = True
            with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):  # nobody hears it again
                self._ring.send_nowait(None)

    async def take(self) -> Batch:
        """Wait for post, then take all of it.

        Raises ``trio.EndOfChannel`` once the mailbox is closed and empty, ``Dismissed`` as soon as the listener fell
        further behind than its capacity (under ``Overflow.DISMISS``).
        """
        if not self._dismissed:
            await self._bell.receive()
            self._is_ringing = False
        if self._dismissed:
            raise Dismissed("the listener fell behind and must resume from its last position")
        batch = self._post.take()
        self._taken += len(batch.items)
        return batch

    def close(self) -> None:
        """End the mailbox: what waits can still be taken, then ``take()`` raises ``trio.EndOfChannel``."""
        self._ring.close()

    def statistics(self) -> MailboxStatistics:
        """Counts, for telemetry."""
        return MailboxStatistics(len(self._post), self._taken, self._post.dropped_in_all)
