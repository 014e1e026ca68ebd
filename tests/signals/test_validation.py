"""What producers write: digits are kept, and each wrong thing is named."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.errors import CallerError, CallerErrors
from komas.model.codec import encode, read_object
from komas.signals.validation import DATA_BYTES, MOST_ERRORS, check_data, check_key, read_changes, read_new_signal

TYPES = ("mexc_spot_futures", "mexc_dex")


def _draft(data: str) -> str:
    return f'{{"signal_type":"mexc_dex","data":{data}}}'


def test_numbers_keep_their_digits() -> None:
    """Trailing zeros, small ones, large ones; exponents are written out."""
    wording = read_new_signal(
        _draft('{"a":8.840,"b":0.00670000,"c":1e-7,"d":-0.0,"e":123456789012345678,"f":1.5E3}'), TYPES
    )
    assert encode(wording.data) == b'{"a":8.840,"b":0.00670000,"c":0.0000001,"d":-0.0,"e":123456789012345678,"f":1500}'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("", None),
        ("[]", None),
        ("null", None),
        ("{", None),
        (b"\xff\xfe", None),
        ("[" * 5000, None),
        (_draft('{"a":NaN}'), None),
        (_draft('{"a":' + "9" * 5000 + "}"), None),
        ('{"data":{"a":1}}', "signal_type"),
        ('{"signal_type":5,"data":{"a":1}}', "signal_type"),
        ('{"signal_type":"other","data":{"a":1}}', "signal_type"),
        ('{"signal_type":"mexc_dex"}', "data"),
        (_draft("{}"), "data"),
        (_draft("[1]"), "data"),
        (_draft('"text"'), "data"),
        ('{"signal_type":"mexc_dex","data":{"a":1},"id":5}', "id"),
        (_draft('{"spread":"8.84"}'), "data.spread"),
        (_draft('{"spread":true}'), "data.spread"),
        (_draft('{"mexc_spot_price":"1"}'), "data.mexc_spot_price"),
        (_draft('{"coin_name":5}'), "data.coin_name"),
        (_draft('{"a":1e999999999}'), "data.a"),
        (_draft('{"a":1e99999999999999999999}'), None),
        (_draft('{"a":1e-400}'), "data.a"),
        (_draft('{"a":0e400}'), "data.a"),
        (_draft('{"a":' + "1" * 40 + "}"), "data.a"),
        (_draft('{"a":0.' + "1" * 80 + "}"), "data.a"),
        (_draft('{"a":' + "[" * 9 + "]" * 9 + "}"), "data.a"),
        (_draft('{"a":[{"b":[{"c":[{"d":[{"e":1}]}]}]}]}'), "data.a"),
        (_draft(json.dumps({"k" * 65: 1})), "data." + "k" * 64),
        (_draft(json.dumps({"a": {"k" * 65: 1}})), "data.a"),
        (_draft(json.dumps({"a": "x" * DATA_BYTES})), "data"),
    ],
)
def test_each_wrong_draft_is_named(body: str | bytes, field: str | None) -> None:
    """By its field, where one field is wrong."""
    with pytest.raises(CallerError) as caught:
        read_new_signal(body, TYPES)
    assert caught.value.field == field
    assert len(str(caught.value)) < 200


def test_all_that_is_wrong_is_named_at_once() -> None:
    """Whoever mends one field heard of the next one only then."""
    body = '{"signal_type": "other", "data": {"coin_name": 5, "spread": "x", "a_price": "1"}}'
    with pytest.raises(CallerErrors) as caught:
        read_new_signal(body, TYPES)
    assert [field for field, _ in caught.value.fields] == [
        "signal_type",
        "data.coin_name",
        "data.spread",
        "data.a_price",
    ]
    many = {f"{number}_price": "1" for number in range(99)}
    with pytest.raises(CallerErrors) as caught:
        check_data(many)
    assert len(caught.value.fields) == MOST_ERRORS


def test_changes_are_checked_alike() -> None:
    """The same data, without a type."""
    assert read_changes('{"data":{"spread":9.12}}').data == {"spread": Decimal("9.12")}
    for wrong in ('{"data":{}}', '{"signal_type":"mexc_dex","data":{"a":1}}', '{"data":{"spread":"9"}}'):
        with pytest.raises(CallerError):
            read_changes(wrong)


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\nb"])
def test_a_wrong_key_is_named(key: str) -> None:
    """An Idempotency-Key is printable and short."""
    with pytest.raises(CallerError, match="Idempotency-Key"):
        check_key(key)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**29), 10**29)
    | st.decimals(-(10**9), 10**9, places=8)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


# A name of a number may hold nothing else.
_names = st.text(max_size=8).map(lambda name: f"x{name}").filter(lambda name: not name.endswith("_price"))


@given(st.dictionaries(_names, _json, min_size=1, max_size=4))
def test_what_is_taken_is_sent_as_it_came(data: dict[str, object]) -> None:
    """Through reading, writing, storing and reading again."""
    text = encode(data)
    wording = read_new_signal(b'{"signal_type":"mexc_dex","data":' + text + b"}", TYPES)
    assert encode(wording.data) == text
    assert encode(read_object(text)) == text
