"""One subscription to many streams, which may change while it lasts.

Its subscriber knows one place among the events of all streams (``Envelope.publication``). So it receives them in that
order, what it missed before everything else (``MergedReplay``), and a stream that is added begins where the others are.

Past candles, which somebody asked the exchange for, stand outside of that order: they have no place in it. The stream
that they belong to is attached together with them, so that what they end with and what comes live have no seam.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import trio

from komas.hub.broadcast import BroadcastGroup, Encoder, Writer
from komas.hub.buffer import Buffer
from komas.hub.history import Cursor
from komas.hub.interest import Interest
from komas.hub.latest import Latest
from komas.hub.merged_replay import MergedReplay
from komas.hub.open_streams import MarketTarget, OpenStreams
from komas.hub.overflow import Batch, Item
from komas.hub.subscription import DirectSubscription
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import KINDS
from komas.model.market import Gap, Kline, StreamList
from komas.model.streams import Stream


class MarketState(Protocol):
    """What the hub has, for subscriptions that change."""

    epoch: str
    interest: Interest
    latest: Latest
    open_streams: OpenStreams


class MultiplexedSubscription(DirectSubscription[Item, Batch]):
    """A subscription to ``streams``; made by ``Hub.multiplex()``. Without a ``writer``, its task alone writes."""

    __slots__ = ("_ahead", "_awaiting_past", "_has_writer", "_reader", "_replay", "_state", "streams")

    def __init__(
        self,
        state: MarketState,
        buffer: Buffer[Item, Batch],
        reader: str,
        *,
        group: BroadcastGroup[Item, Batch],
        writer: Writer | None,
        encoder: Encoder[Batch],
    ) -> None:
        super().__init__(
            buffer, [], group=group, writer=writer or _NO_WRITER, encoder=encoder, replace_target=self._replace
        )
        self._has_writer = writer is not None
        self._state = state
        self._reader = reader
        self._ahead: deque[Batch] = deque()
        self._replay: MergedReplay | None = None
        self._awaiting_past: set[Stream] = set()
        self.streams: dict[Stream, None] = {}

    def begin(self, streams: Sequence[Stream], since: StreamPosition | None, past: Collection[Stream]) -> None:
        """Subscribe to the first streams; those of ``past`` wait for ``add_past()``. No await in here."""
        state = self._state
        self._join(streams, past)
        live = [stream for stream in streams if stream not in past]
        if since is None:
            self._attach(live)
            self.initial += self._states(live)
            return
        kept = [stream for stream in live if KINDS[stream.kind].is_filled]
        states = [stream for stream in live if not KINDS[stream.kind].is_filled]
        self._attach(states)
        self.initial += self._states(states)
        after = since.offset if since.epoch == state.epoch else -1
        cursors: dict[Stream, Cursor] = {}
        for stream in kept:
            gap, cursors[stream] = state.open_streams.by_stream[stream].history.recover_publication(after)
            if gap is not None:
                self.initial.append(NoticeEnvelope(gap, stream))
        self._missed = self._replay = MergedReplay(cursors, self._buffer, self._go_live)
        for stream in kept:
            state.open_streams.begin(stream, self._buffer, self._replay)

    def change(self, added: Sequence[Stream], removed: Sequence[Stream], past: Collection[Stream]) -> None:
        """Subscribe to more streams, and to some no more; the subscriber is told all of them. No await in here."""
        self._leave_group()
        self._drop([stream for stream in removed if stream in self.streams])
        fresh = [stream for stream in added if stream not in self.streams]
        self._join(fresh, past)
        self._buffer.put(NoticeEnvelope(StreamList(streams=tuple(stream.name for stream in self.streams))))
        live = [stream for stream in fresh if stream not in past]
        for stream in live:
            self._enter(stream)
        self._buffer.put(*self._states(live))

    def awaits_past(self, stream: Stream) -> bool:
        """Whether a stream still waits for its past candles."""
        return stream in self._awaiting_past

    def add_past(self, stream: Stream, candles: Sequence[Kline], received_ms: int, failure: str | None = None) -> None:
        """Receive past candles, oldest first, and from then on what is live; ``failure`` is why there are none.

        No await in here, and none since the last of these candles was asked for but for its answer: what was published
        meanwhile is in the history.
        """
        if stream not in self._awaiting_past:
            return  # it was removed
        self._awaiting_past.discard(stream)
        self._leave_group()
        items: list[Item] = [_past(stream, candle, received_ms) for candle in candles if candle.is_closed]
        if failure is not None:
            items.append(NoticeEnvelope(Gap(stream=stream.name, first=None, last=None, reason=failure), stream))
        items += self._since(stream, candles, received_ms)
        self._ahead.append(Batch(items, 0))
        self._enter(stream)
        self._buffer.wake()

    def _since(self, stream: Stream, candles: Sequence[Kline], received_ms: int) -> list[Item]:
        """What came after the past candles until now: closed ones, and the one that is open."""
        open_stream = self._state.open_streams.by_stream.get(stream)
        closed = [candle.timestamp for candle in candles if candle.is_closed]
        items: list[Item] = []
        if open_stream is not None and closed and (open_stream.history.newest or -1) > closed[-1]:
            gap, cursor = open_stream.history.recover(StreamPosition(open_stream.epoch, closed[-1]))
            items += [] if gap is None else [NoticeEnvelope(gap, stream)]
            for item in cursor.take(len(cursor)):
                if isinstance(item, Envelope) and isinstance(item.event, Kline):
                    items.append(_past(stream, item.event, item.received_ms))
                    closed.append(item.event.timestamp)
                elif isinstance(item, NoticeEnvelope):
                    items.append(item)
        newest = [candle for candle in candles if not candle.is_closed]
        latest = self._state.latest.get(stream)
        if latest is not None and isinstance(latest.event, Kline) and not latest.event.is_closed:
            newest.append(latest.event)
        after = closed[-1] if closed else -1
        newest = [candle for candle in newest if candle.timestamp > after]
        if newest:
            # Of one candle the count of trades only rises: the exchange's answer may be newer than what came live.
            grown = max(newest, key=lambda candle: (candle.timestamp, candle.trades))
            items.append(_past(stream, grown, received_ms))
        return items

    async def receive(self) -> Batch:
        """Wait until there is something that was not written; as ``DirectSubscription.receive()``."""
        while True:
            if self._ahead:
                await trio.lowlevel.checkpoint()  # before it is taken: what a cancelled task has taken is lost
                return self._ahead.popleft()
            if (missed := self._missed) is not None and (batch := await self._recovered(missed)) is not None:
                return batch
            if (batch := self.drain_nowait()) is not None:
                return batch
            if not self._has_writer:
                await self._buffer.woken()
            else:
                self._group.join(self)
                try:
                    await self._buffer.woken()
                finally:
                    self._group.leave(self)
            if not self._ahead:
                return self._buffer.drain()

    def rest(self, woken: Callable[[], None]) -> bool:
        """As ``DirectSubscription.rest()``."""
        return not self._ahead and super().rest(woken)

    def take(self) -> Batch | None:
        """As ``DirectSubscription.take()``; past candles go first."""
        self._leave_group()
        return self._ahead.popleft() if self._ahead else super().take()

    def end(self) -> None:
        """Unsubscribe from everything."""
        self._leave_group()
        self._drop(list(self.streams))

    def _leave_group(self) -> None:
        """Receive by the buffer alone: what is to come first is put there, and the task is about to be woken."""
        self._group.leave(self)

    def _join(self, streams: Sequence[Stream], past: Collection[Stream]) -> None:
        self._state.interest.join(streams, self._reader)
        self._state.open_streams.entered(streams)
        self.streams |= dict.fromkeys(streams)
        self._awaiting_past |= {stream for stream in streams if stream in past}

    def _drop(self, streams: Sequence[Stream]) -> None:
        interest = self._state.interest
        for stream in streams:
            del self.streams[stream]
            self._awaiting_past.discard(stream)
            if self._replay is not None:
                self._replay.remove(stream)
        self._state.open_streams.left(
            streams, self._buffer, lambda stream: interest.subscribers(stream) > 1, stays=bool(self.streams)
        )
        interest.leave(streams, self._reader)

    def _enter(self, stream: Stream) -> None:
        """Let a stream be live: at once, or with the others once what was missed is over."""
        replay, opened = self._replay, self._state.open_streams.by_stream.get(stream)
        if replay is None or replay.is_over or opened is None or not KINDS[stream.kind].is_filled:
            self._attach([stream])
        else:
            replay.add(stream, opened.history.now())
            self._state.open_streams.begin(stream, self._buffer, replay)

    def _attach(self, streams: Sequence[Stream]) -> None:
        self._state.open_streams.replace(streams, None, self._buffer)

    def _replace(self, old: MarketTarget | None, new: MarketTarget | None) -> None:
        attached = [stream for stream in self.streams if stream not in self._awaiting_past]
        self._state.open_streams.replace(attached, old, new)

    def _go_live(self, streams: tuple[Stream, ...]) -> list[Item]:
        for stream in streams:
            self._state.open_streams.go_live(stream, self._buffer)
        # Of candles the open one; the others are all there.
        latest = [self._state.latest.get(stream) for stream in streams]
        return [envelope for envelope in latest if envelope is not None and envelope.sequence is None]

    def _states(self, streams: Sequence[Stream]) -> list[Item]:
        """What is known of streams; a past trade is no state, a subscriber starts with the next one."""
        latest = [self._state.latest.get(stream) for stream in streams if KINDS[stream.kind].is_state]
        return [envelope for envelope in latest if envelope is not None]


class _NoWriter:
    """Takes nothing: there is no connection that could be written to past its own task."""

    def write_nowait(self, data: bytes) -> int:
        """Leave all of it."""
        return len(data)

    async def flush(self) -> bool:
        """There is no rest."""
        return False


_NO_WRITER = _NoWriter()


def _past(stream: Stream, candle: Kline, received_ms: int) -> Envelope:
    """A candle without a place: it is no event of the order that a subscriber comes back to."""
    return Envelope(stream, candle, received_ms, None, "", backfilled=True)
