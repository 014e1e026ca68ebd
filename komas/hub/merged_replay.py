"""What a subscriber of many streams missed, in the order in which it was published. Sans-I/O.

A subscriber that is cut off comes back with the publication of its last event. So it must have every event before that
one, of whatever stream: events of all its streams come in one order, and none of the streams is live before all of them
are.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heapreplace

from komas.hub.buffer import Buffer
from komas.hub.history import Cursor
from komas.hub.overflow import Batch, Item
from komas.hub.replay import SLICE
from komas.model.streams import Stream


class MergedReplay:
    """One subscriber's way through the histories of its streams.

    ``go_live`` lets its buffer receive what follows of these streams, and returns the states that are not kept.
    """

    def __init__(
        self,
        cursors: dict[Stream, Cursor],
        buffer: Buffer[Item, Batch],
        go_live: Callable[[tuple[Stream, ...]], list[Item]],
    ) -> None:
        self._cursors = cursors
        self._buffer = buffer
        self._go_live = go_live
        self.is_over = False

    def __len__(self) -> int:
        """How many items are left."""
        return 0 if self.is_over else sum(len(cursor) for cursor in self._cursors.values())

    def add(self, stream: Stream, cursor: Cursor) -> None:
        """One more stream: it is live with the others."""
        self._cursors[stream] = cursor

    def remove(self, stream: Stream) -> None:
        """One stream less."""
        self._cursors.pop(stream, None)

    def cut(self) -> None:
        """One of the histories ends: so does the subscription, and its subscriber comes back with its place."""
        self.is_over = True
        self._buffer.close()

    def take(self) -> Batch | None:
        """The next slice; ``None`` when nothing is left, or the subscription is over.

        With the last item the subscriber is live.
        """
        if self.is_over or self._buffer.is_finished:
            self.is_over = True
            return None
        waiting = self._buffer.drain_nowait()
        items = [] if waiting is None else waiting.items
        items += self._merged()
        if not len(self):
            # No await since the last item was taken: an event in between would be in neither history nor buffer.
            self.is_over = True
            items += self._go_live(tuple(self._cursors))
        return Batch(items, 0) if items else None

    def _merged(self) -> list[Item]:
        ways = [
            (cursor.publication, order, cursor) for order, cursor in enumerate(self._cursors.values()) if len(cursor)
        ]
        heapify(ways)
        items: list[Item] = []
        while ways and len(items) < SLICE:
            _, order, cursor = ways[0]
            items += cursor.take(1)
            if len(cursor):
                heapreplace(ways, (cursor.publication, order, cursor))
            else:
                heappop(ways)
        return items
