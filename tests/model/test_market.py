"""Events answer by attribute and by key, and know their place in a stream."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from decimal import Decimal
from typing import Union, get_args, get_origin, get_overloads, get_type_hints

import msgspec
import pytest

from komas.model import market
from komas.model.market import Depth, Event, Gap, Ticker
from tests.builders import ticker


def _unwrapped(kind: object) -> tuple[object, ...]:
    return get_args(kind) if get_origin(kind) in (types.UnionType, Union) else (kind,)


def test_an_event_answers_by_attribute_and_by_key() -> None:
    """The user's callbacks write ``data['price']``."""
    event = ticker("42500.50000000")
    assert event.price == event["price"] == Decimal("42500.5")
    assert event["type"] == "ticker"
    assert list(dict(event))[:3] == ["type", "symbol", "price"]


def test_an_unknown_key_is_a_key_error() -> None:
    """As of any mapping."""
    with pytest.raises(KeyError):
        ticker()["prize"]


def test_an_event_is_a_full_mapping() -> None:
    """``"price" in event`` and ``.get()`` raised; pandas, which asks for a ``Mapping``, could not read it."""
    event = ticker("1.50000000")
    assert isinstance(event, Mapping)
    assert ("price" in event, "type" in event, "prize" in event, 1 in event) == (True, True, False, False)
    assert (event.get("price"), event.get("prize"), event.get("prize", 0)) == (Decimal("1.5"), None, 0)
    assert list(event) == list(event.keys()) == list(dict(event))
    assert len(event) == len(dict(event)) == 11
    assert dict(event.items()) == dict(event)
    assert list(event.values()) == list(dict(event).values())
    assert event.keys() & {"price", "prize"} == {"price"}
    match event:
        case {"type": "ticker", "price": price}:
            assert price == Decimal("1.5")
        case _:
            pytest.fail("a mapping pattern did not match")


def test_an_event_becomes_json() -> None:
    """With every digit and without an exponent, the levels of an order book included."""
    assert json.loads(json.dumps(ticker("0.00000001").to_dict()))["price"] == "0.00000001"
    level = (Decimal("1E+2"), Decimal("0E-8"))
    depth = Depth(symbol="BTCUSDT", update_id=7, bids=(level,), asks=(), timestamp=1)
    assert json.loads(json.dumps(depth.to_dict())) == {
        "type": "depth",
        "symbol": "BTCUSDT",
        "update_id": 7,
        "bids": [["100", "0.00000000"]],
        "asks": [],
        "timestamp": 1,
    }


def test_a_callback_may_calculate_with_what_a_key_gives() -> None:
    """Checked by mypy, which refused ``data["price"] * 2``."""

    def double(data: Ticker) -> Decimal:
        return data["price"] * 2

    assert double(ticker("1.50000000")) == 3


def test_the_types_of_keys_are_those_of_the_fields() -> None:
    """What the overloads of ``event[...]`` say is what each event has; what may be absent has no row."""
    said: dict[str, object] = {}
    for overload in get_overloads(Ticker.__getitem__):
        hints = get_type_hints(overload, vars(market))
        said |= dict.fromkeys(get_args(hints["key"]), hints["return"])
    fields = {("type", str)}
    for event in get_args(Event):
        fields |= {(name, kind) for name, kind in get_type_hints(event).items() if not name.startswith("__")}
    always = {(name, kind) for name, kind in fields if types.NoneType not in _unwrapped(kind)}
    assert set(said.items()) == always


def test_a_gap_says_from_and_to() -> None:
    """The contract's names are Python keywords, or nearly."""
    assert msgspec.json.encode(Gap(stream="btcusdt@trade", first=3, last=5)) == (
        b'{"stream":"btcusdt@trade","from":3,"to":5,"filled":false}'
    )
