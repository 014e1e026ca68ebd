"""Numbers of events that must not be lost: what follows what, and what can be asked for."""

from __future__ import annotations

import pytest

from komas.model.kinds import Kind
from komas.model.streams import Stream, next_number, previous_number
from komas.venues.core import numbering
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
    assert next_number(stream, number) == following
    assert previous_number(stream, following) == number


def test_what_the_exchange_does_not_keep_cannot_be_filled() -> None:
    """A ticker is over when the next one is there."""
    assert numbering.can_fill(TRADE)
    assert numbering.can_fill(KLINE)
    assert not numbering.can_fill(TICKER)
