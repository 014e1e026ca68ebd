"""What the connections of a feed hand over, handed on to those whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic

import trio

from komas.event_log import event_logger
from komas.model.kinds import KINDS, Venue
from komas.model.market import Incoming
from komas.model.streams import Stream
from komas.venues.core.acknowledgements import Acknowledgements
from komas.venues.core.complaints import EACH, Complaints
from komas.venues.core.connection import Arrival, C, Connection, Refusal
from komas.venues.core.health import StreamHealth
from komas.venues.core.liveness import LivenessTracker
from komas.venues.core.ports import FeedSink, Unreadable, Wanted
from komas.venues.core.shards import Shards
from komas.venues.core.statistics import FrameCounts
from komas.venues.core.words import cut

log = event_logger(__name__)


class FeedInput(Generic[C]):
    """A ``ConnectionSink``: changes of order books go to ``order_books``, everything else to ``events``.

    ``flush`` is called when all that came together is there, ``held`` with each stream that is acknowledged.
    """

    def __init__(
        self,
        venue: Venue,
        wanted: Wanted,
        shards: Shards[C],
        *,
        health: StreamHealth,
        events: FeedSink,
        order_books: FeedSink,
        flush: Callable[[], None],
        held: Callable[[Stream], None] = lambda _stream: None,
    ) -> None:
        self._venue = venue
        self._wanted = wanted
        self._shards = shards
        self._health = health
        self._sinks = {kind: order_books if spec.is_book else events for kind, spec in KINDS.items()}
        self._flush = flush
        self._tell_held = held
        self._complaints = Complaints(log)
        self._refusals = Complaints(log, lines=EACH)
        self._held: set[Stream] = set()  # streams that a sink may know, though nothing has come
        self.news = trio.lowlevel.ParkingLot()
        self.counts = FrameCounts()
        self.acknowledgements = Acknowledgements(shards, wanted, self.news)

    def on_events(self, stream: Stream, events: Sequence[Incoming], arrival: Arrival) -> None:
        """Hand on events that arrived together, if their stream is assigned to a shard."""
        if stream not in self._shards.by_stream:
            return  # some still come after an unsubscription, and do not start the stream again
        self._health.arrived(stream, arrival)
        self._sinks[stream.kind].on_events(stream, events, arrival.at_ms)

    def on_read(self, frames: int, received_ms: int) -> None:
        """Count the data frames of one read, and let the events they brought go out."""
        self.counts.messages += frames
        self.counts.last_message_ms = received_ms
        self._flush()

    def on_held(self, connection: Connection, stream: Stream) -> None:
        """If no other connection holds the stream, events may have been missed."""
        self._held.add(stream)
        self._tell_held(stream)
        if not self._other_trackers(connection, stream):
            self._sinks[stream.kind].on_suspect(stream)

    def on_silent(self, connection: Connection, stream: Stream) -> None:
        """Events may be missing, unless another connection delivers them."""
        now = trio.current_time()
        others = self._other_trackers(connection, stream)
        if not any(tracker.heard_at is not None and not tracker.is_stale(now) for tracker in others):
            self._sinks[stream.kind].on_suspect(stream)

    def on_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Reject the streams that the exchange refused."""
        for refusal in refusals:
            name, words = cut(refusal.name), cut(refusal.words)
            self._refusals.warning("stream refused", stream=name, code=refusal.code, words=words)
            wanted = self._wanted.streams(self._venue)
            stream = next((stream for stream in wanted if stream.name == refusal.name), None)
            if stream is not None:
                self.acknowledgements.refused(stream, refusal)
                self.refuse(stream, refusal.words)

    def refuse(self, stream: Stream, reason: str) -> None:
        """A stream is not given: it is not wanted afterwards."""
        self._sinks[stream.kind].on_refused(stream, reason)

    def on_unknown(self) -> None:
        """Count one frame of a stream that komas does not know."""
        self.counts.unknown += 1

    def on_unreadable(self, error: Unreadable) -> None:
        """Count one frame that cannot be read; what it brought of its stream is missing."""
        self.counts.unreadable += 1
        self._complaints.warning("unreadable frame", reason=str(error), unreadable=self.counts.unreadable)
        stream = error.stream
        if stream is not None and stream in self._shards.by_stream:
            self._sinks[stream.kind].on_suspect(stream)

    def forget(self, streams: Iterable[Stream]) -> None:
        """Forget streams that are no longer wanted: when they come back, they start anew."""
        for stream in streams:
            has_delivered = self._health.forget(stream)
            if has_delivered or stream in self._held:
                self._held.discard(stream)
                self._sinks[stream.kind].on_reset(stream)

    def _other_trackers(self, connection: Connection, stream: Stream) -> list[LivenessTracker]:
        """The rhythms of a stream on every other connection that holds it."""
        holders = [each for each in self._shards.holders(stream) if each is not connection]
        return [tracker for each in holders if (tracker := each.tracker(stream)) is not None]
