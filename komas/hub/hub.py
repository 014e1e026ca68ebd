"""Publish and subscribe: market events come in once and go out to every subscriber of their stream.

The hub never waits: ``publish()`` is a plain function, and a slow subscriber costs only itself.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Final, TypeAlias

import msgspec
import trio

from komas.histogram import Histogram
from komas.hub.broadcast import Broadcaster, Encoder, Writer
from komas.hub.buffer import BUFFER_EVENTS, Buffer
from komas.hub.history import HISTORY_LENGTH
from komas.hub.history_limit import HISTORY_BYTES, HistoryLimit
from komas.hub.interest import LINGER_S, Interest
from komas.hub.latest import Latest
from komas.hub.multiplex import MultiplexedSubscription
from komas.hub.open_streams import OpenStream, OpenStreams
from komas.hub.overflow import Batch, ConflatingQueue, Item, Overflow, QueueCounts
from komas.hub.replay import Replay
from komas.hub.subscription import DirectSubscription, Subscription
from komas.model.clock import wall_ms
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import BY_EVENT, KINDS
from komas.model.market import Event, FeedState, FeedStatus, Gap, Health, HealthNotice, Kline
from komas.model.streams import Stream, next_number

GAPS_KEPT: Final = 1000
MEASURED: Final = 17  # one write of so many: each has its price where every reader has a group of its own

MarketSubscription: TypeAlias = Subscription[Item, Batch]


class HubStatistics(msgspec.Struct, frozen=True):
    """Counts: events since the start; streams, subscribers, and events and bytes in all histories now.

    ``history_evicted`` are events that went for the limit of all histories, not for that of their own. ``waiting`` are
    events and notices in the buffers of all subscribers now; ``dropped``, and ``conflated`` (a newer one took its
    place), were in those, or in the one of a group.
    """

    published: int
    unwanted: int
    streams: int
    subscribers: int
    history_events: int
    history_bytes: int
    history_evicted: int
    waiting: int
    dropped: int
    conflated: int


def new_epoch() -> str:
    """A name for one epoch of a stream, which no other epoch shares."""
    return secrets.token_hex(4)


class Hub:
    """Pub/sub for market events inside one process."""

    def __init__(
        self,
        *,
        linger_s: float = LINGER_S,
        history_length: int = HISTORY_LENGTH,
        history_bytes: int = HISTORY_BYTES,
        gather_above: float = math.inf,
        epoch: Callable[[], str] = new_epoch,
        clock_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``clock_ms`` is the one that ``received_ms`` is told by."""
        self._history_limit = HistoryLimit(history_bytes)
        self._publication = 0  # of the newest event or gap that is remembered, of any stream
        self.open_streams = self._streams(history_length, epoch)
        self._buffers: dict[Buffer[Item, Batch], None] = {}
        self._nudged: dict[MarketSubscription, None] = {}
        self._broadcaster: Broadcaster[Item, Batch] = Broadcaster(written=self._note_written, gather_above=gather_above)
        self._clock_ms = clock_ms
        self._counts = QueueCounts()
        self.write_latency = Histogram()  # seconds from the receipt of a batch's first event to its last write
        self._until_measured = 1
        self._published = 0
        self._unwanted = 0
        self.epoch = new_epoch()  # of this process: publications of another one mean nothing here
        self.gaps: deque[tuple[float, Gap]] = deque(maxlen=GAPS_KEPT)  # when each was declared, on trio's clock
        self.drained = trio.Event()
        self.latest = Latest()
        self.interest = Interest(opened=self.open_streams.open, closed=self._close, linger_s=linger_s)
        self.status = FeedStatus(state=FeedState.DISCONNECTED)

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are now."""
        return len(self._buffers)

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Publish one event to every subscriber of its stream; never waits."""
        self.publish_all(stream, (event,), received_ms, backfilled=backfilled)

    def publish_all(
        self, stream: Stream, events: Sequence[Event], received_ms: int, *, backfilled: bool = False
    ) -> None:
        """Publish events of one stream that came together, in order; never waits.

        Events of a stream that is not wanted (some still come after an unsubscription) are counted and dropped.
        """
        open_stream = self.open_streams.by_stream.get(stream)
        if open_stream is None:
            self._unwanted += len(events)
            return
        self._published += len(events)
        sequence, epoch = BY_EVENT[type(events[0])].sequence, open_stream.epoch
        publication = self._publication
        envelopes, kept = [], []
        for event in events:
            if (offset := sequence(event)) is None:
                envelopes.append(Envelope(stream, event, received_ms, None, epoch, backfilled))
            else:
                publication += 1
                envelope = Envelope(stream, event, received_ms, offset, epoch, backfilled, publication)
                envelopes.append(envelope)
                kept.append(envelope)
        self._publication = publication
        self._give(open_stream, envelopes, kept)

    def _give(self, open_stream: OpenStream, envelopes: Sequence[Envelope], kept: Sequence[Envelope]) -> None:
        """Give events of one stream to its targets, and those to be ``kept`` to its history."""
        if kept and (grown := open_stream.history.append(*kept)):
            self._history_limit.grew(open_stream.history, grown)
        for target in open_stream.targets:
            target.put(*envelopes)
        self.latest.put(envelopes[-1])

    def flush(self) -> None:
        """Write what was published to subscribers' connections, for one time slice; ``run()`` writes the rest."""
        self._broadcaster.flush()

    async def settled(self) -> None:
        """Wait, at most a fifth of a second, until fast subscribers have received what was published.

        For publishers of more events at once than a buffer has room for.
        """
        await self._broadcaster.settled()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Tell subscribers of a stream, present ones and those that will resume, that events are missing here."""
        open_stream = self.open_streams.by_stream.get(stream)
        if open_stream is None:
            return
        self._publication += 1
        self.gaps.append((trio.current_time(), gap))
        envelope = NoticeEnvelope(gap, stream, self._publication)
        self._history_limit.grew(open_stream.history, open_stream.history.append_gap(envelope))
        self.open_streams.put(stream, envelope)

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Begin a new epoch of a stream whose numbers started again: positions of the old one are void."""
        if self.open_streams.by_stream.get(stream) is not None:
            self.open_streams.renew(stream)
            self.publish_gap(stream, gap)

    def publish_status(self, status: FeedStatus) -> None:
        """Tell every subscriber the state of the feed; order books that are not kept any more are forgotten."""
        self.status = status
        if status.state is FeedState.DISCONNECTED:
            self.latest.forget_books()
        self.open_streams.put_to_all(NoticeEnvelope(status))

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Tell subscribers of a stream that its health changed; a doubtful order book is forgotten."""
        if KINDS[stream.kind].is_book and health.health in (Health.STALE, Health.RECOVERING):
            self.latest.forget(stream)
        self.open_streams.tell(stream, NoticeEnvelope(health, stream))

    def reject(self, stream: Stream, reason: str) -> None:
        """Tell subscribers of a stream why the exchange refused it, and stop wanting it."""
        refusal = FeedStatus(state=self.status.state, stream=stream.name, reason=reason)
        self.open_streams.tell(stream, NoticeEnvelope(refusal, stream))
        self.interest.abandon(stream)

    @contextmanager
    def subscribe(
        self,
        streams: Sequence[Stream],
        *,
        reader: str = "",
        since: StreamPosition | None = None,
        capacity: int = BUFFER_EVENTS,
        overflow: Overflow = Overflow.DROP_OLDEST,
        is_nudged: bool = False,
    ) -> Iterator[MarketSubscription]:
        """Subscribe to streams, which are wanted meanwhile, until the block is left.

        ``reader`` is whom the subscription is counted by (``Interest``). ``since`` recovers what came after a position;
        it goes with a single stream, whose own a position is. With ``is_nudged`` it receives an empty batch whenever
        the heartbeat is due after its ``written_at``.
        """
        buffer, initial, replay = self._add(streams, reader, since, ConflatingQueue(capacity, overflow, self._counts))
        subscription: MarketSubscription = Subscription(buffer, initial, replay)
        try:
            with self._nudging(subscription) if is_nudged else nullcontext():
                yield subscription
        finally:
            self._remove(streams, reader, buffer)

    @contextmanager
    def _nudging(self, subscription: MarketSubscription) -> Iterator[None]:
        subscription.written_at = trio.current_time()
        self._nudged[subscription] = None
        try:
            yield
        finally:
            del self._nudged[subscription]

    async def _run_nudges(self, every_s: float) -> None:
        """Nudge whoever has written nothing for ``every_s`` seconds, until cancelled."""
        while True:
            now = trio.current_time()
            next_at = now + every_s
            for subscription in self._nudged:
                due_at = subscription.written_at + every_s
                if due_at <= now:
                    subscription.nudge()
                else:
                    next_at = min(next_at, due_at)
            await trio.sleep_until(next_at)

    @contextmanager
    def subscribe_writer(
        self,
        streams: Sequence[Stream],
        writer: Writer,
        encoder: Encoder[Batch],
        *,
        reader: str = "",
        since: StreamPosition | None = None,
        capacity: int = BUFFER_EVENTS,
    ) -> Iterator[DirectSubscription[Item, Batch]]:
        """Subscribe with a connection that ``flush()`` and ``run()`` write to while the subscriber's task waits."""
        key = (tuple(streams), encoder, capacity)
        group = self._broadcaster.open_group(key, lambda: self._queue(capacity), encoder)
        try:
            buffer, initial, replay = self._add(streams, reader, since, self._queue(capacity))
            try:
                replace_target = partial(self.open_streams.replace, streams)
                subscription = DirectSubscription(
                    buffer, initial, replay, group=group, writer=writer, encoder=encoder, replace_target=replace_target
                )
                try:
                    yield subscription
                finally:
                    group.leave(subscription)
            finally:
                self._remove(streams, reader, buffer)
        finally:
            self._broadcaster.close_group(key)

    @contextmanager
    def multiplex(
        self,
        streams: Sequence[Stream],
        encoder: Encoder[Batch],
        *,
        reader: str = "",
        writer: Writer | None = None,
        since: StreamPosition | None = None,
        past: Collection[Stream] = (),
        capacity: int = BUFFER_EVENTS,
        is_nudged: bool = False,
    ) -> Iterator[MultiplexedSubscription]:
        """Subscribe to streams that may change, until the block is left.

        ``since`` is a place among the events of all of them: this hub's ``epoch``, and the ``publication`` of an event.
        The streams of ``past`` wait for their past candles; ``is_nudged`` as for ``subscribe()``.
        """
        buffer = Buffer(self._queue(capacity))
        key = object()
        group = self._broadcaster.open_group(key, lambda: self._queue(capacity), encoder)
        subscription = MultiplexedSubscription(self, buffer, reader, group=group, writer=writer, encoder=encoder)
        try:
            subscription.begin(streams, since, past)
            self._buffers[buffer] = None
            if self.drained.is_set():
                buffer.close()
            with self._nudging(subscription) if is_nudged else nullcontext():
                yield subscription
        finally:
            subscription.end()
            self._buffers.pop(buffer, None)
            buffer.close()
            self._broadcaster.close_group(key)

    def _add(
        self, streams: Sequence[Stream], reader: str, since: StreamPosition | None, queue: ConflatingQueue
    ) -> tuple[Buffer[Item, Batch], list[Item], Replay | None]:
        """Add a subscription. No await in here: an event in between would be in neither initial state nor buffer."""
        buffer = Buffer(queue)
        self.interest.join(streams, reader)
        try:
            initial, replay = self._begin(streams, since, buffer)
        except BaseException:
            self._remove(streams, reader, buffer)
            raise
        self.open_streams.entered(streams)
        self._buffers[buffer] = None
        if self.drained.is_set():
            buffer.close()
        return buffer, initial, replay

    def _remove(self, streams: Sequence[Stream], reader: str, buffer: Buffer[Item, Batch]) -> None:
        self._buffers.pop(buffer, None)
        self.open_streams.left(streams, buffer, lambda stream: self.interest.subscribers(stream) > 1)
        buffer.close()
        self.interest.leave(streams, reader)

    async def run(self, heartbeat_s: float = math.inf) -> None:
        """Write to subscribers' connections: events, and a heartbeat after ``heartbeat_s`` without any."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._broadcaster.run, name="broadcaster")
            nursery.start_soon(self._broadcaster.run_heartbeats, heartbeat_s, name="heartbeats")
            nursery.start_soon(self._run_nudges, heartbeat_s, name="nudges")

    def drain(self) -> None:
        """End every subscription, present and future: subscribers receive what waits, then the end."""
        self.drained.set()
        for buffer in self._buffers:
            buffer.close()

    def joins(self, stream: Stream, candles: Sequence[Kline]) -> bool:
        """Whether nothing is missing between past candles, oldest first, and what came live of their stream."""
        latest, opened = self.latest.get(stream), self.open_streams.by_stream.get(stream)
        if not candles or latest is None or opened is None or not isinstance(latest.event, Kline):
            return True
        last = candles[-1]
        if last.timestamp >= latest.event.timestamp or opened.history.has(last.timestamp):
            return True
        return last.is_closed and next_number(stream, last.timestamp) >= latest.event.timestamp

    def statistics(self) -> HubStatistics:
        """Counts, for metrics."""
        return HubStatistics(
            published=self._published,
            unwanted=self._unwanted,
            streams=len(self.open_streams),
            subscribers=len(self._buffers),
            history_events=self._history_limit.held_events,
            history_bytes=self._history_limit.held_bytes,
            history_evicted=self._history_limit.evicted,
            waiting=sum(buffer.waiting for buffer in self._buffers),
            dropped=self._counts.dropped,
            conflated=self._counts.conflated,
        )

    def _streams(self, history_length: int, epoch: Callable[[], str]) -> OpenStreams:
        return OpenStreams(history_length, self._history_limit, epoch, lambda: self._publication)

    def _queue(self, capacity: int) -> ConflatingQueue:
        return ConflatingQueue(capacity, counts=self._counts)

    def _note_written(self, batch: Batch) -> None:
        self._until_measured -= 1
        if self._until_measured > 0:
            return
        first = batch.items[0] if batch.items else None
        if isinstance(first, Envelope):
            self._until_measured = MEASURED
            self.write_latency.observe(max(0, self._clock_ms() - first.received_ms) / 1000)

    def _begin(
        self, streams: Sequence[Stream], since: StreamPosition | None, buffer: Buffer[Item, Batch]
    ) -> tuple[list[Item], Replay | None]:
        """What a new subscriber is told at once, and what is left of its replay."""
        if since is None:
            # A past trade is no state: a new subscriber starts with the next one.
            latest = [self.latest.get(stream) for stream in streams if KINDS[stream.kind].is_state]
            self.open_streams.replace(streams, None, buffer)
            return [envelope for envelope in latest if envelope is not None], None
        (stream,) = streams
        gap, cursor = self.open_streams.by_stream[stream].history.recover(since)
        replay = Replay(stream, cursor, buffer, partial(self._go_live, stream, buffer))
        self.open_streams.begin(stream, buffer, replay)
        initial: list[Item] = [] if gap is None else [NoticeEnvelope(gap, stream)]
        if (first := replay.take()) is not None:
            initial += first.items
        return initial, None if replay.is_over else replay

    def _go_live(self, stream: Stream, buffer: Buffer[Item, Batch]) -> list[Item]:
        """Let a subscriber that has every kept event receive what follows; returns the state that is not kept."""
        self.open_streams.go_live(stream, buffer)
        latest = self.latest.get(stream)
        return [] if latest is None or latest.sequence is not None else [latest]

    def _close(self, stream: Stream) -> None:
        self.open_streams.close(stream)
        self.latest.forget(stream)
