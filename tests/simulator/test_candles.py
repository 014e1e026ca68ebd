"""Candles: boundaries, bars, and the big made of the small."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.simulator.candles import DAY_MS, MINUTE_MS, UTC8_MS, WIDTH_MS, Bar, Trade, ending, flat, fold, opening
from komas.simulator.fixed_point import UNIT, parsed, product, ratio, written

TIMES = st.integers(min_value=0, max_value=4_000_000_000_000)
INTERVALS = st.sampled_from(sorted(WIDTH_MS))
OFFSETS = st.sampled_from([0, UTC8_MS])


def ms(text: str) -> int:
    """A time of day."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    ("interval", "at", "opens", "ends"),
    [
        ("1s", "2026-03-04T05:06:07", "2026-03-04T05:06:07", "2026-03-04T05:06:08"),
        ("1m", "2026-03-04T05:06:07", "2026-03-04T05:06:00", "2026-03-04T05:07:00"),
        ("15m", "2026-03-04T05:16:07", "2026-03-04T05:15:00", "2026-03-04T05:30:00"),
        ("12h", "2026-03-04T15:16:07", "2026-03-04T12:00:00", "2026-03-05T00:00:00"),
        ("1d", "2026-03-04T23:59:59", "2026-03-04T00:00:00", "2026-03-05T00:00:00"),
        ("1w", "2026-03-08T23:59:59", "2026-03-02T00:00:00", "2026-03-09T00:00:00"),
        ("1M", "2026-02-15T10:00:00", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("1M", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_boundaries(interval: str, at: str, opens: str, ends: str) -> None:
    """Weeks begin on Monday, months are the calendar's."""
    assert opening(interval, ms(at)) == ms(opens)
    assert ending(interval, ms(opens)) == ms(ends)


def test_a_day_in_utc8_opens_at_sixteen() -> None:
    """The boundary moves, the timestamp is UTC."""
    assert opening("1d", ms("2026-03-04T15:59:59"), UTC8_MS) == ms("2026-03-03T16:00:00")
    assert ending("1M", opening("1M", ms("2026-03-04T00:00:00"), UTC8_MS), UTC8_MS) == ms("2026-03-31T16:00:00")


@given(INTERVALS, TIMES, OFFSETS)
def test_every_time_lies_in_its_interval(interval: str, at_ms: int, offset_ms: int) -> None:
    """Intervals leave no hole and do not overlap."""
    open_ms = opening(interval, at_ms, offset_ms)
    end_ms = ending(interval, open_ms, offset_ms)
    assert open_ms <= at_ms < end_ms
    assert opening(interval, open_ms, offset_ms) == open_ms
    assert opening(interval, end_ms, offset_ms) == end_ms


TRADES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10 * MINUTE_MS), st.booleans()), min_size=1
).map(
    lambda rows: [
        Trade(number, price * UNIT, quantity * UNIT, at_ms, maker)
        for number, (price, quantity, at_ms, maker) in enumerate(sorted(rows, key=lambda row: row[2]))
    ]
)


def bar_of(trades: list[Trade], open_ms: int) -> Bar:
    """A bar made of trades."""
    bar = flat(open_ms, trades[0].price)
    for trade in trades:
        bar.add(trade)
    return bar


def minutes(trades: list[Trade]) -> list[Bar]:
    """The minutes that have trades."""
    opens = sorted({opening("1m", trade.time_ms) for trade in trades})
    return [bar_of([each for each in trades if opening("1m", each.time_ms) == open_ms], open_ms) for open_ms in opens]


@given(TRADES)
def test_a_bar_of_bars_is_the_bar_of_their_trades(trades: list[Trade]) -> None:
    """Folding loses nothing: ids, volumes, extremes."""
    [whole] = fold(minutes(trades), "1d", 10 * MINUTE_MS)
    assert whole == bar_of(trades, 0)
    prices = [trade.price for trade in trades]
    assert (whole.high, whole.low, whole.open, whole.close) == (max(prices), min(prices), prices[0], prices[-1])
    assert (whole.first, whole.last, whole.count) == (trades[0].id, trades[-1].id, len(trades))


@given(TRADES)
def test_empty_intervals_are_flat(trades: list[Trade]) -> None:
    """Every minute has a bar; one without trades lies at the previous close, with ids of -1."""
    bars = fold(minutes(trades), "1m", 12 * MINUTE_MS)
    assert [bar.open_ms for bar in bars] == list(range(bars[0].open_ms, 13 * MINUTE_MS, MINUTE_MS))
    for earlier, bar in itertools.pairwise(bars):
        if not bar.count:
            assert bar == flat(bar.open_ms, earlier.close)
            assert (bar.first, bar.last) == (-1, -1)


def test_bars_that_are_too_wide_are_passed_over() -> None:
    """A day cannot be taken apart into minutes."""
    day = Bar(0, 1, 1, 1, 1, count=1, width_ms=DAY_MS)
    minute = Bar(DAY_MS, 2, 2, 2, 2, count=1, width_ms=MINUTE_MS)
    assert [bar.open_ms for bar in fold([day, minute], "1m", DAY_MS)] == [DAY_MS]
    assert [bar.open_ms for bar in fold([day, minute], "1d", DAY_MS)] == [0, DAY_MS]
    assert [bar.open_ms for bar in fold([day, minute], "1M", DAY_MS)] == [0]


@given(st.integers(-(10**20), 10**20))
def test_amounts_are_read_as_they_were_written(amount: int) -> None:
    """Eight decimals, no exponent, and back."""
    text = written(amount)
    assert parsed(text) == amount
    assert len(text.partition(".")[2]) == 8
    assert "e" not in text.lower()


def test_amounts() -> None:
    """Shorter texts, products and ratios."""
    assert parsed("1.5") == 150_000_000
    assert parsed("-0.5") == -50_000_000
    assert product(2 * UNIT, UNIT // 2) == UNIT
    assert ratio(UNIT, 4 * UNIT) == UNIT // 4
    assert ratio(UNIT, 0) == 0
