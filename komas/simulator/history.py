"""The past of a synthetic symbol, walked backwards from its first price: days, then hours, then minutes.

Nobody can ask for the trades of that past, only for its candles and tickers, so bars are enough.
"""

from __future__ import annotations

from math import exp
from random import Random

from komas.simulator.candles import DAY_MS, HOUR_MS, MINUTE_MS, Bar
from komas.simulator.fixed_point import product
from komas.simulator.tape import VOLATILITY, Spec

DAYS = 120
HOURS = 8 * 24
MINUTES = 26 * 60  # a little over a day, so that a 24-hour window is made of minutes alone
MS = 1_000


def past(spec: Spec, seed: int, start_ms: int, first_id: int) -> list[Bar]:
    """Bars that end where the tape starts, oldest first; empty minutes of a quiet symbol are left out."""
    dice = Random(f"{seed}/{spec.symbol}/past")  # noqa: S311  # believable candles, not secrets
    bars: list[Bar] = []
    price, trade_id = spec.price, first_id
    for open_ms, width_ms in _spans(start_ms):
        bar = _bar(dice, spec, (open_ms, width_ms), price, trade_id)
        if bar is not None:
            bars.append(bar)
            price, trade_id = bar.open, bar.first
    bars.reverse()
    return bars


def _spans(start_ms: int) -> list[tuple[int, int]]:
    """Openings and widths, newest first: whole minutes back to an hour's start, hours to a day's, then days."""
    minutes_from = (start_ms - MINUTES * MINUTE_MS) // HOUR_MS * HOUR_MS
    hours_from = (minutes_from - HOURS * HOUR_MS) // DAY_MS * DAY_MS
    days_from = hours_from - DAYS * DAY_MS
    minutes = [(at, MINUTE_MS) for at in range(minutes_from, start_ms, MINUTE_MS)]
    hours = [(at, HOUR_MS) for at in range(hours_from, minutes_from, HOUR_MS)]
    days = [(at, DAY_MS) for at in range(days_from, hours_from, DAY_MS)]
    return (days + hours + minutes)[::-1]


def _bar(dice: Random, spec: Spec, span: tuple[int, int], close: int, next_id: int) -> Bar | None:
    open_ms, width_ms = span
    expected = spec.orders_per_s * 2.4 * width_ms / MS
    if dice.random() < exp(-spec.orders_per_s * width_ms / MS):
        return None
    count = min(max(1, int(expected * dice.uniform(0.5, 1.6))), max(1, next_id // 4000))
    reach = VOLATILITY * (width_ms / MS) ** 0.5
    moved = int(close * (1 + dice.gauss(0, reach)))
    open_ = max(spec.tick, moved // spec.tick * spec.tick) if count > 1 else close
    wick = int(close * reach * dice.random()) // spec.tick * spec.tick if count > 1 else 0
    volume = count * spec.step * max(1, int(400 * 10**16 // spec.price // spec.step * dice.uniform(0.5, 1.5)))
    taker = volume // spec.step * int(dice.uniform(30, 70)) // 100 * spec.step
    mean = (open_ + close) // 2
    return Bar(
        open_ms,
        open_,
        max(open_, close) + wick,
        max(spec.tick, min(open_, close) - wick),
        close,
        volume=volume,
        quote=product(mean, volume),
        count=count,
        taker_volume=taker,
        taker_quote=product(mean, taker),
        first=next_id - count,
        last=next_id - 1,
        width_ms=width_ms,
    )
