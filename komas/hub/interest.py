"""Which streams are wanted, by how many; pins; lingering.

A stream is wanted while it has a subscriber, while it is pinned, and for ``linger_s`` after the last subscriber left: a
page reload must not cost a subscription. Nothing else opens or closes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio

from komas.model.kinds import Venue
from komas.model.streams import Stream

LINGER_S = 30.0


class Interest:
    """The wanted streams; ``opened`` and ``closed`` are called, synchronously, as a stream becomes wanted or not."""

    def __init__(
        self,
        *,
        opened: Callable[[Stream], None],
        closed: Callable[[Stream], None],
        linger_s: float = LINGER_S,
    ) -> None:
        self._opened = opened
        self._closed = closed
        self._linger_s = linger_s
        self._wanted: dict[Stream, None] = {}  # an ordered set: the order in which they were first wanted
        self._subscribers: dict[Stream, int] = {}
        self._pinned: set[Stream] = set()
        self._lingering: dict[Stream, float] = {}  # deadlines on trio's clock, earliest first
        self._changes = trio.lowlevel.ParkingLot()
        self.version = 0

    def __contains__(self, stream: Stream) -> bool:
        return stream in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

    def streams(self, venue: Venue | None = None) -> tuple[Stream, ...]:
        """The wanted streams, of one venue or of all, in the order in which they were first wanted."""
        if venue is None:
            return tuple(self._wanted)
        return tuple(stream for stream in self._wanted if stream.venue is venue)

    def subscribers(self, stream: Stream) -> int:
        """How many subscribers a stream has now."""
        return self._subscribers.get(stream, 0)

    def pinned(self, stream: Stream) -> bool:
        """Whether a stream is kept open without subscribers."""
        return stream in self._pinned

    def pins(self) -> tuple[Stream, ...]:
        """All pinned streams, in the order in which they were first wanted."""
        return tuple(stream for stream in self._wanted if stream in self._pinned)

    def pin(self, streams: Iterable[Stream]) -> None:
        """Keep streams open until they are unpinned."""
        for stream in streams:
            self._pinned.add(stream)
            self._want(stream)

    def unpin(self, streams: Iterable[Stream]) -> None:
        """Let pinned streams go; one that has subscribers stays open for them, any other is unwanted at once."""
        for stream in streams:
            if stream in self._pinned:
                self._pinned.discard(stream)
                if not self._subscribers.get(stream):
                    self._drop(stream)

    def join(self, streams: Iterable[Stream]) -> None:
        """Count one more subscriber of each stream."""
        for stream in streams:
            self._subscribers[stream] = self._subscribers.get(stream, 0) + 1
            self._want(stream)

    def leave(self, streams: Iterable[Stream]) -> None:
        """Count one subscriber less of each stream; the last one's leaving starts the lingering."""
        deadline = trio.current_time() + self._linger_s
        for stream in streams:
            left = self._subscribers[stream] - 1
            if left:
                self._subscribers[stream] = left
                continue
            del self._subscribers[stream]
            if stream not in self._pinned:
                self._lingering[stream] = deadline
                self._changed()

    def abandon(self, stream: Stream) -> None:
        """Stop wanting a stream that the exchange refused; its subscribers are still counted."""
        self._pinned.discard(stream)
        self._drop(stream)

    async def changed(self, seen: int) -> int:
        """Wait until ``version`` is not ``seen``, and return it: no change is missed between a look and the wait."""
        while self.version == seen:
            await self._changes.park()
        return self.version

    async def sweep(self) -> None:
        """Close streams whose lingering is over; runs until cancelled."""
        while True:
            seen = self.version
            for stream, deadline in list(self._lingering.items()):
                if deadline <= trio.current_time():
                    self._drop(stream)
            with trio.move_on_at(min(self._lingering.values(), default=math.inf)):
                await self.changed(seen)

    def _want(self, stream: Stream) -> None:
        self._lingering.pop(stream, None)
        if stream not in self._wanted:
            self._wanted[stream] = None
            self._opened(stream)
            self._changed()

    def _drop(self, stream: Stream) -> None:
        self._lingering.pop(stream, None)
        if stream in self._wanted:
            del self._wanted[stream]
            self._closed(stream)
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._changes.unpark_all()
