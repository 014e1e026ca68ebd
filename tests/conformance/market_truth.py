"""What the simulator's market did: a seed decides it, so that its tape can be played once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from komas.simulator.book import Levels
from komas.simulator.candles import Trade
from komas.simulator.fixed_point import UNIT, written
from komas.simulator.tape import SymbolTape, spec_for

Number = str | int | Decimal
MOST_STEPS = 20_000  # eight minutes of the busiest symbol: what a client made up is not looked for longer
LEVELS = 1_000
CLOCK_MS = 1  # a tape that began at another time is rounded to other milliseconds


class Truth:
    """One symbol's books, after each step of its tape, and its trades."""

    def __init__(self, symbol: str, seed: int) -> None:
        self.symbol = symbol
        self._tape = SymbolTape(spec_for(symbol), seed, 0)
        self._books: dict[int, tuple[Levels, Levels]] = {}
        self._trades: dict[int, Trade] = {}
        self._marks: set[tuple[int, int]] = set()
        self._last_price = 0
        self._began_ms: int | None = None

    def is_book(
        self, update_id: int, bids: Sequence[Sequence[Number]], asks: Sequence[Sequence[Number]], *, digits: bool
    ) -> bool:
        """Whether these were all levels at this update, best first: the exchange's texts, or the same numbers."""
        self._play(lambda: self._tape.book.update_id >= update_id)
        if update_id not in self._books:
            return False
        return all(
            len(told) == len(side)
            and all(_same(level, true, digits=digits) for level, true in zip(told, side, strict=True))
            for told, side in zip((bids, asks), self._books[update_id], strict=True)
        )

    def is_trade(
        self, number: int, price: Number, quantity: Number, time_ms: int, buyer_is_maker: object, *, digits: bool
    ) -> bool:
        """Whether there was this trade."""
        self._play(lambda: self._tape.next_id > number)
        if (fact := self._trades.get(number)) is None:
            return False
        if self._began_ms is None:
            self._began_ms = time_ms - fact.time_ms
        return (
            _same((price, quantity), (fact.price, fact.quantity), digits=digits)
            and abs(time_ms - fact.time_ms - self._began_ms) <= CLOCK_MS
            and buyer_is_maker == fact.buyer_is_maker
        )

    def is_mark(self, mark: Number, index: Number) -> bool:
        """Whether the middle of the book and the last price were ever these numbers, together."""
        told = int(Decimal(mark) * UNIT), int(Decimal(index) * UNIT)
        self._play(lambda: told in self._marks)
        return told in self._marks

    def _play(self, is_there: Callable[[], bool]) -> None:
        """Go on until something is there."""
        for _ in range(MOST_STEPS):
            if is_there():
                return
            trades = self._tape.step().trades
            self._trades.update((trade.id, trade) for trade in trades)
            book = self._tape.book
            self._books[book.update_id] = book.best(LEVELS)
            self._last_price = trades[-1].price if trades else self._last_price
            self._marks.add(((book.top().bid + book.top().ask) // 2, self._last_price))


def _same(told: Sequence[Number], true: Sequence[int], *, digits: bool) -> bool:
    """Digits are compared as texts; of a float, the shortest decimal that stands for it is."""
    texts = [written(amount) for amount in true]
    return list(told) == texts if digits else [Decimal(each) for each in told] == [Decimal(text) for text in texts]
