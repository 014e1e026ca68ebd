"""Standing by: a node that does not lead is connected to the exchange with the streams that are open.

It keeps some seconds of what comes, and publishes nothing. When it begins to lead it goes on with its connections:
REST is asked for what neither the log nor this node has.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from komas.backplane.interest import ClusterInterest
from komas.backplane.leader import OpenMarkets
from komas.backplane.mirror import Mirror
from komas.backplane.report import LedMarket
from komas.backplane.writer import Writer
from komas.model.market import Event, FeedState, FeedStatus, Gap, HealthNotice
from komas.model.streams import Stream
from komas.venues.core.ports import MarketSink

LOOK_S: Final = 0.1  # beside what the exchange takes to acknowledge a stream, that is little
SETTLED_S: Final = 3.0  # from a connection until the exchange has acknowledged even many streams
_NOT_YET: Final = (FeedState.CONNECTING, FeedState.RECONNECTING)


class _Sink:
    """A ``MarketSink`` that drops everything until there is one to hand it on to; ``refused`` is called meanwhile."""

    def __init__(self, refused: Callable[[Stream], None]) -> None:
        self._refused = refused
        self._sink: MarketSink | None = None
        self._status: FeedStatus | None = None

    def lead_to(self, writer: Writer) -> None:
        """Hand everything on from now on, and the feed's state, where others do not know it."""
        self._sink = writer
        if self._status is not None and self._status != writer.known.status:
            writer.publish_status(self._status)

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Publish one event."""
        if self._sink is not None:
            self._sink.publish(stream, event, received_ms, backfilled=backfilled)

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        """Publish events that came together."""
        if self._sink is not None:
            self._sink.publish_all(stream, events, received_ms)

    def flush(self) -> None:
        """Let what was published go."""
        if self._sink is not None:
            self._sink.flush()

    async def settled(self) -> None:
        """Wait, briefly, until not too much waits."""
        if self._sink is not None:
            await self._sink.settled()
        else:
            await trio.lowlevel.checkpoint()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Publish that events are missing."""
        if self._sink is not None:
            self._sink.publish_gap(stream, gap)

    def publish_status(self, status: FeedStatus) -> None:
        """Publish the feed's state, or remember it."""
        self._status = status
        if self._sink is not None:
            self._sink.publish_status(status)

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Publish that numbers started again."""
        if self._sink is not None:
            self._sink.reset_sequence(stream, gap)

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Publish a stream's health."""
        if self._sink is not None:
            self._sink.publish_health(stream, health)

    def reject(self, stream: Stream, reason: str) -> None:
        """Publish a refusal; here alone, it is asked for again when this node leads."""
        if self._sink is not None:
            self._sink.reject(stream, reason)
        else:
            self._refused(stream)


class Standby:
    """Markets that are ready to go on; ``open_standby()`` opens them."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._acknowledged: set[Stream] = set()
        self._lead_held: Callable[[Stream], None] | None = None
        self.interest = ClusterInterest()
        self.sink = _Sink(self.interest.abandon)
        self.markets: Sequence[LedMarket] = ()
        self.covered_until = -math.inf
        self._since = trio.current_time()

    @property
    def is_prepared(self) -> bool:
        """Whether it has what came since the leader was heard last: that one was there when this one was connected."""
        return self.covered_until >= self._since + SETTLED_S

    def on_held(self, stream: Stream) -> None:
        """The exchange has acknowledged a stream."""
        if self._lead_held is not None:
            self._lead_held(stream)
        else:
            self._acknowledged.add(stream)

    async def run(self) -> None:
        """Follow the leader until this node is one: its streams, and whether a connection is asked for at all."""
        seen, asked = -1, False
        while self._lead_held is None:
            mirror = self._mirror
            if mirror.cursor is not None and mirror.cursor.sequence and not mirror.is_leaderless:
                self.covered_until = mirror.heard_at
            if mirror.openings != seen:
                seen = mirror.openings
                self.interest.follow(mirror.known.epochs)
                self._acknowledged &= mirror.known.epochs.keys()
            if mirror.known.asked is not asked:
                asked = mirror.known.asked
                for market in self.markets:
                    (market.feed.connect if asked else market.feed.disconnect)()
            if any(market.feed.status.state in _NOT_YET for market in self.markets):
                self._since = trio.current_time()
            await trio.sleep(LOOK_S)

    def lead(self, writer: Writer, held: Callable[[Stream], None]) -> None:
        """Publish to a writer from now on, and tell it what was not told yet."""
        self._lead_held = held
        self.sink.lead_to(writer)
        for stream in self._acknowledged & writer.known.epochs.keys():
            held(stream)


@asynccontextmanager
async def open_standby(open_markets: OpenMarkets, mirror: Mirror) -> AsyncIterator[Standby]:
    """Stand by, and lead, until the block is left."""
    standby = Standby(mirror)
    opening = open_markets(standby.sink, standby.interest, standby.on_held, stands_by=True)
    async with opening as standby.markets, trio.open_nursery() as work:
        for market in standby.markets:
            market.start_beside_reference(work)
        work.start_soon(standby.run, name="standby")
        yield standby
        work.cancel_scope.cancel("it stands by no more")
