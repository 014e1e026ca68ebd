"""Chaos: whether every trade arrives once and in order, whatever the exchange and the network do.

The feed, the backfill and the hub run against the exchange simulator on one deterministic clock: bytes pass through
memory streams, REST is answered from the same tape, and faults strike at random moments, also while the last one is
being mended. The tape knows every trade; the delivery is compared with it id by id and digit by digit. One seed decides
everything, so that a run that fails can be played again.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from statistics import quantiles
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import trio
import trio.testing

from komas.errors import Cause, VenueError
from komas.hub.hub import Hub
from komas.hub.overflow import Item, Overflow
from komas.model.codec import Envelope
from komas.model.kinds import Kind
from komas.model.market import BOOK_LEVELS_PUBLISHED, AggTrade, Depth, Gap, Kline, Trade
from komas.model.streams import Stream
from komas.observability.logs import TextFormatter
from komas.simulator import fault_script
from komas.simulator.binance import make_player
from komas.simulator.exchange import Exchange
from komas.simulator.http_connection import Request
from komas.simulator.market import Event
from komas.simulator.options import Limits, SimOptions
from komas.venues.binance import limits
from komas.venues.binance.market import BinanceMarket, MarketOptions
from komas.venues.binance.reference import MarketReference
from komas.venues.core.rest import Rest, open_rest

log = logging.getLogger("chaos")

SYMBOLS: Final = ("BNBUSDT", "币安人生USDT", "BIFIUSDT")  # two trades a second, one in two, and one in a hundred
KINDS: Final = (
    (Kind.TRADE, None),
    (Kind.AGG_TRADE, None),
    (Kind.KLINE, "1m"),
    (Kind.TICKER, None),
    (Kind.DEPTH, None),
)
BEGUN_S: Final = 1_770_000_000.0
QUIET_S: Final = 90.0  # at the beginning and at the end nothing goes wrong: everything must have been mended then
MEAN_PAUSE_S: Final = 4.0
LATE_S: Final = 1.0  # an event that comes later than that was held up by a fault
ONE_CONNECTION: Final = 0.8  # of the faults of connections strike one, the others all of them
ENDPOINTS: Final = {Kind.TRADE: "historicalTrades", Kind.AGG_TRADE: "aggTrades", Kind.KLINE: "klines"}
UNDER_WAY_MS: Final = 10_000  # the newest events may be on their way when the run ends
CANDLE_MS: Final = 60_000
UNIT: Final = Decimal(10) ** -8
DISMISSED: Final = 1_000_000


class Told(msgspec.Struct):
    """What one stream delivered, and what of it was wrong."""

    numbers: list[int] = []
    declared: list[tuple[int, int]] = []
    late: list[tuple[float, float]] = []  # (when it happened, when it came)
    doubled: int = 0
    out_of_order: int = 0
    changed: int = 0


class Report(msgspec.Struct, kw_only=True):
    """What a run showed; ``digest`` is the same for the same seed."""

    faults: int
    virtual_hours: float
    expected: int
    delivered: int
    lost: int
    doubled: int
    out_of_order: int
    changed: int
    backfilled: int
    declared: int
    needless: int
    books: int
    wrong_books: int
    recovery_s: list[float]
    dials: int
    most_dials: int
    refused_for_rate: int
    rotations: int
    reconnects: int
    digest: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong that must not."""
        wrong = self.lost, self.doubled, self.out_of_order, self.changed, self.needless, self.wrong_books
        return not any(wrong) and not self.refused_for_rate and self.most_dials <= 300

    def lines(self) -> Iterator[str]:
        """The report as a person reads it."""
        p50, p99 = _percentiles(self.recovery_s)
        yield f"{self.faults} faults in {self.virtual_hours:.1f} hours of market time"
        yield f"facts expected            {self.expected:>9}"
        yield f"  delivered               {self.delivered:>9}   of them backfilled {self.backfilled}"
        yield f"  lost                    {self.lost:>9}"
        yield f"  doubled                 {self.doubled:>9}"
        yield f"  out of order            {self.out_of_order:>9}"
        yield f"  digits changed          {self.changed:>9}"
        yield f"gaps declared             {self.declared:>9}   of them although REST answered {self.needless}"
        yield f"order books shown         {self.books:>9}   of them not the exchange's {self.wrong_books}"
        yield f"recovery, p50 / p99       {p50:>6.1f} s / {p99:.1f} s   of {len(self.recovery_s)} hold-ups"
        yield f"control messages refused  {self.refused_for_rate:>9}"
        yield f"dials                     {self.dials:>9}   at most {self.most_dials} in any five minutes"
        yield f"rotations / reconnects    {self.rotations:>9} / {self.reconnects}"
        yield f"digest                    {self.digest:>9x}"


class _Network(httpx.AsyncBaseTransport):
    """The way between komas and the double: memory streams, and REST calls without a socket."""

    def __init__(self, exchange: Exchange, nursery: trio.Nursery) -> None:
        self._exchange = exchange
        self._nursery = nursery
        self._is_up = True
        self._refused_until = 0.0
        self._answered_at: dict[
            tuple[str, str], float
        ] = {}  # by endpoint and symbol: when the last call did, if it did

    async def run(self) -> None:
        """Listen, but for outages."""
        while True:
            with trio.CancelScope() as self._exchange.listening:
                await trio.sleep_forever()
            self._is_up = False
            await trio.sleep(self._exchange.outage_s)
            self._is_up = True

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Open a byte stream to the double."""
        assert (host, port, tls) == ("exchange.test", 9443, False)
        if not self._is_up:
            raise VenueError("refused", cause=Cause.NETWORK)
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._exchange.serve, theirs, "komas")
        return ours

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one call from the double's tape."""
        parts = urlsplit(str(request.url))
        asked = Request("GET", parts.path, parts.query, {})
        key = asked.path.rpartition("/")[2], asked.parameters.get("symbol", "")
        self._answered_at[key] = math.inf  # until it has
        if not self._is_up:
            raise httpx.ConnectError("refused")
        answer = await self._exchange.http_api.answer(asked, "komas")
        if answer.status == httpx.codes.OK:
            self._answered_at[key] = trio.current_time()
        if (wait_s := dict(answer.headers).get("retry-after")) is not None:
            self._refused_until = trio.current_time() + float(wait_s)
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)

    def rest_has(self, stream: Stream) -> bool:
        """Whether REST answers for a stream: its last call did, before this moment, and nobody was told to wait."""
        answered_at = self._answered_at.get((ENDPOINTS[stream.kind], stream.symbol), 0.0)
        now = trio.current_time()
        if now == answered_at:
            print(f"at {now:.3f} s: REST answered in the moment of the deadline")
        return answered_at < now and now >= self._refused_until


class Truth:
    """What the tape says, looked up while it is there: trades by id, candles by open time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._facts: dict[Stream, dict[int, tuple[int, tuple[object, ...]]]] = {}
        self.books: dict[tuple[str, int], tuple[object, object]] = {}
        self._publish = exchange.publish
        exchange.publish = self._overhear  # type: ignore[method-assign]  # the one place where all of it passes

    def _overhear(self, event: Event) -> None:
        """Keep what a book is when the double sends what has changed in it."""
        symbol, _, kind = event.stream.partition("@")
        if kind == "depth@100ms":
            book = self._exchange.market.pairs[symbol.upper()].book
            self.books[symbol.upper(), book.update_id] = book.best(BOOK_LEVELS_PUBLISHED)
        self._publish(event)

    async def run(self) -> None:
        """Look now and then: the double forgets old events."""
        while True:
            self.look()
            await trio.sleep(300)

    def look(self) -> None:
        """Take note of what is new."""
        for symbol, pair in self._exchange.market.pairs.items():
            trades = self._facts.setdefault(Stream(Kind.TRADE, symbol), {})
            newest = max(trades, default=0)
            for fact in reversed(pair.trades):
                if fact.id <= newest:
                    break
                trades[fact.id] = fact.time_ms, (fact.price, fact.quantity, fact.buyer_is_maker)
            aggregates = self._facts.setdefault(Stream(Kind.AGG_TRADE, symbol), {})
            newest = max(aggregates, default=0)
            for row in reversed(pair.aggregates):
                if row.id <= newest:
                    break
                aggregates[row.id] = row.time_ms, (row.price, row.quantity, row.first, row.last)

    def trades(self, stream: Stream, first: int, until_ms: int) -> dict[int, tuple[object, ...]]:
        """The trades from an id on that happened by a moment; events before the first one are not ours to deliver."""
        found = self._facts[stream].items()
        return {number: value for number, (at_ms, value) in found if number >= first and at_ms <= until_ms}

    def candles(self, stream: Stream, first_ms: int, last_ms: int) -> dict[int, tuple[object, ...]]:
        """The closed candles between two open times, both included."""
        pair = self._exchange.market.pairs[stream.symbol]
        assert stream.interval is not None
        bars = pair.candles(stream.interval, first_ms, last_ms)
        return {bar.open_ms: (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.count) for bar in bars}


class Ledger:
    """What came out of the hub, judged as it comes."""

    def __init__(self, truth: Truth, network: _Network, now_ms: Callable[[], float]) -> None:
        self._truth = truth
        self._network = network
        self._now_ms = now_ms
        self.told: dict[Stream, Told] = {}
        self.values: dict[Stream, dict[int, tuple[object, ...]]] = {}
        self.needless = 0
        self.books = 0
        self.wrong_books = 0
        self.digest = 0

    def take(self, item: Item) -> None:
        """Note one event, or one notice."""
        if isinstance(item, Envelope):
            self._fact(item)
        elif isinstance(item.notice, Gap) and item.stream is not None:
            gap = item.notice
            assert gap.first is not None
            assert gap.last is not None
            self.told.setdefault(item.stream, Told()).declared.append((gap.first, gap.last))
            if self._network.rest_has(item.stream):
                self.needless += 1
                print(f"at {trio.current_time():.1f} s: declared although REST answered: {gap}")

    def _book(self, book: Depth) -> None:
        """Compare a book with the double's of the same update; those right after a snapshot may be between two."""
        truth = self._truth.books.get((book.symbol, book.update_id))
        if truth is None:
            return
        self.books += 1
        shown = [[(_units(price), _units(size)) for price, size in side] for side in (book.bids, book.asks)]
        if shown != list(truth):
            self.wrong_books += 1
            print(f"at {trio.current_time():.1f} s: wrong book: {book.symbol} {book.update_id}")

    def _fact(self, item: Envelope) -> None:
        if isinstance(item.event, Depth):
            self._book(item.event)
        number = item.sequence
        if number is None:
            return
        self.digest = hash((self.digest, number, round(trio.current_time(), 3)))
        told = self.told.setdefault(item.stream, Told())
        values = self.values.setdefault(item.stream, {})
        if number in values:
            told.doubled += 1
            if told.doubled == 1:
                print(f"at {trio.current_time():.1f} s: doubled: {item.stream} {number}")
        elif told.numbers and number < told.numbers[-1]:
            told.out_of_order += 1
        told.numbers.append(number)
        values[number] = _value(item.event)
        if isinstance(item.event, Trade):
            told.late.append((item.event.timestamp / 1000, self._now_ms() / 1000))


def _value(event: object) -> tuple[object, ...]:
    """What of an event is compared, in the tape's unit of 1e-8."""
    match event:
        case Trade():
            return _units(event.price), _units(event.quantity), event.is_buyer_maker
        case AggTrade():
            return _units(event.price), _units(event.quantity), event.first_trade_id, event.last_trade_id
        case Kline():
            prices = event.open, event.high, event.low, event.close, event.volume
            return *map(_units, prices), event.trades
        case _:
            raise TypeError


def _units(number: Decimal) -> int:
    units = number / UNIT
    assert units == int(units)
    return int(units)


class Mischief:
    """Faults by a seed."""

    def __init__(self, seed: int, mean_pause_s: float = MEAN_PAUSE_S) -> None:
        self.dice = random.Random(seed)
        self._mean_pause_s = mean_pause_s

    def pause_s(self) -> float:
        """How long until the next one: now and then they come together."""
        return self.dice.expovariate(1 / self._mean_pause_s) if self.dice.random() < 0.8 else self.dice.random()

    def fault(self, dials: Sequence[int]) -> fault_script.AnyFault | None:
        """The next fault, mostly of one of the connections that are up; ``None`` is a wish for a rotation."""
        fault = self._fault()
        if isinstance(fault, fault_script.OnConnection) and dials and self.dice.random() < ONE_CONNECTION:
            return msgspec.structs.replace(fault, dial=self.dice.choice(dials))
        return fault

    def _fault(self) -> fault_script.AnyFault | None:
        dice = self.dice
        streams = ("", "", f"{dice.choice(SYMBOLS).lower()}@{dice.choice(('trade', 'aggTrade', 'kline_1m'))}")
        name, spared = dice.choice(streams), dice.randrange(20)
        choices: list[Callable[[], fault_script.AnyFault | None]] = [
            lambda: fault_script.Abort(after_frames=dice.choice((0, 0, dice.randrange(50)))),
            lambda: fault_script.Close(code=1008, reason=dice.choice(("Pong timeout", "Too many requests", ""))),
            lambda: fault_script.Close(
                code=dice.choice((1000, 1001, 1006, None)) or 1001, after_frames=dice.randrange(9)
            ),
            fault_script.HalfOpen,
            lambda: fault_script.Stall(seconds=dice.uniform(2, 40)),
            lambda: fault_script.Stall(seconds=dice.uniform(2, 40), streams=(dice.choice(streams) or "bnbusdt@trade",)),
            lambda: fault_script.Shutdown(delay=dice.choice((0.0, dice.uniform(0, 5))), clean=dice.random() < 0.7),
            lambda: fault_script.Refuse(dials=dice.randrange(1, 4), status=dice.choice((None, 403, 503))),
            lambda: fault_script.Refuse(dials=1, status=dice.choice((429, 418)), retry_after=dice.randrange(1, 12)),
            lambda: fault_script.Hang(dials=1, seconds=dice.uniform(1, 20)),
            lambda: fault_script.Outage(seconds=dice.uniform(0.5, 20)),
            lambda: fault_script.Drop(frames=dice.randrange(1, 30), stream=name, after_frames=spared),
            lambda: fault_script.Drop(frames=1, stream=name, after_frames=spared),
            lambda: fault_script.Repeat(frames=dice.randrange(1, 10), stream=name, after_frames=spared),
            lambda: fault_script.Reorder(frames=dice.randrange(2, 6), stream=name, after_frames=spared),
            lambda: fault_script.Fragment(frames=dice.randrange(1, 5), stream=name, after_frames=spared),
            lambda: fault_script.Unknown(kind=dice.choice(("keys", "event", "stream"))),
            lambda: fault_script.Garbage(
                kind=dice.choice(("json", "truncated", "binary", "fragmented", "huge", "utf8", "reserved"))
            ),
            lambda: fault_script.DelayAcks(seconds=dice.uniform(0.5, 15), acks=dice.randrange(1, 4)),
            lambda: fault_script.LoseAcks(acks=dice.randrange(1, 3)),
            lambda: fault_script.RestFailure(status=dice.choice((500, 503, None)), requests=dice.randrange(1, 4)),
            lambda: fault_script.RestFailure(delay=dice.uniform(0.1, 12), requests=dice.randrange(1, 3)),
            lambda: fault_script.RestFailure(status=dice.choice((429, 418)), retry_after=dice.randrange(1, 8)),
            lambda: None,
        ]
        return dice.choice(choices)()


@contextmanager
def decided_by(seed: int) -> Iterator[None]:
    """Have trio's own dice follow the seed, as its plugin for Hypothesis does: else no run could be played again."""
    run = vars(trio._core._run)  # noqa: SLF001 - there is no public switch
    before = run["_ALLOW_DETERMINISTIC_SCHEDULING"]
    run["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    run["_r"].seed(seed)
    try:
        yield
    finally:
        run["_ALLOW_DETERMINISTIC_SCHEDULING"] = before


def run(faults: int, seed: int, *, redundancy: int = 1, mean_pause_s: float = MEAN_PAUSE_S) -> Report:
    """One run on a clock of its own; ``mean_pause_s`` is how far faults are apart, more or less."""
    with decided_by(seed):
        return trio.run(
            _run,
            faults,
            seed,
            redundancy,
            mean_pause_s,
            clock=trio.testing.MockClock(autojump_threshold=0),
            strict_exception_groups=True,
        )


async def _run(faults: int, seed: int, redundancy: int, mean_pause_s: float) -> Report:
    mischief = Mischief(seed, mean_pause_s)
    options = SimOptions(symbols=SYMBOLS, seed=seed, limits=Limits(database_lag_ms=200))
    streams = [Stream(kind, symbol, interval) for symbol in SYMBOLS for kind, interval in KINDS]
    async with open_world(options, streams, mischief.dice.random, redundancy=redundancy) as world:
        await trio.sleep(QUIET_S)
        for _ in range(faults):
            await trio.sleep(mischief.pause_s())
            world.strike(mischief.fault([connection.dial for connection in world.exchange.connections]))
        world.exchange.saboteur.forget()
        # A frame that a quiet pair lost is found at its next frame, or after a cut: so here is one.
        world.feed.disconnect()
        world.feed.connect()
        await trio.sleep(QUIET_S)
        return world.report(faults)


class World:
    """The double, the network, and komas between them and the ledger; made by ``open_world()``."""

    def __init__(self, options: SimOptions, nursery: trio.Nursery) -> None:
        self.exchange = Exchange(options, make_player(options, wall_s), wall=wall_s)
        self.truth = Truth(self.exchange)
        self.network = _Network(self.exchange, nursery)
        self.ledger = Ledger(self.truth, self.network, lambda: self.exchange.player.now_ms(trio.current_time() * 1000))
        self.hub = Hub(linger_s=0, epoch=lambda: "chaos")

    def open(self, rest: Rest, jitter: Callable[[], float], redundancy: int) -> None:
        """Furnish komas."""
        options = MarketOptions(
            url="ws://exchange.test:9443",
            streams_per_connection=6,
            redundancy=redundancy,
            open_stream=self.network.open_stream,
            clock_ms=wall_ms,
            jitter=jitter,
        )
        self.market = BinanceMarket(
            limits.SPOT,
            MarketReference(limits.SPOT, rest, options.clock_ms),
            sink=self.hub,
            interest=self.hub.interest,
            options=options,
        )
        self.feed, self.gap_filler = self.market.feed, self.market.gap_filler

    def strike(self, fault: fault_script.AnyFault | None) -> None:
        """Let one fault begin, or a rotation."""
        log.info("fault", extra={"at": trio.current_time(), "fault": fault})
        if fault is None:
            self.feed.rotate()
        else:
            self.exchange.saboteur.plan((fault,))

    async def listen(
        self, streams: Sequence[Stream], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Note everything that the hub delivers."""
        with self.hub.subscribe(streams, capacity=DISMISSED, overflow=Overflow.DISCONNECT) as subscription:
            task_status.started()
            while True:
                for item in (await subscription.receive()).items:
                    self.ledger.take(item)

    def report(self, faults: int) -> Report:
        """Compare what was delivered with what happened."""
        self.truth.look()
        return _report(faults, self)


@asynccontextmanager
async def open_world(
    options: SimOptions, streams: Sequence[Stream], jitter: Callable[[], float], *, redundancy: int = 1
) -> AsyncIterator[World]:
    """Everything running, and the streams listened to."""
    async with trio.open_nursery() as nursery:
        world = World(options, nursery)
        header, weight = limits.WEIGHT_HEADER, limits.WEIGHT_PER_MINUTE
        rest = open_rest(
            "http://exchange.test", weight_header=header, weight_per_minute=weight, transport=world.network
        )
        async with rest as host:
            world.open(host, jitter, redundancy)
            await nursery.start(world.exchange.run)
            nursery.start_soon(world.network.run)
            nursery.start_soon(world.truth.run)
            nursery.start_soon(world.hub.interest.sweep)
            world.market.start_in(nursery)
            await nursery.start(world.listen, streams)
            world.feed.connect()
            yield world
            nursery.cancel_scope.cancel()


def wall_s() -> float:
    """The wall clock of the run."""
    return BEGUN_S + trio.current_time()


def wall_ms() -> int:
    """The same in milliseconds."""
    return int(wall_s() * 1000)


def _report(faults: int, world: World) -> Report:
    exchange, truth, ledger = world.exchange, world.truth, world.ledger
    expected = delivered = lost = changed = 0
    for stream, values in ledger.values.items():
        told = ledger.told[stream]
        first = told.numbers[0]
        if stream.kind is Kind.KLINE:
            facts_of = truth.candles(stream, first, exchange.now_ms - UNDER_WAY_MS - CANDLE_MS)
        else:
            facts_of = truth.trades(stream, first, exchange.now_ms - UNDER_WAY_MS)
        declared = {number for low, high in told.declared for number in facts_of if low <= number <= high}
        missing = [number for number in facts_of if number not in values and number not in declared]
        lost += len(missing)
        for number in missing[:5]:
            print(f"lost: {stream} {number}")
        expected += len(facts_of)
        delivered += sum(number in values for number in facts_of)
        wrong = [number for number, value in values.items() if facts_of.get(number, value) != value]
        changed += len(wrong)
        for number in wrong[:3]:
            print(f"changed: {stream} {number}: {values[number]} is not {facts_of.get(number)}")
    all_told = ledger.told.values()
    counts, filled = world.feed.statistics(), world.gap_filler.statistics()
    dials = exchange.state.dials
    return Report(
        faults=faults,
        virtual_hours=trio.current_time() / 3600,
        expected=expected,
        delivered=delivered,
        lost=lost,
        doubled=sum(told.doubled for told in all_told),
        out_of_order=sum(told.out_of_order for told in all_told),
        changed=changed,
        backfilled=filled.filled,
        declared=filled.declared,
        needless=ledger.needless,
        books=ledger.books,
        wrong_books=ledger.wrong_books,
        recovery_s=sorted(length for told in all_told for length in _hold_ups(told.late)),
        dials=len(dials),
        most_dials=max(sum(dial - 300 < other <= dial for other in dials) for dial in dials),
        refused_for_rate=exchange.snapshot().refused_for_rate,
        rotations=counts.rotations,
        reconnects=counts.reconnects,
        digest=ledger.digest & 0xFFFFFFFF,
    )


def _hold_ups(late: list[tuple[float, float]]) -> Iterator[float]:
    """How long each hold-up of a stream took: from the first event that came late to the first in time again."""
    since: float | None = None
    for happened, came in late:
        if came - happened > LATE_S:
            since = happened if since is None else since
        elif since is not None:
            yield came - since
            since = None


def _percentiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def main() -> None:
    """Run it, and print what it showed; exit status 1 when anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redundancy", type=int, default=1, choices=(1, 2))
    parser.add_argument("--pause", type=float, default=MEAN_PAUSE_S, help="mean seconds between faults (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="print the log of the feed")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    if options.verbose:
        shown = TextFormatter()
        for handler in logging.getLogger().handlers:
            handler.setFormatter(shown)
    report = run(options.faults, options.seed, redundancy=options.redundancy, mean_pause_s=options.pause)
    print("\n".join(report.lines()))
    sys.exit(not report.is_clean)


if __name__ == "__main__":
    main()
