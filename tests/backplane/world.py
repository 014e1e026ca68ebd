"""A small world for clusters in one process: an exchange whose trades are known, nodes that can die, readers that move.

Everything between the markets and the readers is real; the store is the one in memory, the clock is a test's.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import trio

from komas.backplane.commands import Commands
from komas.backplane.memory import MemoryBackplane, MemoryStore
from komas.backplane.node import Node, NodeOptions
from komas.errors import Cause, VenueError
from komas.hub.shared_hub import SharedHub
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Kind, Venue
from komas.model.market import Depth, Event, FeedState, FeedStatus, Gap, Health, Trade
from komas.model.streams import Stream
from komas.venues.core.gap_fill import GapFiller
from komas.venues.core.health import Condition, StreamHealth
from komas.venues.core.ports import FeedSink, Interest, MarketSink
from komas.venues.core.standby_gate import StandbyGate
from komas.venues.core.statistics import FeedStatistics, OrderBookStatistics
from komas.web.encoding import read_event, server_sent_event
from komas.web.multiplex import MultiplexedShow
from tests.venues.holders import Holding, HoldingConnection

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
        """Be connected, if nobody has asked for that yet."""
        if self.status.state is FeedState.DISCONNECTED:
            self._set(FeedState.CONNECTED)

    def disconnect(self) -> None:
        """Be connected no more."""
        self._set(FeedState.DISCONNECTED)

    def lose(self) -> None:
        """Lose the connection."""
        self._set(FeedState.RECONNECTING)

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


class FakeRest:
    """The exchange's REST: it has every trade, while it answers."""

    has_room = True

    def __init__(self) -> None:
        self.answers = True
        self.asked: list[tuple[Stream, int, int | None]] = []

    async def page(self, stream: Stream, first: int, last: int | None) -> list[tuple[int, Event]]:
        """Up to a thousand trades."""
        await trio.lowlevel.checkpoint()
        self.asked.append((stream, first, last))
        if not self.answers:
            raise VenueError("no weight left", cause=Cause.REFUSED)
        end = min(trades_by(trio.current_time()) if last is None else last, first + 999)
        return [(number, trade(stream, number)) for number in range(first, end + 1)]


class FakeMarket:
    """A market whose connections bring what happens from when they hold a stream; REST is asked for the rest."""

    venue = Venue.BINANCE

    def __init__(
        self,
        sink: MarketSink,
        interest: Interest,
        held: Callable[[Stream], None],
        rest: FakeRest,
        *,
        stands_by: bool,
    ) -> None:
        self._sink = sink
        self._interest = interest
        self._held = held
        self._sent: dict[Stream, int] = {}
        self.feed = FakeFeed(sink)
        self.symbol_tracker = self
        self.order_books = _Books()
        health = StreamHealth(Holding(HoldingConnection()), interest, sink)
        self.gap_filler = GapFiller(sink, rest, health, lambda: 1_770_000_000_000)
        self.gate = StandbyGate(self.gap_filler, sink, keep_s=10.0) if stands_by else None
        self._events: FeedSink = self.gate or self.gap_filler
        self.health = _Health()
        self.told: Mapping[Stream, Health] = {}

    @property
    def wanted(self) -> tuple[Stream, ...]:
        """What it is to be connected for."""
        return self._interest.streams(self.venue)

    @property
    def received(self) -> tuple[Stream, ...]:
        """Those that come."""
        return tuple(self._sent)

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
        nursery.start_soon(self.gap_filler.run)

    def resume(self, latest: Iterable[tuple[Stream, Event]], told: Mapping[Stream, Health]) -> None:
        """Go on after these."""
        self.told = told
        for stream, event in latest:
            if isinstance(event, Trade):
                self.gap_filler.resume(stream, event)

    async def go_on(self, covered_until: float) -> None:
        """Stand by no more."""
        assert self.gate is not None
        await self.gate.open(covered_until)

    async def _run(self) -> None:
        while True:
            await trio.sleep(STEP_S)
            if self.feed.status.state is not FeedState.CONNECTED:
                self._sent.clear()
                continue
            for stream in self._interest.streams(self.venue):
                if stream.symbol == "NONEUSDT":
                    self._events.on_refused(stream, "no such symbol")
                elif stream.kind is Kind.TRADE:
                    self._receive(stream)
            for stream in [stream for stream in self._sent if stream not in self._interest]:
                del self._sent[stream]
                self._events.on_reset(stream)
            self._sink.flush()

    def _receive(self, stream: Stream) -> None:
        now = trades_by(trio.current_time())
        if stream not in self._sent:
            self._sent[stream] = now
            self._events.on_suspect(stream)
        self._held(stream)
        new = [trade(stream, number) for number in range(self._sent[stream] + 1, now + 1)]
        self._sent[stream] = now
        if new:
            self._events.on_events(stream, new, 1_770_000_000_000 + now)


class _Books:
    async def known(self, stream: Stream, levels: int) -> Depth:
        """A book."""
        await trio.lowlevel.checkpoint()
        return Depth(symbol=stream.symbol, update_id=levels, bids=(), asks=(), timestamp=1)

    def statistics(self) -> OrderBookStatistics:
        """Counts."""
        return OrderBookStatistics(1, 0, 2)


class _Health:
    def of(self, stream: Stream) -> Condition:
        """Well."""
        return Condition(Health.LIVE, stream.name)


class World:
    """A store and nodes, which stand by hot if the world ``is_hot`` when they start; ``nursery`` runs all of it."""

    def __init__(self, nursery: trio.Nursery, store: MemoryStore | None = None, *, is_hot: bool = False) -> None:
        self.store = store or MemoryStore()
        self.is_hot = is_hot
        self._nursery = nursery
        self.rest = FakeRest()
        self.nodes: dict[str, Living] = {}
        self._count = 0

    async def start(self, *, role: str = "auto", lease_s: float = 3.0, delay_s: float = 0.0) -> Living:
        """One more node, whose calls of the store take ``delay_s``."""
        self._count += 1
        options = NodeOptions(
            name=f"n{self._count}",
            shown=f"n{self._count}",
            role=role,
            version="1",
            lease_s=lease_s,
            window_s=0.002,
            leads=role != "edge",
            stands_by=self.is_hot,
        )
        living = Living(self.store.connect(delay_s=delay_s), options, self.rest)
        self.nodes[living.name] = living
        self._nursery.start_soon(living.run)
        await trio.lowlevel.checkpoint()
        return living

    async def start_in_turn(self, *roles: str) -> list[Living]:
        """Nodes with these roles, each started once those before are ready: the first one leads."""
        started = []
        for role in roles:
            started.append(await self.start(role=role))
            await self.ready()
        return started

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
        self.nodes.pop(living.name, None)


class Living:
    """A node with its hub."""

    def __init__(self, backplane: MemoryBackplane, options: NodeOptions, rest: FakeRest) -> None:
        self.name = options.name
        self._rest = rest
        self.backplane = backplane
        self.scope = trio.CancelScope()
        self.markets: list[FakeMarket] = []
        self.sinks: list[MarketSink] = []
        self.hub = SharedHub(linger_s=5.0)
        self.node = Node(
            backplane,
            self.hub,
            options,
            venues=[Venue.BINANCE, Venue.BINANCE_USDM],
            open_markets=self.open_markets,
            encode=server_sent_event,
            read=read_event,
            subscribers=lambda: self.hub.subscribers,
        )
        self.commands = Commands(backplane, self.node.mirror, self.name, [Venue.BINANCE])

    @asynccontextmanager
    async def open_markets(
        self, sink: MarketSink, interest: Interest, held: Callable[[Stream], None], *, stands_by: bool
    ) -> AsyncIterator[list[FakeMarket]]:
        """One market."""
        self.sinks = [sink]
        self.markets = [FakeMarket(sink, interest, held, self._rest, stands_by=stands_by)]
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
    """Reads trades of one stream, or of several at once, from whichever node lives, and comes back with its place."""

    def __init__(self, world: World, streams: Sequence[Stream], chance: random.Random) -> None:
        self._world = world
        self._streams = streams
        self._chance = chance
        self.numbers: dict[Stream, list[int]] = {stream: [] for stream in streams}
        self.publications: list[int] = []
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

    async def stay_at(self, living: Living) -> None:
        """Read at one node, as long as it lives."""
        await self._read(living)

    async def _read(self, living: Living) -> None:
        is_single = len(self._streams) == 1
        place = self._at, self._streams[0] if is_single else None
        if (not is_single or self._at is not None) and not await living.node.passed(*place):
            self.turned_away += 1
            await trio.sleep(0.1)
            return
        if is_single:
            opened = living.hub.subscribe(self._streams, since=self._at)
        else:
            opened = living.hub.multiplex(self._streams, MultiplexedShow(epoch=str), since=self._at)
        with opened as subscription:
            self._take(subscription.initial, living.hub.epoch)
            while living.name in self._world.nodes:
                with trio.move_on_after(0.5):
                    self._take((await subscription.receive()).items, living.hub.epoch)

    def _take(self, items: Sequence[object], life: str) -> None:
        for item in items:
            if isinstance(item, Envelope):
                assert item.sequence is not None
                assert isinstance(item.event, Trade)
                assert item.event.trade_id == item.sequence
                self.numbers[item.stream].append(item.sequence)
                self.publications.append(item.publication)
                is_single = len(self._streams) == 1
                self._at = StreamPosition(*((item.epoch, item.sequence) if is_single else (life, item.publication)))
            elif isinstance(item, NoticeEnvelope) and isinstance(item.notice, Gap) and not item.notice.filled:
                self.gaps.append(item.notice)

    def check(self) -> None:
        """Each trade of each stream once, in order, none left out."""
        for numbers in self.numbers.values():
            in_order(numbers, self.gaps)

    def check_end(self, head: int) -> None:
        """None is far behind."""
        for numbers in self.numbers.values():
            assert numbers[-1] > head - 20 * 5


def in_order(numbers: Sequence[int], gaps: Sequence[Gap]) -> None:
    """Each number once, none left out."""
    for before, after in itertools.pairwise(numbers):
        assert after == before + 1, f"{before} -> {after}; gaps: {gaps}"
