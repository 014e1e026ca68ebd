"""The synthetic market: for each symbol a book and the orders that hit it, all of it decided by the seed.

A symbol's fair price walks at random. Makers quote around it, takers lift the ask or hit the bid and are filled by
one maker after another, so that one order is often many trades in one millisecond. Trade ids have no gaps, prices lie
on the tick grid and quantities on the step grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from random import Random
from typing import NamedTuple

from komas.simulator.book import Book
from komas.simulator.candles import Trade
from komas.simulator.fixed_point import UNIT

QUOTES = ("FDUSD", "USDT", "USDC", "BTC", "ETH", "BNB", "TRY", "EUR")
DEEP_ODDS = 0.25  # how many quotes come with one far from the price
LEVELS = 40  # on each side; far ones are cancelled as the price walks away
SWEEP_LEVELS = 4  # how deep one order may eat
BURST_TRADES = 400  # up to 735 trades shared one millisecond in the capture of 2024-08-08
VOLATILITY = 6e-5  # of the price, for each square root of a second: about 2 % a day
MS = 1_000
LEVEL_WORTH = 10**4  # an average level is worth this many quote units


class Spec(NamedTuple):
    """What is traded, on which grid and how briskly."""

    symbol: str
    base: str
    quote: str
    price: int
    tick: int
    step: int
    orders_per_s: float
    quotes_per_s: float


# price, tick, step in quote or base units; orders and quotes a second
KNOWN: dict[str, tuple[str, str, str, float, float]] = {
    "BTCUSDT": ("61837.63", "0.01", "0.00001", 9.0, 30.0),
    "ETHUSDT": ("2683.21", "0.01", "0.0001", 5.0, 20.0),
    "BNBUSDT": ("517.40", "0.1", "0.001", 2.0, 8.0),
    "SOLUSDT": ("152.31", "0.01", "0.001", 3.0, 10.0),
    "XRPUSDT": ("0.6123", "0.0001", "0.1", 2.0, 8.0),
    "DOGEUSDT": ("0.10452", "0.00001", "1", 1.5, 6.0),
    "币安人生USDT": ("0.1391", "0.0001", "0.1", 0.5, 2.0),
    "BIFIUSDT": ("331.2", "0.1", "0.001", 0.01, 0.1),  # the quiet one: most of its minutes are empty
}


class Step(NamedTuple):
    """One thing that happened: an order's trades, or none where only the book moved."""

    time_ms: int
    symbol: str
    trades: list[Trade]


def amount(text: str) -> int:
    """A number of the table above, in 1e-8."""
    whole, _, part = text.partition(".")
    return int(whole) * UNIT + int(part.ljust(8, "0"))


def spec_for(symbol: str) -> Spec:
    """The table's row, or for any other name one that its letters decide."""
    quote = next((quote for quote in QUOTES if symbol.endswith(quote) and symbol != quote), symbol[-3:])
    base = symbol.removesuffix(quote)
    if symbol in KNOWN:
        price, tick, step, orders, quotes = KNOWN[symbol]
        return Spec(symbol, base, quote, amount(price), amount(tick), amount(step), orders, quotes)
    dice = Random(symbol)  # noqa: S311  # a believable price, not a secret
    cents = int(10 ** dice.uniform(1.0, 4.5))
    return Spec(symbol, base, quote, cents * UNIT // 100, UNIT // 1000, UNIT // 1000, dice.uniform(0.2, 3), 4.0)


class SymbolTape:
    """One symbol's market; ``step`` makes the next thing happen."""

    def __init__(self, spec: Spec, seed: int, start_ms: int) -> None:
        self.spec = spec
        self.dice = Random(f"{seed}/{spec.symbol}")  # noqa: S311  # a market for tests, reproducible on purpose
        self.book = Book(update_id=self.dice.randrange(10**9, 10**11))
        self.fair = float(spec.price)
        self._steps = 2 * LEVEL_WORTH * UNIT * UNIT / spec.price / spec.step
        self.next_id = self.dice.randrange(10**9, 6 * 10**9)  # past 2^32 on the big pairs
        self._at = float(start_ms)
        self._open_book()
        self.next_ms = start_ms
        self._wait()

    def step(self) -> Step:
        """Whatever happens at ``next_ms``."""
        at_ms = self.next_ms
        spec = self.spec
        takes = self.dice.random() * (spec.orders_per_s + spec.quotes_per_s) < spec.orders_per_s
        trades = self._take(at_ms) if takes else []
        self._quote()
        self._wait()
        return Step(at_ms, spec.symbol, trades)

    def pause(self, pause_ms: int) -> None:
        """Let nothing happen for a while: trading is halted."""
        self._at += pause_ms
        self.next_ms = int(self._at)

    def _wait(self) -> None:
        rate = self.spec.orders_per_s + self.spec.quotes_per_s
        wait_s = self.dice.expovariate(rate)
        self._at += wait_s * MS
        self.fair *= 1 + self.dice.gauss(0, VOLATILITY) * wait_s**0.5
        self.next_ms = int(self._at)

    def _take(self, at_ms: int) -> list[Trade]:
        buys = self.dice.random() < 0.5  # noqa: PLR2004  # a fair coin
        side = self.book.asks if buys else self.book.bids
        trades: list[Trade] = []
        wanted, eaten = self._fills(), 0
        while len(trades) < wanted and eaten < SWEEP_LEVELS:
            price = min(side) if buys else max(side)
            filled = self._fill(side, price, wanted - len(trades))
            eaten += price not in side
            trades += [self._trade(price, quantity, at_ms, buyer_is_maker=not buys) for quantity in filled]
        return trades

    def _trade(self, price: int, quantity: int, at_ms: int, *, buyer_is_maker: bool) -> Trade:
        trade = Trade(self.next_id, price, quantity, at_ms, buyer_is_maker)
        self.next_id += 1
        return trade

    def _fills(self) -> int:
        return min(BURST_TRADES, int(self.dice.paretovariate(1.3)))

    def _fill(self, side: dict[int, int], price: int, fills: int) -> list[int]:
        left = side[price]
        step = self.spec.step
        filled: list[int] = []
        while left and len(filled) < fills:
            quantity = min(left, step * (1 + int(self.dice.expovariate(8.0) * left / step)))
            filled.append(quantity)
            left -= quantity
        self.book.put(side, price, left)
        return filled

    def _open_book(self) -> None:
        self._quote()
        for _ in range(LEVELS):
            self._deepen()

    def _quote(self) -> None:
        """Makers leave what has become a bad price, quote the fair one, and now and then something further out."""
        book, tick = self.book, self.spec.tick
        fair = int(self.fair) // tick * tick
        while book.bids and (price := max(book.bids)) > fair:
            book.put(book.bids, price, 0)
        while book.asks and (price := min(book.asks)) <= fair:
            book.put(book.asks, price, 0)
        self._requote(book.bids, fair)
        self._requote(book.asks, fair + tick)
        if self.dice.random() < DEEP_ODDS:
            self._deepen()

    def _requote(self, side: dict[int, int], price: int) -> None:
        if price not in side or self.dice.random() < 0.3:  # noqa: PLR2004  # makers change their minds now and then
            self.book.put(side, price, self._size())

    def _deepen(self) -> None:
        book, tick = self.book, self.spec.tick
        away = tick * (1 + int(self.dice.expovariate(1.0) * max(10, self.fair * 2e-4 / tick)))
        fair = int(self.fair) // tick * tick
        book.put(book.bids, max(tick, fair - away), self._size())
        book.put(book.asks, fair + tick + away, self._size())
        if len(book.bids) > LEVELS:
            book.put(book.bids, min(book.bids), 0)
        if len(book.asks) > LEVELS:
            book.put(book.asks, max(book.asks), 0)

    def _size(self) -> int:
        return self.spec.step * (1 + int(self.dice.random() * self._steps))


class Tape:
    """All symbols together, in the order of time."""

    def __init__(self, symbols: Iterable[str], seed: int, start_ms: int) -> None:
        self.symbols = {name: SymbolTape(spec_for(name), seed, start_ms) for name in symbols}

    @property
    def next_ms(self) -> int:
        """When the next thing happens."""
        return min(tape.next_ms for tape in self.symbols.values())

    @property
    def next(self) -> SymbolTape:
        """The symbol where it happens; of two in one millisecond, the one that was listed first."""
        return min(self.symbols.values(), key=attrgetter("next_ms"))
