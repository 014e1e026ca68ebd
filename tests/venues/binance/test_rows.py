"""Requests for what is missing, and their rows."""

from __future__ import annotations

import pytest

from komas.venues.binance import rows
from tests.builders import TRADE


def test_no_more_is_asked_for_than_is_missing() -> None:
    """And no more than one answer may hold."""
    assert rows.request(TRADE, 5, 7).params == {"symbol": "BTCUSDT", "fromId": "5", "limit": "3"}
    assert rows.request(TRADE, 5, 70_000).params["limit"] == "1000"


def test_what_is_no_row_is_a_bug() -> None:
    """Not an event with holes."""
    with pytest.raises(TypeError):
        rows.read(TRADE, {"id": 1})
