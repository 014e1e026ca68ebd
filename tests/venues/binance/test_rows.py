"""Requests for what is missing, and their rows."""

from __future__ import annotations

import pytest

from komas.model.streams import Kind, Stream
from komas.venues.binance import rows
from tests.builders import KLINE, MINUTE_MS, TICKER, TRADE

MONTHS = Stream(Kind.KLINE, "BTCUSDT", "1M")
JANUARY_2026 = 1_767_225_600_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("stream", "number", "following"),
    [
        (TRADE, 7, 8),
        (KLINE, 7 * MINUTE_MS, 8 * MINUTE_MS),
        (MONTHS, JANUARY_2026, JANUARY_2026 + 31 * DAY_MS),
        (MONTHS, JANUARY_2026 + 31 * DAY_MS, JANUARY_2026 + 59 * DAY_MS),
    ],
)
def test_numbers_follow_each_other(stream: Stream, number: int, following: int) -> None:
    """Ids by one, candles by their interval, a month by the calendar."""
    assert rows.next_number(stream, number) == following
    assert rows.previous_number(stream, following) == number


def test_no_more_is_asked_for_than_is_missing() -> None:
    """And no more than one answer may hold."""
    assert rows.request(TRADE, 5, 7).params == {"symbol": "BTCUSDT", "fromId": "5", "limit": "3"}
    assert rows.request(TRADE, 5, 70_000).params["limit"] == "1000"


def test_what_the_exchange_does_not_keep_cannot_be_filled() -> None:
    """A ticker is over when the next one is there."""
    assert rows.can_fill(TRADE)
    assert rows.can_fill(KLINE)
    assert not rows.can_fill(TICKER)


def test_what_is_no_row_is_a_bug() -> None:
    """Not a fact with holes."""
    with pytest.raises(TypeError):
        rows.read(TRADE, {"id": 1})
