"""A small world for clusters in one process: an exchange whose trades are known, nodes that can die, readers that move.

Everything between the markets and the readers is real; the store is the one in memory, the clock is a test's.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import trio

from komas.backplane.commands import Commands
from komas.backplane.memory import MemoryBackplane, MemoryStore
from komas.backplane.node import Node, NodeOptions
from komas.errors import VenueError
from komas.hub.shared_hub import SharedHub
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Kind, Venue
from komas.model.market import Depth, Event, FeedState, FeedStatus, Gap, Health, Trade
from komas.model.streams import Stream
from komas.venues.core.health import Condition
from komas.venues.core.ports import Interest, MarketSink
from komas.venues.core.statistics import FeedStatistics, GapFillStatistics, OrderBookStatistics
from komas.web.encoding import read_event, server_sent_event

BTC = Stream(Kind.TRADE, "BTCUSDT")
ETH = Stream(Kind.TRADE, "ETHUSDT")
TICKER = Stream(Kind.TICKER, "BTCUSDT")
RATE = 20.0  # trades a second of each symbol
STEP_S = 0.05


def trades_by(now: float) -> int:
    """How many trades of each symbol have happened: trade ``n`` at ``n / RATE``."""
    return math.floor(now * RATE)


def trade(stream: Stream, number: int) -> Trade:
    """One trade; its price tells its number."""
    return Trade(
        symbol=stream.symbol,
        trade_id=number,
        price=Decimal(f"{number}.50"),
        quantity=Decimal("1.00"),
        timestamp=number,
        is_buyer_maker=False,
    )


class FakeFeed:
    """Connections that are up as soon as they are asked for."""

    url = "ws://exchange.test"
    failure: VenueError | None = None
    final_failure: VenueError | None = None

    def __init__(self, sink: MarketSink) -> None:
        self._sink = sink
        self.status = FeedStatus(state=FeedState.DISCONNECTED)
        self.rotations = 0
        self.news = trio.lowlevel.ParkingLot()

    def connect(self) -> None:
        """Be connected."""
        self._set(FeedState.CONNECTED)

    def disconnect(self) -> None:
        """Be connected no more."""
        self._set(FeedState.DISCONNECTED)

    def _set(self, state: FeedState) -> None:
        if self.status.state is not state:
            self.status = FeedStatus(state=state)
            self._sink.publish_status(self.status)
            self.news.unpark_all()

    def rotate(self) -> int:
        """Count."""
        self.rotations += 1
        return 1

    async def connected(self) -> None:
        """It is."""
        await trio.lowlevel.checkpoint()

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Everything is."""
        await trio.lowlevel.checkpoint()

    def statistics(self) -> FeedStatistics:
        """Counts."""
        return FeedStatistics(7, 0, 0, 0, {}, self.rotations, None, ())


class FakeMarket:
    """A market whose REST is perfect: it goes on behind the newest trade that it was resumed with."""

    venue = Venue.BINANCE

    def __init__(self, sink: MarketSink, interest: Interest, held: Callable[[Stream], None]) -> None:
        self._sink = sink
        self._interest = interest
        self._held = held
        self._sent: dict[Stream, int] = {}
        self.feed = FakeFeed(sink)
        self.symbol_tracker = self
        self.order_books = _Books()
        self.gap_filler = _Gaps()
        self.health = _Health()

    @property
    def wanted(self) -> tuple[Stream, ...]:
        """What it is to be connected for."""
        return self._interest.streams(self.venue)

    def streams(self, kind: Kind) -> tuple[Stream, ...]:
        """Both symbols."""
        return Stream(kind, "BTCUSDT"), Stream(kind, "ETHUSDT")

    def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Both symbols."""
        streams = (Stream(kind, "BTCUSDT"), Stream(kind, "ETHUSDT"))
        self._interest.pin(streams)
        return streams

    def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Both symbols."""
        streams = (Stream(kind, "BTCUSDT"), Stream(kind, "ETHUSDT"))
        self._interest.unpin(streams)
        return streams

    def start_beside_reference(self, nursery: trio.Nursery) -> None:
        """Start."""
        nursery.start_soon(self._run)

    def resume(self, latest: Iterable[tuple[Stream, Event]]) -> None:
        """Go on after these."""
        for stream, event in latest:
            if isinstance(event, Trade):
                self._sent[stream] = event.trade_id

    async def _run(self) -> None:
        while True:
            await trio.sleep(STEP_S)
            if self.feed.status.state is not FeedState.CONNECTED:
                continue
            for stream in self._interest.streams(self.venue):
                if stream.symbol == "NONEUSDT":
                    self._sink.reject(stream, "no such symbol")
                elif stream.kind is Kind.TRADE:
                    self._publish(stream)
            for stream in [stream for stream in self._sent if stream not in self._interest]:
                del self._sent[stream]
            self._sink.flush()

    def _publish(self, stream: Stream) -> None:
        now = trades_by(trio.current_time())
        if stream not in self._sent:
            self._sent[stream] = now
            self._held(stream)
        self._held(stream)
        new = [trade(stream, number) for number in range(self._sent[stream] + 1, now + 1)]
        self._sent[stream] = now
        if new:
            self._sink.publish_all(stream, new, 1_770_000_000_000 + now)


class _Books:
    async def known(self, stream: Stream, levels: int) -> Depth:
        """A book."""
        await trio.lowlevel.checkpoint()
        return Depth(symbol=stream.symbol, update_id=levels, bids=(), asks=(), timestamp=1)

    def statistics(self) -> OrderBookStatistics:
        """Counts."""
        return OrderBookStatistics(1, 0, 2)


class _Gaps:
    def statistics(self) -> GapFillStatistics:
        """Counts."""
        return GapFillStatistics(0, 0, {})


class _Health:
    def of(self, stream: Stream) -> Condition:
        """Well."""
        return Condition(Health.LIVE, stream.name)


class World:
    """A store and nodes; ``nursery`` runs all of it."""

    def __init__(self, nursery: trio.Nursery, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self._nursery = nursery
        self.nodes: dict[str, Living] = {}
        self._count = 0

    async def start(self, *, role: str = "auto", lease_s: float = 3.0) -> Living:
        """One more node."""
        self._count += 1
        living = Living(self.store.connect(), f"n{self._count}", role, lease_s)
        self.nodes[living.name] = living
        self._nursery.start_soon(living.run)
        await trio.lowlevel.checkpoint()
        return living

    async def ready(self) -> None:
        """Wait until every node is, and one leads, at most a minute."""
        with trio.fail_after(60):
            for living in list(self.nodes.values()):
                while living.node.why_not_ready() is not None:  # noqa: ASYNC110 - time alone makes it ready, too
                    await trio.sleep(0.1)
            while not self.leaders:  # noqa: ASYNC110 - what it wrote may be read before it knows that it leads
                await trio.sleep(0.01)

    @property
    def leaders(self) -> list[Living]:
        """Those who believe that they lead."""
        return [living for living in self.nodes.values() if living.node.is_leader]

    def mend(self) -> None:
        """The connections of those who live work again."""
        for living in self.nodes.values():
            living.backplane.mend()

    def kill(self, living: Living) -> None:
        """As with kill -9: nothing is said."""
        living.scope.cancel("killed")
        living.backplane.cut()
        del self.nodes[living.name]


class Living:
    """A node with its hub."""

    def __init__(self, backplane: MemoryBackplane, name: str, role: str, lease_s: float) -> None:
        self.name = name
        self.backplane = backplane
        self.scope = trio.CancelScope()
        self.markets: list[FakeMarket] = []
        self.hub = SharedHub(linger_s=5.0)
        options = NodeOptions(
            name=name, shown=name, role=role, version="1", lease_s=lease_s, window_s=0.002, leads=role != "edge"
        )
        self.node = Node(
            backplane,
            self.hub,
            options,
            venues=[Venue.BINANCE, Venue.BINANCE_USDM],
            open_markets=self._open_markets,
            encode=server_sent_event,
            read=read_event,
            subscribers=lambda: self.hub.subscribers,
            clock_ms=lambda: 1_770_000_000_000,
        )
        self.commands = Commands(backplane, self.node.mirror, name, [Venue.BINANCE])

    @asynccontextmanager
    async def _open_markets(
        self, sink: MarketSink, interest: Interest, held: Callable[[Stream], None]
    ) -> AsyncIterator[list[FakeMarket]]:
        self.markets = [FakeMarket(sink, interest, held)]
        yield self.markets

    async def run(self) -> None:
        """Live until killed."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.node.run)
                nursery.start_soon(self.commands.run)
                nursery.start_soon(self.hub.interest.sweep)
                nursery.start_soon(self.hub.run)
                self.commands.connect()


class Reader:
    """Reads trades of one stream from whichever node lives, and comes back with its position."""

    def __init__(self, world: World, stream: Stream, chance: random.Random) -> None:
        self._world = world
        self._stream = stream
        self._chance = chance
        self.numbers: list[int] = []
        self.gaps: list[Gap] = []
        self.moves = 0
        self.turned_away = 0
        self._at: StreamPosition | None = None

    async def run(self) -> None:
        """Read, and move every now and then."""
        while True:
            nodes = [living for living in self._world.nodes.values() if living.node.mirror.is_complete]
            if not nodes:
                await trio.sleep(0.1)
                continue
            living = self._chance.choice(nodes)
            self.moves += 1
            with trio.move_on_after(self._chance.uniform(0.2, 4.0)):
                await self._read(living)

    async def _read(self, living: Living) -> None:
        if self._at is not None and not await living.node.passed(self._at, self._stream):
            self.turned_away += 1
            await trio.sleep(0.1)
            return
        with living.hub.subscribe([self._stream], since=self._at) as subscription:
            self._take(subscription.initial)
            while living.name in self._world.nodes:
                with trio.move_on_after(0.5):
                    self._take((await subscription.receive()).items)

    def _take(self, items: Sequence[object]) -> None:
        for item in items:
            if isinstance(item, Envelope):
                assert item.sequence is not None
                assert isinstance(item.event, Trade)
                assert item.event.trade_id == item.sequence
                self.numbers.append(item.sequence)
                self._at = StreamPosition(item.epoch, item.sequence)
            elif isinstance(item, NoticeEnvelope) and isinstance(item.notice, Gap) and not item.notice.filled:
                self.gaps.append(item.notice)

    def check(self) -> None:
        """Each trade once, in order, none left out."""
        for before, after in zip(self.numbers, self.numbers[1:], strict=False):
            assert after == before + 1, f"{before} -> {after}; gaps: {self.gaps}"
