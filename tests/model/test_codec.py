"""Bytes of events: every digit, once for everybody."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model.codec import StreamPosition, encode, iso_ms, parse_position


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18))
def test_a_number_keeps_its_digits(number: Decimal) -> None:
    """What leaves is the plain notation of what came, never an exponent."""
    text = encode({"price": number}).decode()
    assert text == f'{{"price":{number:f}}}'


@pytest.mark.parametrize(
    "digits", ["0.00000000", "0.00000001", "61737.63000000", "-0.00000120", "18446744073709551616.10"]
)
def test_digits_of_the_exchange_are_digits_of_ours(digits: str) -> None:
    """Trailing zeros stay, small numbers are written out."""
    assert encode([Decimal(digits)]) == f"[{digits}]".encode()


@given(st.integers(0, 4_102_444_800_000))
def test_moments_are_iso_with_milliseconds(epoch_ms: int) -> None:
    """ISO 8601 in UTC, to the millisecond."""
    text = iso_ms(epoch_ms)
    assert len(text) == 24
    assert text.endswith(f"{epoch_ms % 1000:03}Z")


def test_positions_read_back() -> None:
    """What komas wrote as an id can be read; nothing else can."""
    assert parse_position(str(StreamPosition("00ff00ff", 12))) == StreamPosition("00ff00ff", 12)
    for nonsense in (
        "",
        "-",
        "abc",
        "abc-",
        "-5",
        "a-b",
        "abc--5",
        "abc-5 ",
        "é-",
        "abc-٣",
        "x" * 50 + "-1",
        "a-" + "9" * 60,
    ):
        assert parse_position(nonsense) is None
