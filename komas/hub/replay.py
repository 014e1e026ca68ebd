"""What a subscriber missed, slice by slice, until it has all of it and is live. Sans-I/O.

=========== ============================================== ==========================================================
state       published events reach it through              next
=========== ============================================== ==========================================================
replaying   its cursor: the history has them               *live*: it has taken the last item; or the history ended,
                                                           and what was left is declared in its buffer
live        its buffer, or its group                       the end of the subscription
=========== ============================================== ==========================================================

Notices that are not part of a history (the state of the feed, of a stream) reach its buffer in both states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from komas.hub.buffer import Buffer
from komas.hub.history import Cursor
from komas.hub.overflow import Batch, Item
from komas.model.codec import NoticeEnvelope
from komas.model.streams import Stream

SLICE: Final = 64  # items; some 16 KB of text, which is what a client costs that does not read


class Replay:
    """One subscriber's replay of one stream; ``go_live`` lets its buffer receive events, and returns the open state."""

    __slots__ = ("_buffer", "_cursor", "_go_live", "_stream", "is_over")

    def __init__(
        self, stream: Stream, cursor: Cursor, buffer: Buffer[Item, Batch], go_live: Callable[[], list[Item]]
    ) -> None:
        self._stream = stream
        self._cursor = cursor
        self._buffer = buffer
        self._go_live = go_live
        self.is_over = False

    def __len__(self) -> int:
        """How many items are left."""
        return 0 if self.is_over else len(self._cursor)

    def take(self) -> Batch | None:
        """The next slice; ``None`` when nothing is left, or the subscription is over: who comes back has a position.

        With the last item the subscriber is live.
        """
        if self.is_over:
            return None
        if self._buffer.is_finished:
            self.is_over = True
            return None
        waiting = self._buffer.drain_nowait()
        items = [] if waiting is None else waiting.items
        items += self._cursor.take(SLICE)
        if not len(self._cursor):
            # No await since the last item was taken: an event in between would be in neither history nor buffer.
            self.is_over = True
            items += self._go_live()
        return Batch(items, 0) if items else None

    def cut(self) -> None:
        """The history ends; what is left of it is declared missing."""
        self.is_over = True
        if (gap := self._cursor.give_up()) is not None:
            self._buffer.put(NoticeEnvelope(gap, self._stream))
