"""Candles: where each interval begins, what a bar is, and how small bars become big ones.

All times are milliseconds since the epoch, UTC. ``offset_ms`` moves the boundaries, never the timestamps: with
+08:00 a day's bar opens at 16:00 UTC the day before (Binance, 2024-05-30).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from komas.simulator.fixed_point import product

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
UTC8_MS = 8 * HOUR_MS
MONDAY_MS = 4 * DAY_MS  # 1970-01-05, the first Monday after the epoch: weeks are counted from it
DECEMBER = 12

WIDTH_MS = {
    "1s": SECOND_MS,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
    "1M": 0,  # as long as the calendar says
}


class Trade(NamedTuple):
    """One fill: id, price and quantity in 1e-8, time, and whether the buyer was the maker."""

    id: int
    price: int
    quantity: int
    time_ms: int
    buyer_is_maker: bool


@dataclass(slots=True)
class Bar:
    """What happened in one interval; ``count`` 0 means a flat bar at the previous close, with ids of -1."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote: int = 0
    count: int = 0
    taker_volume: int = 0
    taker_quote: int = 0
    first: int = -1
    last: int = -1
    width_ms: int = 0  # of a bar that cannot be taken apart any more; 0 for a bar that was made of trades

    def add(self, trade: Trade) -> None:
        """Take one trade in."""
        price, quantity = trade.price, trade.quantity
        cost = product(price, quantity)
        if not self.count:
            self.open = self.high = self.low = price
            self.first = trade.id
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.last = trade.id
        self.count += 1
        self.volume += quantity
        self.quote += cost
        if not trade.buyer_is_maker:
            self.taker_volume += quantity
            self.taker_quote += cost

    def merge(self, later: Bar) -> None:
        """Take in a whole bar that followed this one."""
        if not later.count:
            return
        if not self.count:
            self.open, self.high, self.low, self.first = later.open, later.high, later.low, later.first
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close, self.last = later.close, later.last
        self.count += later.count
        self.volume += later.volume
        self.quote += later.quote
        self.taker_volume += later.taker_volume
        self.taker_quote += later.taker_quote


def flat(open_ms: int, price: int) -> Bar:
    """A bar in which nothing has happened yet."""
    return Bar(open_ms, price, price, price, price)


def opening(interval: str, at_ms: int, offset_ms: int = 0) -> int:
    """When the interval that contains ``at_ms`` began."""
    local = at_ms + offset_ms
    if interval == "1M":
        return _month(local) - offset_ms
    base = MONDAY_MS if interval == "1w" else 0
    return (local - base) // WIDTH_MS[interval] * WIDTH_MS[interval] + base - offset_ms


def ending(interval: str, open_ms: int, offset_ms: int = 0) -> int:
    """When the interval that began at ``open_ms`` ends, which is when the next begins."""
    if interval == "1M":
        return _month_after(open_ms + offset_ms) - offset_ms
    return open_ms + WIDTH_MS[interval]


def _date(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def _stamp(date: datetime) -> int:
    return int(date.timestamp()) * SECOND_MS


def _month(at_ms: int) -> int:
    return _stamp(_date(at_ms).replace(day=1, hour=0, minute=0, second=0, microsecond=0))


def _month_after(at_ms: int) -> int:
    date = _date(at_ms).replace(day=1)
    if date.month == DECEMBER:
        return _stamp(date.replace(year=date.year + 1, month=1))
    return _stamp(date.replace(month=date.month + 1))


def fold(bars: Iterable[Bar], interval: str, until_ms: int, offset_ms: int = 0) -> list[Bar]:
    """Small bars, oldest first, as bars of ``interval``; every interval has one, up to the one that holds ``until_ms``.

    Nothing is invented before the first small bar, and bars that are wider than ``interval`` are passed over.
    """
    folded: list[Bar] = []
    for bar in bars:
        if bar.width_ms > (WIDTH_MS[interval] or bar.width_ms):
            continue
        open_ms = opening(interval, bar.open_ms, offset_ms)
        _fill(folded, interval, open_ms, offset_ms)
        if not folded:
            folded.append(flat(open_ms, bar.open))
        folded[-1].merge(bar)
    _fill(folded, interval, opening(interval, until_ms, offset_ms), offset_ms)
    return folded


def _fill(folded: list[Bar], interval: str, open_ms: int, offset_ms: int) -> None:
    while folded and folded[-1].open_ms < open_ms:
        last = folded[-1]
        folded.append(flat(ending(interval, last.open_ms, offset_ms), last.close))
