"""Publish and subscribe: market events come in once and go out to every subscriber of their stream.

The hub never waits: ``publish()`` is a plain function, and a slow subscriber costs only itself.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import msgspec
import trio

from komas.hub.broadcast import Broadcaster, Encoder, Writer
from komas.hub.buffer import BUFFER_EVENTS, Buffer
from komas.hub.history import HISTORY_LENGTH
from komas.hub.interest import LINGER_S, Interest
from komas.hub.latest import Latest
from komas.hub.open_streams import OpenStreams
from komas.hub.overflow import Batch, ConflatingQueue, Item, Overflow
from komas.hub.subscription import DirectSubscription, Subscription
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import BY_EVENT, KINDS
from komas.model.market import Event, FeedState, FeedStatus, Gap, Health, HealthNotice
from komas.model.streams import Stream

MarketSubscription: TypeAlias = Subscription[Item, Batch]


class HubStatistics(msgspec.Struct, frozen=True):
    """Counts: events since the start; streams, subscribers and events in all histories now."""

    published: int
    unwanted: int
    streams: int
    subscribers: int
    history_events: int
    dropped: int


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
        epoch: Callable[[], str] = new_epoch,
    ) -> None:
        self._open_streams = OpenStreams(history_length, epoch)
        self._buffers: dict[Buffer[Item, Batch], None] = {}
        self._broadcaster: Broadcaster[Item, Batch] = Broadcaster()
        self._published = 0
        self._unwanted = 0
        self._dropped = 0
        self.drained = trio.Event()
        self.latest = Latest()
        self.interest = Interest(opened=self._open_streams.open, closed=self._close, linger_s=linger_s)
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
        open_stream = self._open_streams.by_stream.get(stream)
        if open_stream is None:
            self._unwanted += len(events)
            return
        self._published += len(events)
        sequence = BY_EVENT[type(events[0])].sequence
        envelopes, kept = [], []
        for event in events:
            envelope = Envelope(stream, event, received_ms, sequence(event), open_stream.epoch, backfilled)
            envelopes.append(envelope)
            if envelope.sequence is not None:
                kept.append(envelope)
        if kept:
            open_stream.history.append(*kept)
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
        open_stream = self._open_streams.by_stream.get(stream)
        if open_stream is None:
            return
        envelope = NoticeEnvelope(gap, stream)
        open_stream.history.append(envelope)
        self._open_streams.put(stream, envelope)

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Begin a new epoch of a stream whose numbers started again: positions of the old one are void."""
        if self._open_streams.by_stream.get(stream) is not None:
            self._open_streams.renew(stream)
            self.publish_gap(stream, gap)

    def publish_status(self, status: FeedStatus) -> None:
        """Tell every subscriber the state of the feed; order books that are not kept any more are forgotten."""
        self.status = status
        if status.state is FeedState.DISCONNECTED:
            self.latest.forget_books()
        self._open_streams.put_to_all(NoticeEnvelope(status))

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Tell subscribers of a stream that its health changed; a doubtful order book is forgotten."""
        if KINDS[stream.kind].is_book and health.health in (Health.STALE, Health.RECOVERING):
            self.latest.forget(stream)
        self._open_streams.put(stream, NoticeEnvelope(health, stream))

    def reject(self, stream: Stream, reason: str) -> None:
        """Tell subscribers of a stream why the exchange refused it, and stop wanting it."""
        refusal = FeedStatus(state=self.status.state, stream=stream.name, reason=reason)
        self._open_streams.put(stream, NoticeEnvelope(refusal, stream))
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
    ) -> Iterator[MarketSubscription]:
        """Subscribe to streams, which are wanted meanwhile, until the block is left.

        ``reader`` is whom the subscription is counted by (``Interest``). ``since`` recovers what came after a position;
        it goes with a single stream, whose own a position is.
        """
        buffer, initial = self._add(streams, reader, since, ConflatingQueue(capacity, overflow))
        try:
            yield Subscription(buffer, initial)
        finally:
            self._remove(streams, reader, buffer)

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
        group = self._broadcaster.open_group(key, lambda: ConflatingQueue(capacity), encoder)
        try:
            buffer, initial = self._add(streams, reader, since, ConflatingQueue(capacity))
            try:
                replace_target = partial(self._open_streams.replace, streams)
                yield DirectSubscription(
                    buffer, initial, group=group, writer=writer, encoder=encoder, replace_target=replace_target
                )
            finally:
                self._remove(streams, reader, buffer)
        finally:
            self._broadcaster.close_group(key)

    def _add(
        self, streams: Sequence[Stream], reader: str, since: StreamPosition | None, queue: ConflatingQueue
    ) -> tuple[Buffer[Item, Batch], list[Item]]:
        """Add a subscription. No await in here: an event in between would be in neither initial state nor buffer."""
        buffer = Buffer(queue)
        self.interest.join(streams, reader)
        try:
            initial = [item for stream in streams for item in self._initial_state(stream, since)]
        except BaseException:
            self.interest.leave(streams, reader)
            raise
        self._open_streams.replace(streams, None, buffer)
        self._buffers[buffer] = None
        if self.drained.is_set():
            buffer.close()
        return buffer, initial

    def _remove(self, streams: Sequence[Stream], reader: str, buffer: Buffer[Item, Batch]) -> None:
        self._buffers.pop(buffer, None)
        self._open_streams.replace(streams, buffer, None)
        self._dropped += buffer.statistics().dropped
        buffer.close()
        self.interest.leave(streams, reader)

    async def run(self, heartbeat_s: float = math.inf) -> None:
        """Write to subscribers' connections: events, and a heartbeat after ``heartbeat_s`` without any."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._broadcaster.run, name="broadcaster")
            nursery.start_soon(self._broadcaster.run_heartbeats, heartbeat_s, name="heartbeats")

    def drain(self) -> None:
        """End every subscription, present and future: subscribers receive what waits, then the end."""
        self.drained.set()
        for buffer in self._buffers:
            buffer.close()

    def statistics(self) -> HubStatistics:
        """Counts, for metrics."""
        return HubStatistics(
            published=self._published,
            unwanted=self._unwanted,
            streams=len(self._open_streams),
            subscribers=len(self._buffers),
            history_events=self._open_streams.history_events,
            dropped=self._dropped
            + self._broadcaster.dropped
            + sum(buffer.statistics().dropped for buffer in self._buffers),
        )

    def _initial_state(self, stream: Stream, since: StreamPosition | None) -> list[Item]:
        latest = self.latest.get(stream)
        if since is None:
            # A past trade is no state: a new subscriber starts with the next one.
            return [latest] if latest is not None and KINDS[stream.kind].is_state else []
        open_stream = self._open_streams.by_stream.get(stream)
        assert open_stream is not None  # its subscriber has just wanted it
        recovered = open_stream.history.recover(since)
        initial: list[Item] = [] if recovered.gap is None else [NoticeEnvelope(recovered.gap, stream)]
        initial += recovered.items
        if latest is not None and latest.sequence is None:
            initial.append(latest)
        return initial

    def _close(self, stream: Stream) -> None:
        self._open_streams.close(stream)
        self.latest.forget(stream)
