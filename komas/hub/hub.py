"""publish() and listen(); one fan-out for each stream.

The hub never waits: ``publish()`` is a plain function, and whoever lags pays alone.
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

from komas.hub.broadcast import Audience, Outlet
from komas.hub.buffer import MAILBOX_POSTS, Mailbox
from komas.hub.history import JOURNAL_LENGTH, Journal
from komas.hub.interest import LINGER_S, Interest
from komas.hub.latest import Latest
from komas.hub.overflow import Batch, Item, Overflow, Post
from komas.hub.subscription import Audiences, DirectListener, Listener, View
from komas.model.codec import Envelope, NoticeEnvelope, Position
from komas.model.market import SEQUENCES, Event, FeedState, FeedStatus, Gap, Health, StreamHealth
from komas.model.streams import Kind, Stream

MarketListener: TypeAlias = Listener[Item, Batch]
Hearer: TypeAlias = Mailbox[Item, Batch] | Audience[Item, Batch]


class HubStatistics(msgspec.Struct, frozen=True):
    """Counts of the hub: events since it was made; streams, listeners and journalled facts now."""

    published: int
    unwanted: int
    streams: int
    listeners: int
    journalled: int
    dropped: int


class _Fanout:
    """One life of one stream: who listens, and what was."""

    __slots__ = ("epoch", "hearers", "journal")

    def __init__(self, stream: Stream, epoch: str, journal_length: int, hearers: dict[Hearer, None]) -> None:
        self.epoch = epoch
        self.hearers = hearers
        self.journal = Journal(stream, epoch, journal_length)


def new_epoch() -> str:
    """A name for one life of a stream, which no other life shares."""
    return secrets.token_hex(4)


class Hub:
    """Where facts come in once and go out to everybody who listens."""

    def __init__(
        self,
        *,
        linger_s: float = LINGER_S,
        journal_length: int = JOURNAL_LENGTH,
        epoch: Callable[[], str] = new_epoch,
    ) -> None:
        self._fanouts: dict[Stream, _Fanout] = {}
        self._orphans: dict[Stream, dict[Hearer, None]] = {}  # of a stream that was given up under them
        self._hearers: dict[Hearer, None] = {}
        self._mailboxes: dict[Mailbox[Item, Batch], None] = {}
        self._audiences: Audiences[Item, Batch] = Audiences()
        self._journal_length = journal_length
        self._epoch = epoch
        self._published = 0
        self._unwanted = 0
        self._dropped = 0
        self.drained = trio.Event()
        self.latest = Latest()
        self.interest = Interest(opened=self._open, closed=self._close, linger_s=linger_s)
        self.status = FeedStatus(state=FeedState.DISCONNECTED)

    @property
    def listeners(self) -> int:
        """How many listeners there are now."""
        return len(self._mailboxes)

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Hand one fact to everybody who listens to its stream; never waits."""
        self.publish_all(stream, (event,), received_ms, backfilled=backfilled)

    def publish_all(
        self, stream: Stream, events: Sequence[Event], received_ms: int, *, backfilled: bool = False
    ) -> None:
        """Hand facts of one stream that came together, in order, to everybody who listens to it; never waits.

        Facts of a stream that nobody wants any more (some still come after an unsubscription) are counted and dropped.
        """
        fanout = self._fanouts.get(stream)
        if fanout is None:
            self._unwanted += len(events)
            return
        self._published += len(events)
        sequence = SEQUENCES[type(events[0])]
        envelopes, kept = [], []
        for event in events:
            envelope = Envelope(stream, event, received_ms, sequence(event), fanout.epoch, backfilled)
            envelopes.append(envelope)
            if envelope.sequence is not None:
                kept.append(envelope)
        if kept:
            fanout.journal.append(*kept)
        for hearer in fanout.hearers:
            hearer.put(*envelopes)
        self.latest.put(envelopes[-1])

    def flush(self) -> None:
        """Write what was published to those who listen directly, for a moment; ``deliver()`` writes the rest."""
        self._audiences.flush()

    async def settled(self) -> None:
        """Wait, a fifth of a second at most, until those who take at once have taken what was published.

        For whoever publishes more in one go than a mailbox has room for.
        """
        await self._audiences.settled()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Tell listeners of a stream, and those who will replay it, that facts are missing at this place."""
        fanout = self._fanouts.get(stream)
        if fanout is None:
            return
        envelope = NoticeEnvelope(gap, stream)
        fanout.journal.append(envelope)
        for hearer in fanout.hearers:
            hearer.put(envelope)

    def renew(self, stream: Stream, gap: Gap) -> None:
        """Begin a new life of a stream whose numbers have started again: positions of the old one are void."""
        fanout = self._fanouts.get(stream)
        if fanout is not None:
            self._fanouts[stream] = _Fanout(stream, self._epoch(), self._journal_length, fanout.hearers)
            self.publish_gap(stream, gap)

    def announce(self, status: FeedStatus) -> None:
        """Tell every listener where the feed stands; order books that nobody keeps any more are not known."""
        self.status = status
        if status.state is FeedState.DISCONNECTED:
            self.latest.forget_all(Kind.DEPTH)
        envelope = NoticeEnvelope(status)
        for hearer in self._hearers:
            hearer.put(envelope)

    def tell(self, stream: Stream, health: StreamHealth) -> None:
        """Tell listeners of a stream that it is doubtful, or well again; a doubtful order book is known no more."""
        if stream.kind is Kind.DEPTH and health.health is not Health.LIVE:
            self.latest.forget(stream)
        fanout = self._fanouts.get(stream)
        if fanout is None:
            return
        envelope = NoticeEnvelope(health, stream)
        for hearer in fanout.hearers:
            hearer.put(envelope)

    def refuse(self, stream: Stream, reason: str) -> None:
        """Give up a stream that the exchange refused: tell its listeners why, and stop wanting it."""
        fanout = self._fanouts.get(stream)
        if fanout is None:
            return
        envelope = NoticeEnvelope(FeedStatus(state=self.status.state, stream=stream.name, reason=reason), stream)
        for hearer in fanout.hearers:
            hearer.put(envelope)
        self.interest.abandon(stream)

    @contextmanager
    def listen(
        self,
        streams: Sequence[Stream],
        *,
        since: Position | None = None,
        capacity: int = MAILBOX_POSTS,
        overflow: Overflow = Overflow.DROP_OLDEST,
    ) -> Iterator[MarketListener]:
        """Listen to streams, and so want them, until the block is left.

        ``since`` asks for what came after a position; it is for a single stream, for positions are a stream's own.
        """
        mailbox, known = self._enter(streams, since, Post(capacity, overflow))
        try:
            yield Listener(mailbox, known)
        finally:
            self._leave(streams, mailbox)

    @contextmanager
    def listen_directly(
        self,
        streams: Sequence[Stream],
        outlet: Outlet,
        view: View[Batch],
        *,
        since: Position | None = None,
        capacity: int = MAILBOX_POSTS,
    ) -> Iterator[DirectListener[Item, Batch]]:
        """Listen as ``listen()`` does, with an outlet that is written to by ``flush()``, and by ``deliver()``."""
        key = (tuple(streams), view, capacity)
        audience = self._audiences.take_seat(key, lambda: Post(capacity), view)
        try:
            mailbox, known = self._enter(streams, since, Post(capacity))
            try:
                swap = partial(self._swap, streams)
                yield DirectListener(mailbox, known, audience=audience, outlet=outlet, view=view, swap=swap)
            finally:
                self._leave(streams, mailbox)
        finally:
            self._audiences.give_up_seat(key)

    def _enter(
        self, streams: Sequence[Stream], since: Position | None, post: Post
    ) -> tuple[Mailbox[Item, Batch], list[Item]]:
        """Let somebody in; no await in here: a fact in between would be in neither what is known nor the mailbox."""
        mailbox = Mailbox(post)
        self.interest.join(streams)
        try:
            known = [item for stream in streams for item in self._known(stream, since)]
        except BaseException:
            self.interest.leave(streams)
            raise
        self._enlist(streams, mailbox)
        self._mailboxes[mailbox] = None
        if self.drained.is_set():
            mailbox.close()
        return mailbox, known

    def _leave(self, streams: Sequence[Stream], mailbox: Mailbox[Item, Batch]) -> None:
        self._mailboxes.pop(mailbox, None)
        self._delist(streams, mailbox)
        self._dropped += mailbox.statistics().dropped
        mailbox.close()
        self.interest.leave(streams)

    async def deliver(self, heartbeat_s: float = math.inf) -> None:
        """Write to the outlets of those who listen directly: news, and a heartbeat after ``heartbeat_s`` without."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._audiences.deliver, name="deliverer")
            nursery.start_soon(self._audiences.beat, heartbeat_s, name="heartbeat")

    def drain(self) -> None:
        """End every mailbox, and every one to come: listeners take what waits, then see the end."""
        self.drained.set()
        for mailbox in self._mailboxes:
            mailbox.close()

    def statistics(self) -> HubStatistics:
        """Counts, for telemetry."""
        return HubStatistics(
            published=self._published,
            unwanted=self._unwanted,
            streams=len(self._fanouts),
            listeners=len(self._mailboxes),
            journalled=sum(len(fanout.journal) for fanout in self._fanouts.values()),
            dropped=self._dropped
            + self._audiences.dropped
            + sum(mailbox.statistics().dropped for mailbox in self._mailboxes),
        )

    def _known(self, stream: Stream, since: Position | None) -> list[Item]:
        latest = self.latest.get(stream)
        if since is None:
            # A trade that is over is no state: a newcomer starts with the next one.
            return [] if latest is None or stream.kind in (Kind.TRADE, Kind.AGG_TRADE) else [latest]
        replay = self._fanouts[stream].journal.replay(since)
        known: list[Item] = [] if replay.gap is None else [NoticeEnvelope(replay.gap, stream)]
        known += replay.items
        if latest is not None and latest.sequence is None:
            known.append(latest)
        return known

    def _swap(self, streams: Sequence[Stream], leaving: Hearer | None, coming: Hearer | None) -> None:
        """Let one hear of streams in place of another."""
        if coming is not None:
            self._enlist(streams, coming)
        if leaving is not None:
            self._delist(streams, leaving)

    def _enlist(self, streams: Sequence[Stream], hearer: Hearer) -> None:
        """Let somebody hear of streams from here on."""
        self._hearers[hearer] = None
        for stream in streams:
            fanout = self._fanouts.get(stream)
            hearers = self._orphans.setdefault(stream, {}) if fanout is None else fanout.hearers
            hearers[hearer] = None

    def _delist(self, streams: Sequence[Stream], hearer: Hearer) -> None:
        """Let somebody hear of streams no more."""
        self._hearers.pop(hearer, None)
        for stream in streams:
            if (fanout := self._fanouts.get(stream)) is not None:
                fanout.hearers.pop(hearer, None)
            if (orphans := self._orphans.get(stream)) is not None:
                orphans.pop(hearer, None)
                if not orphans:
                    del self._orphans[stream]

    def _open(self, stream: Stream) -> None:
        orphans = self._orphans.pop(stream, {})
        self._fanouts[stream] = _Fanout(stream, self._epoch(), self._journal_length, orphans)

    def _close(self, stream: Stream) -> None:
        fanout = self._fanouts.pop(stream)
        if fanout.hearers:
            self._orphans[stream] = fanout.hearers
        self.latest.forget(stream)
