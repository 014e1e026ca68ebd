"""One of Binance's markets from its sockets to the sink: all its components, opened together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from komas.model.clock import wall_ms
from komas.model.kinds import KINDS
from komas.model.market import Event, FeedState, FeedStatus, Health
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.connection import BinanceConnection, BinanceDialer, ConnectionOptions
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.order_book_sync import OrderBooks
from komas.venues.binance.reference import MarketReference, open_reference
from komas.venues.binance.rows import RestHistory
from komas.venues.binance.symbol_tracker import SymbolTracker
from komas.venues.core.feed import Feed, FeedOptions
from komas.venues.core.feed_input import FeedInput
from komas.venues.core.gap_fill import DEADLINE_S, GapFiller
from komas.venues.core.health import StreamHealth
from komas.venues.core.ports import Interest, MarketSink
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.shards import Shards
from komas.venues.core.standby_gate import StandbyGate
from komas.venues.core.websocket import OpenStream, check_url, open_tcp


class MarketOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a market is opened; ``url`` is its host, ``wss://host:port``.

    The state of a ``is_primary`` market is everybody's to hear, and it is connected without a wanted stream. Of any
    other one the readers of its streams hear, as the health of each, and it is connected while one is wanted.
    ``streams_per_connection`` bounds each shard, ``redundancy`` is how many connections hold the same streams,
    ``backfill_s`` how long live events wait for missing ones. ``held`` is called with each stream that the exchange has
    acknowledged. With ``keep_s`` it stands by until ``go_on()``: events of so many seconds are kept, none is published.
    """

    url: str
    is_primary: bool = True
    backfill_s: float = DEADLINE_S
    retry_policy: RetryPolicy = RetryPolicy()
    streams_per_connection: int = limits.STREAMS_PER_CONNECTION
    redundancy: int = 1
    open_stream: OpenStream = open_tcp
    clock_ms: Callable[[], int] = wall_ms
    jitter: Callable[[], float] = random.random
    held: Callable[[Stream], None] = lambda _stream: None
    keep_s: float = 0.0


class BinanceMarket:
    """The components of one market; ``start_in()`` a nursery, then ``feed.connect()``."""

    def __init__(
        self,
        spec: MarketSpec,
        reference: MarketReference,
        *,
        sink: MarketSink,
        interest: Interest,
        options: MarketOptions,
    ) -> None:
        check_url(options.url)
        self.venue = spec.venue
        rest = self.rest = reference.rest
        self._reference = reference
        self.name = spec.name
        self.code = spec.code
        self._sink = sink
        self._interest = interest
        self._is_primary = options.is_primary
        shards: Shards[BinanceConnection] = Shards(options.streams_per_connection)
        self.health = StreamHealth(shards, interest, sink, tells_outages=not options.is_primary)
        self.listings = reference.listings
        self.symbol_search = reference.symbol_search
        self.past = reference.past
        self.gap_filler = GapFiller(
            sink, RestHistory(rest), self.health, options.clock_ms, deadline_s=options.backfill_s
        )
        self._gate = StandbyGate(self.gap_filler, sink, keep_s=options.keep_s) if options.keep_s else None
        self.order_books = OrderBooks(sink, rest, self.health, interest, options.clock_ms)
        connections = ConnectionOptions(
            options.url.rstrip("/"), spec, options.open_stream, options.clock_ms, options.streams_per_connection
        )
        feed_input = FeedInput(
            spec.venue,
            interest,
            shards,
            health=self.health,
            events=self._gate or self.gap_filler,
            order_books=self.order_books,
            flush=sink.flush,
            held=options.held,
        )
        self.symbol_tracker = SymbolTracker(spec.venue, self.listings, interest, self.health, refuse=feed_input.refuse)
        self.feed: Feed[BinanceConnection] = Feed(
            FeedOptions(
                venue=spec.venue,
                url=connections.url,
                connection_life_s=limits.CONNECTION_LIFE_S,
                keeps_idle=options.is_primary,
                redundancy=options.redundancy,
                retry_policy=options.retry_policy,
                jitter=options.jitter,
            ),
            interest,
            shards,
            feed_input,
            new_dialer=partial(BinanceDialer, connections, feed_input),
            on_status=self._on_status,
        )

    def start_in(self, nursery: trio.Nursery) -> None:
        """Start what runs behind."""
        nursery.start_soon(self._reference.run, name=f"{self.name} listings")
        self.start_beside_reference(nursery)

    def start_beside_reference(self, nursery: trio.Nursery) -> None:
        """The same where somebody else runs its ``reference``."""
        for name, task in (
            ("feed", self.feed.run),
            ("stream health", self.health.run),
            ("gap filler", self.gap_filler.run),
            ("order books", self.order_books.run),
            ("symbol tracker", self.symbol_tracker.run),
        ):
            nursery.start_soon(task, name=f"{self.name} {name}")

    def resume(self, latest: Iterable[tuple[Stream, Event]], told: Mapping[Stream, Health]) -> None:
        """Go on after the newest events that another process published, instead of with whatever comes next.

        ``told`` are the doubtful streams that readers were told of.
        """
        self.health.resume(told)
        for stream, event in latest:
            if not KINDS[stream.kind].is_book:
                self.gap_filler.resume(stream, event)

    async def go_on(self, covered_until: float) -> None:
        """Stand by no more: publish what was kept, behind what ``resume()`` was told, and all that comes.

        ``covered_until`` is when, on trio's clock, the other process was heard last.
        """
        if self._gate is not None:
            await self._gate.open(covered_until)

    def _on_status(self, status: FeedStatus) -> None:
        if status.state is FeedState.DISCONNECTED:
            self.order_books.close_all()
        self.health.on_status(status, self._interest.streams(self.venue))
        if self._is_primary:
            self._sink.publish_status(status)


@asynccontextmanager
async def open_market(
    spec: MarketSpec, rest_url: str, *, sink: MarketSink, interest: Interest, options: MarketOptions
) -> AsyncIterator[BinanceMarket]:
    """A market over its own REST client, which is closed when the block is left."""
    async with open_reference(spec, rest_url, options.clock_ms) as reference:
        yield BinanceMarket(spec, reference, sink=sink, interest=interest, options=options)
