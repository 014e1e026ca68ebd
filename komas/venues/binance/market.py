"""One of Binance's markets from its sockets to the sink: all its components, opened together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from komas.model.market import Event, FeedState, FeedStatus, Gap, Health, StreamHealth
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.feed import BinanceFeed, wall_ms
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.listings import Listings
from komas.venues.binance.order_books import OrderBooks
from komas.venues.binance.rows import RestHistory
from komas.venues.binance.symbol_tracker import SymbolTracker
from komas.venues.core.gap_fill import DEADLINE_S, GapFiller
from komas.venues.core.ports import MarketSink, Pins, Wanted
from komas.venues.core.rest import Rest
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp


class Wishes(Pins, Wanted, Protocol):
    """Which of a market's streams are wanted, to be read and to be changed."""


class BinanceMarket:
    """The components of one market; ``start_in()`` a nursery, then ``feed.connect()``."""

    def __init__(
        self,
        venue: MarketSpec,
        rest: Rest,
        *,
        sink: MarketSink,
        wishes: Wishes,
        url: str,
        keeps_idle: bool = True,
        backfill_s: float = DEADLINE_S,
        retry_policy: RetryPolicy | None = None,
        streams_per_connection: int = limits.STREAMS_PER_CONNECTION,
        redundancy: int = 1,
        open_stream: OpenStream = open_tcp,
        clock_ms: Callable[[], int] = wall_ms,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.venue = venue
        self.listings = Listings(rest, venue.exchange_info_path)
        self.gap_filler = GapFiller(sink, RestHistory(rest), clock_ms, deadline_s=backfill_s)
        self.order_books = OrderBooks(self.gap_filler, sink, rest, clock_ms)
        self.symbol_tracker = SymbolTracker(self.listings, wishes, self.gap_filler)
        self.feed = BinanceFeed(
            sink=self.order_books,
            flush=sink.flush,
            wanted=wishes,
            url=url,
            venue=venue,
            keeps_idle=keeps_idle,
            retry_policy=retry_policy,
            streams_per_connection=streams_per_connection,
            redundancy=redundancy,
            open_stream=open_stream,
            clock_ms=clock_ms,
            jitter=jitter,
        )

    def start_in(self, nursery: trio.Nursery) -> None:
        """Start what runs behind."""
        for name, task in (
            ("feed", self.feed.run),
            ("backfill", self.gap_filler.run),
            ("order books", self.order_books.run),
            ("listings", self.listings.run),
            ("universe", self.symbol_tracker.run),
        ):
            nursery.start_soon(task, name=f"{self.venue.name} {name}")


class Beside:
    """A ``MarketSink`` for a second market: events go where those of the first one go, its state to its own.

    What everybody is told of the exchange is the first market's state.
    """

    def __init__(self, sink: MarketSink, wanted: Wanted) -> None:
        self._sink = sink
        self._wanted = wanted
        self.status = FeedStatus(state=FeedState.DISCONNECTED)

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Pass one event on."""
        self._sink.publish(stream, event, received_ms, backfilled=backfilled)

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        """Pass events on that came together."""
        self._sink.publish_all(stream, events, received_ms)

    def flush(self) -> None:
        """Pass on that all was published that came together."""
        self._sink.flush()

    async def settled(self) -> None:
        """Wait until those who take at once have what was published."""
        await self._sink.settled()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Pass a gap on."""
        self._sink.publish_gap(stream, gap)

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Pass a new epoch of a stream on."""
        self._sink.reset_sequence(stream, gap)

    def publish_health(self, stream: Stream, health: StreamHealth) -> None:
        """Pass the health of a stream on."""
        self._sink.publish_health(stream, health)

    def reject(self, stream: Stream, reason: str) -> None:
        """Pass a refusal on."""
        self._sink.reject(stream, reason)

    def publish_status(self, status: FeedStatus) -> None:
        """Keep the state; publish it to this market's subscribers when it is cut, or given up."""
        self.status = status
        if status.state in (FeedState.RECONNECTING, FeedState.DISCONNECTED):
            reason = status.reason or f"the connection is {status.state}"
            for stream in self._wanted.streams():
                told = StreamHealth(stream=stream.name, health=Health.RECOVERING, reason=reason)
                self._sink.publish_health(stream, told)
