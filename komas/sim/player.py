"""What drives the market: a synthetic tape or a capture, as one sequence of events that are due at their times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from komas.sim.book import Book, Diff
from komas.sim.candles import MINUTE_MS
from komas.sim.history import past
from komas.sim.market import Event, Market
from komas.sim.pair import Pair
from komas.sim.replay import DEPTH, NS_PER_MS, SNAPSHOT, TOP, TRADE, Capture, Line, TradeText, event_ms, levels, payload
from komas.sim.tape import Step, SymbolTape, Tape

RECENT_MS = MINUTE_MS  # so much of the past is real trades; what lies before is candles
MOST_LATE_MS = 300  # E - T reached 220 ms in the captures: until then a candle waits for its last trade
RECENT_DIFFS = 100  # ten seconds: no snapshot took longer
BLOCK_ODDS = 5_000  # one order in so many is a block trade


class Played(NamedTuple):
    """Events that are due together, so many ms of market time after the beginning."""

    at_ms: float
    events: list[Event]


class Player(Protocol):
    """Drives a market. ``play`` yields in the order of time; ``now_ms`` is the exchange's clock."""

    market: Market

    @property
    def now_ms(self) -> int:
        """The exchange's clock."""

    def play(self, elapsed_ms: Callable[[], float]) -> Iterator[Played]:
        """What happens; ``elapsed_ms`` tells how much market time has passed, for what has no time of its own."""


class SyntheticPlayer:
    """Plays the market that a seed decides, from ``start_ms`` on, for ever."""

    def __init__(self, symbols: Iterable[str], seed: int, start_ms: int) -> None:
        begun_ms = (start_ms - RECENT_MS) // MINUTE_MS * MINUTE_MS
        self.start_ms = start_ms
        self.tape = Tape(symbols, seed, begun_ms)
        self.market = Market([_pair(tape, seed, begun_ms) for tape in self.tape.symbols.values()], begun_ms)
        self._elapsed_ms: Callable[[], float] = float
        while self.tape.next_ms < start_ms:
            self._enter(self.tape.step())
        self.market.advance(start_ms)

    @property
    def now_ms(self) -> int:
        """The clock runs on between events."""
        return max(self.market.now_ms, self.start_ms + int(self._elapsed_ms()))

    def play(self, elapsed_ms: Callable[[], float]) -> Iterator[Played]:
        """One step of the tape, or one turn of the market's wheel, at a time."""
        self._elapsed_ms = elapsed_ms
        while True:
            tape_ms, slot_ms = self.tape.next_ms, self.market.next_slot_ms
            at_ms = min(tape_ms, slot_ms)
            events = self.market.advance(at_ms)
            if tape_ms < slot_ms:
                events += self._enter(self.tape.step())
            yield Played(at_ms - self.start_ms, events)

    def _enter(self, step: Step) -> list[Event]:
        pair = self.market.pairs[step.symbol]
        events: list[Event] = []
        for trade in step.trades:
            events += self.market.trade(pair, trade, step.time_ms + 1)
            if trade.id % BLOCK_ODDS == 0:
                events += self.market.block(pair, trade)
        return events + self.market.quoted(pair)


def _pair(tape: SymbolTape, seed: int, begun_ms: int) -> Pair:
    return Pair(tape.spec.symbol, tape.book, partial(past, tape.spec, seed, begun_ms, tape.next_id))


class ReplayPlayer:
    """Plays a capture; its streams go out as they came, all others are derived from its trades and its book."""

    def __init__(self, capture: Capture, *, loop: bool) -> None:
        self.capture = capture
        self.loop = loop
        pairs = [Pair(symbol, Book()) for symbol in capture.symbols]
        self.market = Market(pairs, capture.first_ms, capture.streams)
        self._recent: dict[str, deque[Diff]] = {}

    @property
    def now_ms(self) -> int:
        """The latest event time that was played."""
        return self.market.now_ms

    def play(self, elapsed_ms: Callable[[], float]) -> Iterator[Played]:  # noqa: ARG002  # every frame has a time
        """One captured frame at a time, with what follows from it."""
        first_ns = last_ns = self.capture.lines[0].ns
        for line in self.capture.passes(loop=self.loop):
            yield Played((line.ns - first_ns) / NS_PER_MS, self._enter(line))
            last_ns = line.ns
        events = self.market.advance(self.capture.last_ms) + self.market.finish_aggregates()
        yield Played((last_ns - first_ns) / NS_PER_MS, events)

    def _enter(self, line: Line) -> list[Event]:
        events = self.market.advance(event_ms(line) - MOST_LATE_MS)
        if not line.stream:
            self._understand(line)
            return events
        events.append(Event(line.stream, payload(line)))
        return events + self._understand(line)

    def _understand(self, line: Line) -> list[Event]:
        """Learn from a frame; one that cannot be read has been played all the same, and teaches nothing."""
        pair = self.market.pairs[line.symbol]
        try:
            match line.stream.partition("@")[2]:
                case "trade":
                    return self._traded(pair, TRADE.decode(payload(line)))
                case "depth" | "depth@100ms":
                    self._differed(pair, DEPTH.decode(payload(line)).diff())
                case "bookTicker":
                    pair.top = TOP.decode(payload(line)).top()
                case "":
                    self._snapped(pair, SNAPSHOT.decode(line.raw))
        except msgspec.DecodeError:
            pass
        return []

    def _traded(self, pair: Pair, found: TradeText) -> list[Event]:
        fact = found.fact()
        return self.market.advance(fact.time_ms) + self.market.trade(pair, fact, found.E)

    def _differed(self, pair: Pair, diff: Diff) -> None:
        self._recent.setdefault(pair.symbol, deque(maxlen=RECENT_DIFFS)).append(diff)
        pair.book.apply(diff)

    def _snapped(self, pair: Pair, found: SnapshotText) -> None:
        """A snapshot arrives after diffs that are newer than it is: those come on top of it again."""
        pair.book.replace(found.lastUpdateId, levels(found.bids), levels(found.asks))
        for diff in self._recent.get(pair.symbol, ()):
            pair.book.apply(diff)
