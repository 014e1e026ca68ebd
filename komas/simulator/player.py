"""What drives the market: a synthetic tape or a capture, one step after another, each due at its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

from komas.simulator.book import Book, Diff, Top
from komas.simulator.candles import MINUTE_MS
from komas.simulator.fault_script import UNREADABLE
from komas.simulator.history import past
from komas.simulator.market import Event, Market
from komas.simulator.replay import (
    DEPTH,
    NS_PER_MS,
    SNAPSHOT,
    TOP,
    TRADE,
    Capture,
    Line,
    Report,
    SnapshotText,
    TradeText,
    event_ms,
    levels,
    payload,
    silent,
)
from komas.simulator.symbol_state import Pair
from komas.simulator.tape import SymbolTape, Tape

RECENT_MS = 30_000  # so much of the past is real trades, a tenth of a second's work; what lies before is candles
MOST_LATE_MS = 300  # E - T reached 220 ms in the captures: until then a candle waits for its last trade
HALTED_MS = 1_000  # how often a halted symbol looks whether it trades again
RECENT_DIFFS = 100  # ten seconds: no snapshot took longer
BLOCK_ODDS = 5_000  # one trade in so many has a block trade beside it


class Player(Protocol):
    """Drives a market: wait for ``due_ms``, then ``step``. ``shift_ms`` sets the exchange's clock against ours."""

    market: Market
    shift_ms: int

    def due_ms(self) -> float | None:
        """When the next step is due, in ms of market time since the beginning; ``None`` at the end."""

    def step(self) -> list[Event]:
        """Let it happen."""

    def now_ms(self, elapsed_ms: float) -> int:
        """The exchange's clock, so much market time after the beginning."""


class SyntheticPlayer:
    """Plays the market that a seed decides, from ``start_ms`` on, for ever."""

    def __init__(self, symbols: Iterable[str], seed: int, start_ms: int) -> None:
        begun_ms = start_ms - RECENT_MS
        self.start_ms = start_ms
        self.shift_ms = 0
        self.tape = Tape(symbols, seed, begun_ms)
        self.market = Market([_pair(tape, seed, begun_ms) for tape in self.tape.symbols.values()], begun_ms)
        while self.tape.next_ms < start_ms:
            self._happen()
        self.market.advance(start_ms)

    def now_ms(self, elapsed_ms: float) -> int:
        """The clock runs on between events."""
        return max(self.market.now_ms, self.start_ms + self.shift_ms + int(elapsed_ms))

    def due_ms(self) -> float:
        """A market that is ahead of its clock waits, one that is behind hurries."""
        return min(self.tape.next_ms, self.market.next_slot_ms) - self.start_ms - self.shift_ms

    def step(self) -> list[Event]:
        """One step of the tape, or one turn of the market's wheel."""
        tape_ms, slot_ms = self.tape.next_ms, self.market.next_slot_ms
        events = self.market.advance(min(tape_ms, slot_ms))
        return events + self._happen() if tape_ms < slot_ms else events

    def _happen(self) -> list[Event]:
        tape = self.tape.next
        pair = self.market.pairs[tape.spec.symbol]
        if pair.status != "TRADING":
            tape.pause(HALTED_MS)
            return []
        step = tape.step()
        events: list[Event] = []
        for trade in step.trades:
            events += self.market.trade(pair, trade, step.time_ms + 1)
            if trade.id % BLOCK_ODDS == 0:
                events += self.market.block(pair, trade)
        return events + self.market.quoted(pair)


def _pair(tape: SymbolTape, seed: int, begun_ms: int) -> Pair:
    return Pair(
        tape.spec.symbol, tape.book, partial(past, tape.spec, seed, begun_ms // MINUTE_MS * MINUTE_MS, tape.next_id)
    )


class ReplayPlayer:
    """Plays a capture; its streams go out as they came, all others are derived from its trades and its book.

    ``report`` is told how far it is.
    """

    def __init__(self, capture: Capture, *, loop: bool, report: Report = silent) -> None:
        self.capture = capture
        self._report = report
        self.shift_ms = 0
        pairs = [Pair(symbol, Book(), has_book=symbol in capture.with_book) for symbol in capture.symbols]
        self.market = Market(pairs, capture.first_ms, capture.streams)
        self._recent: dict[str, deque[Diff]] = {}
        self._lines = capture.passes(loop=loop)
        self._next = next(self._lines, None)
        self._last_ns = self._first_ns = capture.lines[0].ns
        self._over = False
        for _ in capture.with_book:
            self.step()  # a pass begins with the books: they are there before anybody listens

    def now_ms(self, elapsed_ms: float) -> int:  # noqa: ARG002  # a capture's clock stands between its frames
        """The latest event time that was played; only what asks for the time sees it shifted."""
        return self.market.now_ms + self.shift_ms

    def due_ms(self) -> float | None:
        """The captured pace."""
        if self._over:
            return None
        ns = self._last_ns if self._next is None else self._next.ns
        return (ns - self._first_ns) / NS_PER_MS

    def step(self) -> list[Event]:
        """One captured frame with what follows from it; in the end, what the last frames leave open."""
        line = self._next
        if line is None:
            self._over = True
            return self.market.advance(self.capture.last_ms) + self.market.finish_aggregates()
        self._last_ns = line.ns
        self._report("playing", (line.ns - self._first_ns) % self.capture.span_ns, self.capture.span_ns)
        self._next = next(self._lines, None)
        events = self.market.advance(event_ms(line) - MOST_LATE_MS)
        text = payload(line)
        if line.stream:
            events.append(Event(line.stream, text))
        return events + self._understand(line, text)

    def _understand(self, line: Line, text: bytes) -> list[Event]:
        """Learn from a frame; one that cannot be read has been played all the same, and teaches nothing."""
        pair = self.market.pairs[line.symbol]
        with suppress(*UNREADABLE):
            match line.stream.partition("@")[2]:
                case "bookTicker":
                    pair.show(partial(_top, text))
                case "trade":
                    return self._traded(pair, TRADE.decode(text))
                case "depth" | "depth@100ms":
                    pair.put_off(partial(self._differed, pair.symbol, text))
                    if pair.has_book and f"{pair.name}@bookTicker" not in self.capture.streams:
                        pair.show(lambda: pair.book.top())  # noqa: PLW0108 - the book is for when somebody looks
                case "":
                    self._snapped(pair, SNAPSHOT.decode(text))
                    if not pair.top.ask:
                        pair.show(pair.book.top)  # until the capture's own quotes are played, if it has any
        return []

    def _traded(self, pair: Pair, found: TradeText) -> list[Event]:
        fact = found.fact()
        return self.market.advance(fact.time_ms) + self.market.trade(pair, fact, found.E)

    def _differed(self, symbol: str, text: bytes, book: Book) -> None:
        with suppress(*UNREADABLE):
            diff = DEPTH.decode(text).diff()
            self._recent.setdefault(symbol, deque(maxlen=RECENT_DIFFS)).append(diff)
            book.apply(diff)

    def _snapped(self, pair: Pair, found: SnapshotText) -> None:
        """A snapshot arrives after diffs that are newer than it is: those come on top of it again."""
        book = pair.book
        book.replace(found.lastUpdateId, levels(found.bids), levels(found.asks))
        for diff in self._recent.get(pair.symbol, ()):
            book.apply(diff)


def _top(text: bytes) -> Top:
    """The top that a captured frame shows; an empty one where it cannot be read."""
    try:
        return TOP.decode(text).top()
    except UNREADABLE:
        return Top(0, 0, 0, 0)
