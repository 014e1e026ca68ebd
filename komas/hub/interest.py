"""Which streams are wanted, and by whom; pins; lingering.

A stream is wanted while it has a subscriber, while it is pinned, and for ``linger_s`` after the last subscriber left: a
page reload must not cost a subscription. It lingers on behalf of the reader who left last, and less long where room is
short. Nothing else opens or closes one.

A reader is whoever subscriptions are counted by: a client's address; an empty text for subscriptions of our own.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import trio

from komas.model.kinds import Venue
from komas.model.streams import Stream

LINGER_S = 30.0
CLOSED_AT_ONCE: Final = 32  # streams, before others may run: a history may take a millisecond to forget


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
        self._readers: dict[Stream, dict[str, None]] = {}  # an ordered set: the order in which they came
        self._held: dict[str, dict[Stream, int]] = {}  # by reader: its subscriptions of each stream; 0: it lingers
        self._pinned: set[Stream] = set()
        self._lingering: dict[Stream, tuple[float, str]] = {}  # until when on trio's clock, earliest first; for whom
        self._on_reader: list[Callable[[Stream, str], None]] = []
        self._changes = trio.lowlevel.ParkingLot()
        self._watchers: list[_Changes] = []
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

    def readers(self, stream: Stream) -> Collection[str]:
        """Whose subscribers they are, in the order in which they came."""
        return self._readers.get(stream, ())

    def held(self, reader: str) -> Mapping[Stream, int]:
        """The streams that are open on behalf of a reader: how many subscriptions it has, 0 where it lingers."""
        return self._held.get(reader, {})

    def holders(self) -> Mapping[str, Mapping[Stream, int]]:
        """The same of every reader."""
        return self._held

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

    def join(self, streams: Iterable[Stream], reader: str = "") -> None:
        """Count one more subscriber of each stream."""
        for stream in streams:
            self._subscribers[stream] = self._subscribers.get(stream, 0) + 1
            self._want(stream)
            held = self._held.setdefault(reader, {})
            held[stream] = held.get(stream, 0) + 1
            readers = self._readers.setdefault(stream, {})
            if reader not in readers:
                readers[reader] = None
                for tell in self._on_reader:
                    tell(stream, reader)

    def leave(self, streams: Iterable[Stream], reader: str = "") -> None:
        """Count one subscriber less of each stream; the last one's leaving starts the lingering."""
        until = trio.current_time() + self._linger_s
        for stream in streams:
            self._leave(stream, reader)
            if left := self._subscribers[stream] - 1:
                self._subscribers[stream] = left
                continue
            del self._subscribers[stream]
            if stream in self._wanted and stream not in self._pinned:
                self._lingering[stream] = until, reader
                self._held.setdefault(reader, {})[stream] = 0
                self._changed()

    def _leave(self, stream: Stream, reader: str) -> None:
        held = self._held[reader]
        if left := held[stream] - 1:
            held[stream] = left
            return
        self._forget(stream, reader)
        readers = self._readers[stream]
        del readers[reader]
        if not readers:
            del self._readers[stream]

    def _forget(self, stream: Stream, reader: str) -> None:
        held = self._held[reader]
        del held[stream]
        if not held:
            del self._held[reader]

    def tell_readers(self, tell: Callable[[Stream, str], None]) -> None:
        """Have ``tell`` called, synchronously, for each reader of a stream that it did not read before."""
        self._on_reader.append(tell)

    def abandon(self, stream: Stream) -> None:
        """Stop wanting a stream that the exchange refused; its subscribers are still counted."""
        self._pinned.discard(stream)
        self._drop(stream)

    def let_go(self, reader: str, count: int, spared: Collection[Stream], among: Callable[[Stream], bool]) -> bool:
        """Close ``count`` streams that linger for a reader, oldest first; ``False``, and none, where there are fewer.

        Not those of ``spared``, which are about to be wanted again, and only those that ``among`` accepts.
        """
        mine = (
            stream
            for stream, subscriptions in self.held(reader).items()
            if not subscriptions and stream not in spared and among(stream)
        )
        return self._close(count, heapq.nsmallest(count, mine, key=lambda stream: self._lingering[stream][0]))

    def make_room(self, count: int, spared: Collection[Stream] = ()) -> bool:
        """The same of all that linger, beginning with the reader for whom most do."""
        by_reader = Counter(reader for _, reader in self._lingering.values())
        there = ((stream, until, reader) for stream, (until, reader) in self._lingering.items() if stream not in spared)
        first = heapq.nsmallest(count, there, key=lambda each: (-by_reader[each[2]], each[1]))
        return self._close(count, [stream for stream, _, _ in first])

    def _close(self, count: int, streams: Collection[Stream]) -> bool:
        if len(streams) < count:
            return False
        for stream in streams:
            self._drop(stream)
        return True

    def changes(self, venue: Venue) -> _Changes:
        """What changes from now on, for one who takes it again and again."""
        watcher = _Changes(self, venue)
        self._watchers.append(watcher)
        return watcher

    async def changed(self, seen: int) -> int:
        """Wait until ``version`` is not ``seen``, and return it: no change is missed between a look and the wait."""
        while self.version == seen:
            await self._changes.park()
        return self.version

    async def sweep(self) -> None:
        """Close streams whose lingering is over; runs until cancelled."""
        while True:
            await self._close_due()
            seen = self.version  # no await since the last look
            with trio.move_on_at(self._next_end()):
                await self.changed(seen)

    async def _close_due(self) -> None:
        closed = 0
        while self._next_end() <= trio.current_time():
            self._drop(next(iter(self._lingering)))
            closed += 1
            if closed % CLOSED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    def _next_end(self) -> float:
        return next((until for until, _ in self._lingering.values()), math.inf)

    def _want(self, stream: Stream) -> None:
        self._end_lingering(stream)
        if stream not in self._wanted:
            self._wanted[stream] = None
            self._opened(stream)
            self._note(stream)

    def _drop(self, stream: Stream) -> None:
        self._end_lingering(stream)
        if stream in self._wanted:
            del self._wanted[stream]
            self._closed(stream)
            self._note(stream)

    def _end_lingering(self, stream: Stream) -> None:
        if (lingered := self._lingering.pop(stream, None)) is not None:
            self._forget(stream, lingered[1])

    def _note(self, stream: Stream) -> None:
        for watcher in self._watchers:
            watcher.note(stream)
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._changes.unpark_all()


class _Changes:
    """What changed of a venue's streams since it was taken: so many thousands are not gone through for one of them."""

    def __init__(self, interest: Interest, venue: Venue) -> None:
        self._interest = interest
        self._venue = venue
        self._streams: dict[Stream, None] = {}

    def note(self, stream: Stream) -> None:
        """A stream became wanted, or is not wanted any more."""
        if stream.venue is self._venue:
            self._streams[stream] = None

    def begin_anew(self) -> None:
        """Count every wanted stream as changed."""
        self._streams.update(dict.fromkeys(self._interest.streams(self._venue)))

    def take(self, most: int) -> list[Stream]:
        """Up to so many of them, each once, those that changed first at the front; they do not count any more."""
        taken = list(itertools.islice(self._streams, most))
        for stream in taken:
            del self._streams[stream]
        return taken
