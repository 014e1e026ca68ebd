"""One symbol's state: its trades, the aggregates that partition them, its bars and its book."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from komas.simulator.book import Book, Top
from komas.simulator.candles import DAY_MS, MINUTE_MS, SECOND_MS, Bar, Trade, ending, flat, fold, opening
from komas.simulator.payloads import Aggregate, Window

TRADES_KEPT = 100_000  # for REST paging: ten passes of the capture of 2024-08-08, an hour of a busy synthetic pair
SECONDS_KEPT = 2_000  # for `1s` candles: two pages of REST
MOST_UNREAD = 5_000  # eight minutes of diffs at ten a second: a few megabytes, half a second to enter
BARS_KEPT = 20_000  # two weeks of minutes
OPEN_MS = attrgetter("open_ms")


def no_past() -> list[Bar]:
    """A capture has no past before its first trade."""
    return []


class Pair:
    """What the exchange knows of one symbol. ``past`` is asked for older bars once, when somebody first needs them.

    Without ``has_book`` the book is what changes alone have told of it, and nobody may take it for a whole one.
    """

    def __init__(
        self, symbol: str, book: Book, past: Callable[[], list[Bar]] = no_past, *, has_book: bool = True
    ) -> None:
        self.symbol = symbol
        self.name = symbol.lower()
        self.status = "TRADING"
        self.has_book = has_book
        self._book = book
        self.trades: list[Trade] = []
        self.aggregates: list[Aggregate] = []
        self.seconds: list[Bar] = []
        self.version = 0  # one more for each trade: whether a ticker has changed
        self._top: Top | Callable[[], Top] = book.top()
        self._unread: deque[Callable[[Book], None]] = deque()
        self._past = past
        self._minutes: list[Bar] = []
        self._open_aggregate: Aggregate | None = None
        self._next_aggregate = 1
        self._windows: dict[int, tuple[int, Bar, int]] = {}

    @property
    def book(self) -> Book:
        """The book, once everything that was put off has been entered."""
        while self._unread:
            self._unread.popleft()(self._book)
        return self._book

    def put_off(self, change: Callable[[Book], None]) -> None:
        """Change the book when somebody looks at it: most captures are played without anybody doing so."""
        self._unread.append(change)
        if len(self._unread) > MOST_UNREAD:
            self._unread.popleft()(self._book)

    def skip_changes(self, *, fast: bool) -> None:
        """Nobody wants the book's diffs."""
        self._book.skip(fast=fast)

    @property
    def top(self) -> Top:
        """The top of the book as it was last shown."""
        if not isinstance(self._top, Top):
            self._top = self._top()
        return self._top

    def show(self, top: Callable[[], Top]) -> None:
        """Show another top; it is worked out when somebody looks."""
        self._top = top

    @property
    def bars(self) -> list[Bar]:
        """Minutes that had trades, and bigger bars before them, oldest first."""
        if self._past is not no_past:
            self._minutes = self._past() + self._minutes
            self._past = no_past
        return self._minutes

    def take(self, trade: Trade) -> Aggregate | None:
        """Enter one trade; the answer is the aggregate that it completes, when it is of another order or price."""
        if not self.trades and not self.aggregates and self._open_aggregate is None:
            self._next_aggregate = trade.id // 2 + 1  # fewer aggregates than trades, as on the exchange
        self.trades.append(trade)
        if len(self.trades) > 2 * TRADES_KEPT:
            del self.trades[:TRADES_KEPT]
        self.version += 1
        _enter(self.seconds, trade, SECOND_MS, SECONDS_KEPT)
        _enter(self._minutes, trade, MINUTE_MS, BARS_KEPT)
        return self._aggregate(trade)

    def _aggregate(self, trade: Trade) -> Aggregate | None:
        held = self._open_aggregate
        if held is not None and _belongs(trade, held):
            self._open_aggregate = held._replace(quantity=held.quantity + trade.quantity, last=trade.id)
            return None
        done = self.complete()
        self._open_aggregate = Aggregate(
            self._next_aggregate, trade.price, trade.quantity, trade.id, trade.id, trade.time_ms, trade.buyer_is_maker
        )
        self._next_aggregate += 1
        return done

    def due(self, at_ms: int) -> Aggregate | None:
        """The open aggregate, once its millisecond is over."""
        held = self._open_aggregate
        return self.complete() if held is not None and held.time_ms < at_ms else None

    def complete(self) -> Aggregate | None:
        """Close the open aggregate, if there is one."""
        held, self._open_aggregate = self._open_aggregate, None
        if held is not None:
            self.aggregates.append(held)
            if len(self.aggregates) > 2 * TRADES_KEPT:
                del self.aggregates[:TRADES_KEPT]
        return held

    def retop(self) -> Top | None:
        """The top of the book if it is another than last time."""
        top = self.book.top()
        if top == self.top:
            return None
        self._top = top
        return top

    @property
    def last_price(self) -> int:
        """The price of the last trade; the best bid where there was none."""
        if self.trades:
            return self.trades[-1].price
        return self.bars[-1].close if self.bars else self.top.bid

    @property
    def mark_price(self) -> int:
        """The middle of the book; the last price where it has none."""
        return (self.top.bid + self.top.ask) // 2 or self.last_price

    def candles(self, interval: str, start_ms: int, until_ms: int, offset_ms: int = 0) -> list[Bar]:
        """Candles whose opening lies in the given times, empty ones included; the last holds all that it has."""
        bars = self.seconds if interval == "1s" else self.bars
        begin = bisect_left(bars, opening(interval, start_ms, offset_ms), key=OPEN_MS)
        begin = max(0, begin - 1)  # one before, for the close at which empty candles lie
        last = opening(interval, until_ms, offset_ms)
        end = bisect_left(bars, ending(interval, last, offset_ms), key=OPEN_MS)
        folded = fold(bars[begin:end], interval, last, offset_ms)
        return [bar for bar in folded if bar.open_ms >= start_ms]

    def current(self, interval: str, now_ms: int, offset_ms: int = 0) -> Bar:
        """The candle that is open now."""
        open_ms = opening(interval, now_ms, offset_ms)
        found = self.candles(interval, open_ms, now_ms, offset_ms)
        return found[-1] if found else flat(open_ms, self.last_price)

    def window(self, width_ms: int, now_ms: int) -> Window:
        """The last ``width_ms``, made of whole minutes; it ends now."""
        minute = opening("1m", now_ms)
        cached = self._windows.get(width_ms)
        if cached is None or cached[0] != minute:
            cached = (minute, *self._closed(minute + MINUTE_MS - width_ms, minute))
            self._windows[width_ms] = cached
        _, closed, before = cached
        bar = Bar(*(getattr(closed, slot) for slot in Bar.__slots__))
        for later in self.bars[bisect_left(self.bars, minute, key=OPEN_MS) :]:
            bar.merge(later)
        return Window(bar, before or bar.open, now_ms - width_ms if width_ms == DAY_MS else closed.open_ms, now_ms)

    def _closed(self, from_ms: int, until_ms: int) -> tuple[Bar, int]:
        bars = self.bars
        begin, end = (bisect_left(bars, at, key=OPEN_MS) for at in (from_ms, until_ms))
        before = bars[begin - 1].close if begin else 0
        total = flat(from_ms, before or self.last_price)
        for bar in bars[begin:end]:
            total.merge(bar)
        return total, before


def _belongs(trade: Trade, held: Aggregate) -> bool:
    """Whether the trade continues the aggregate: same instant, price and side."""
    return (
        trade.time_ms == held.time_ms
        and trade.price == held.price
        and trade.buyer_is_maker == held.buyer_is_maker
        and trade.id == held.last + 1
    )


def _enter(bars: list[Bar], trade: Trade, width_ms: int, kept: int) -> None:
    open_ms = trade.time_ms // width_ms * width_ms
    if not bars or bars[-1].open_ms < open_ms:
        bars.append(flat(open_ms, trade.price))
        if len(bars) > 2 * kept:
            del bars[:kept]
    bars[-1].add(trade)
