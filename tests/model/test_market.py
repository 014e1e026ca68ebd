"""Events answer by attribute and by key, and know their place in a stream."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from komas.model.market import Gap
from tests.builders import ticker


def test_a_fact_answers_by_attribute_and_by_key() -> None:
    """The user's callbacks write ``data['price']``."""
    event = ticker("42500.50000000")
    assert event.price == event["price"] == Decimal("42500.5")
    assert event["type"] == "ticker"
    assert list(dict(event))[:3] == ["type", "symbol", "price"]


def test_an_unknown_key_is_a_key_error() -> None:
    """As of any mapping."""
    with pytest.raises(KeyError):
        ticker()["prize"]


def test_a_gap_says_from_and_to() -> None:
    """The contract's names are Python keywords, or nearly."""
    assert msgspec.json.encode(Gap(stream="btcusdt@trade", first=3, last=5)) == (
        b'{"stream":"btcusdt@trade","from":3,"to":5,"filled":false}'
    )
