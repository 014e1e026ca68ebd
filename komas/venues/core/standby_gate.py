"""Between the feed and the gap filler of a market that stands by: what comes is kept, while another process publishes.

Closed, the gate keeps the last seconds of streams whose events must not be lost, within bounds, and the newest event of
each stream, however old. Opened, it lets all of it go, stream by stream, behind what the other process has published;
what comes meanwhile waits for its turn. What is missing in between shows in the numbers, and is asked for as always.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import trio

from komas.model.kinds import KINDS
from komas.model.market import Event, Incoming
from komas.model.streams import Stream
from komas.venues.core.ports import FeedSink, MarketSink
from komas.venues.core.sequencing import number_of

KEPT_EVENTS: Final = 200_000  # ten seconds of the exchange's busiest
KEPT_BYTES: Final = 2**27  # as far as kinds say what an event takes
LET_GO: Final = 128  # events, before others run: a subscriber that reads at once can take them
COVERED_S: Final = 2.0  # a leader that was heard so long after a moment had published what came before it


class _Batch(msgspec.Struct, eq=False):
    """Events of one stream that came together, and when, on trio's clock."""

    at: float
    events: Sequence[Incoming]
    received_ms: int
    is_left: bool = False  # it is too old, and was the newest


class _Kept:
    """What is kept of a stream, oldest first; of one that is not filled, that is its newest batch."""

    __slots__ = ("batches", "bytes_each", "is_filled")

    def __init__(self, stream: Stream) -> None:
        spec = KINDS[stream.kind]
        self.batches: deque[_Batch] = deque()
        self.bytes_each = spec.kept_bytes
        self.is_filled = spec.is_filled


class _Filler(FeedSink, Protocol):
    def latest(self, stream: Stream) -> Event | None:
        """The newest event that was published of a stream."""


class StandbyGate:
    """A ``FeedSink`` in front of another one; ``sink`` is where that one publishes to. ``open()`` it once."""

    def __init__(self, filler: _Filler, sink: MarketSink, *, keep_s: float) -> None:
        self._filler = filler
        self._sink = sink
        self._keep_s = keep_s
        self._is_open = False
        self._kept: dict[Stream, _Kept] = {}
        self._order: deque[tuple[_Kept, _Batch]] = deque()  # of what is kept for some time, oldest first
        self._events = self._bytes = 0
        self._suspected: dict[Stream, float] = {}  # streams of which nothing came since then

    @property
    def events(self) -> int:
        """How many events are kept of those that must not be lost."""
        return self._events

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Keep events, or hand them on."""
        if self._suspected:
            self._suspected.pop(stream, None)
        if self._is_open and stream not in self._kept:
            self._filler.on_events(stream, events, received_ms)
        else:
            self._keep(stream, _Batch(trio.current_time(), events, received_ms))

    def on_suspect(self, stream: Stream) -> None:
        """Remember that events of a stream may be missing, or hand it on."""
        if self._is_open and stream not in self._kept:
            self._filler.on_suspect(stream)
        else:
            self._suspected[stream] = trio.current_time()

    def on_reset(self, stream: Stream) -> None:
        """A stream is not wanted any more: what is kept of it is nobody's."""
        self._forget(stream)
        self._filler.on_reset(stream)

    def on_refused(self, stream: Stream, reason: str) -> None:
        """The exchange refused a stream."""
        self._forget(stream)
        self._filler.on_refused(stream, reason)

    # What is kept

    def _keep(self, stream: Stream, batch: _Batch) -> None:
        own = self._kept.get(stream)
        if own is None:
            own = self._kept[stream] = _Kept(stream)
        elif not own.is_filled or own.batches[0].is_left:
            self._drop_first(own)  # a newer state replaces an older one
        own.batches.append(batch)
        if own.is_filled:
            self._count(own, len(batch.events))
            self._order.append((own, batch))
            self._trim(batch.at - self._keep_s)

    def _trim(self, oldest_at: float) -> None:
        """Drop what is older than that, and the oldest of what is too much: but for each stream's newest."""
        while self._order and (self._order[0][1].at < oldest_at or self._is_too_much):
            own, batch = self._order.popleft()
            if not own.batches or own.batches[0] is not batch:
                continue  # it went with its stream, or was let go
            if len(own.batches) > 1:
                self._drop_first(own)
            else:
                batch.is_left = True

    @property
    def _is_too_much(self) -> bool:
        return self._events > KEPT_EVENTS or self._bytes > KEPT_BYTES

    def _drop_first(self, own: _Kept) -> _Batch:
        batch = own.batches.popleft()
        if own.is_filled:
            self._count(own, -len(batch.events))
        return batch

    def _count(self, own: _Kept, more: int) -> None:
        self._events += more
        self._bytes += more * own.bytes_each

    def _forget(self, stream: Stream) -> None:
        self._suspected.pop(stream, None)
        if (own := self._kept.pop(stream, None)) is not None:
            while own.batches:
                self._drop_first(own)

    # Going on

    async def open(self, covered_until: float) -> None:
        """Let go what is kept, and everything that comes from now on.

        ``covered_until`` is when, on trio's clock, whoever published until now was heard last: what may have been
        missed well before that is no more missing.
        """
        self._is_open = True
        while self._kept:
            stream = next(iter(self._kept))
            self._pass_over(stream)
            await self._let_go(stream)
            self._sink.flush()
        self._order.clear()
        suspected, self._suspected = self._suspected, {}
        for stream, at in suspected.items():
            if at + COVERED_S > covered_until:
                self._filler.on_suspect(stream)

    def _pass_over(self, stream: Stream) -> None:
        """Drop what was published: old numbers in a row would be taken for a new count."""
        own, latest = self._kept[stream], self._filler.latest(stream)
        published = -math.inf if latest is None else number_of(latest)
        while own.batches and number_of(own.batches[0].events[-1]) < published:  # type: ignore[arg-type]  # no books
            self._drop_first(own)
        if not own.batches:
            del self._kept[stream]

    async def _let_go(self, stream: Stream) -> None:
        released = 0
        while (own := self._kept.get(stream)) is not None:
            batch = self._drop_first(own)
            if not own.batches:
                del self._kept[stream]  # no await until this has gone: the next one is behind it
            self._filler.on_events(stream, batch.events, batch.received_ms)
            released += len(batch.events)
            if released >= LET_GO:
                released = 0
                await self._sink.settled()
        await trio.lowlevel.checkpoint()
