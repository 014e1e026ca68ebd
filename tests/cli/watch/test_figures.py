"""Numbers for eyes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.cli.watch.figures import (
    Trend,
    as_float,
    bar,
    compare,
    difference,
    digits,
    duration,
    milliseconds,
    percent,
    product,
    signed,
    sparkline,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("61837.60000000", "61837.6"),
        ("61837.00000000", "61837"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("0E-8", "0"),
        ("1.2E-7", "0.00000012"),
        ("0.00000000", "0"),
        ("-0.50", "-0.5"),
        ("1E+999999", "1E+999999"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
    ],
)
def test_zeros_at_the_end_are_cut(text: str, expected: str) -> None:
    """And nothing else; a number beyond all bounds takes no memory."""
    assert digits(Decimal(text)) == expected


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=8))
def test_no_digit_is_rounded(value: Decimal) -> None:
    """What is shown is the number."""
    assert Decimal(digits(value)) == value
    assert not digits(value).endswith(".")


def test_products_are_exact_and_end() -> None:
    """For what the exchange may send, and for what a hostile server may."""
    assert product(Decimal("61837.63000001"), Decimal("0.00001001")) == Decimal("0.6189946763001001")
    assert digits(product(Decimal("1E+999999"), Decimal("1E+999999999999999999"))) == "Infinity"
    assert difference(Decimal("0.3"), Decimal("0.1")) == Decimal("0.2")


def test_signs_and_shares() -> None:
    """Ours are rounded, the exchange's are not."""
    assert [signed(Decimal(text)) for text in ("1.50", "-1.50", "0.00", "NaN")] == ["+1.5", "-1.5", "0", "NaN"]
    assert percent(Decimal(1), Decimal(3)) == "+33.33"
    assert percent(Decimal("-0.00001"), Decimal(3)) == "0.00"
    assert percent(Decimal(1), Decimal(0)) == ""
    assert percent(Decimal("NaN"), Decimal(1)) == ""
    assert [compare(Decimal(1), Decimal(text)) for text in ("0", "1", "2", "NaN", "sNaN")] == [1, 0, -1, 0, 0]


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    """One bar for each value."""
    assert sparkline([1, 2, 3]) == "▁▅█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([float("inf"), float("nan"), 1]) == "▁"
    assert sparkline([-1.7e308, 1.7e308]) == "▁▁"
    assert sparkline([]) == ""


def test_a_trend_keeps_its_direction_where_nothing_moves() -> None:
    """And forgets what is old."""
    trend = Trend(most=3)
    for value in (5, 4, 4, 4, 4):
        trend.add(Decimal(value))
    trend.add(Decimal("sNaN"))
    assert (trend.direction, trend.line) == (-1, "▁▁▁")


def test_bars_have_eighths() -> None:
    """And never more cells than they may."""
    assert [bar(part, 8, 1) for part in (0, 1, 4, 8, 99)] == ["", "▏", "▌", "█", "█"]
    assert bar(1, 0, 5) == bar(float("inf"), 1, 5) == ""
    assert as_float(Decimal("1E+999999")) == as_float(Decimal("NaN")) == 0


def test_durations_and_moments() -> None:
    """In the largest units that tell something."""
    assert [duration(seconds) for seconds in (-1, 0.44, 59.9, 60, 7500, 90000)] == [
        "0.0 s",
        "0.4 s",
        "59 s",
        "1 min",
        "2 h 5 min",
        "1 d 1 h",
    ]
    assert milliseconds("1970-01-01T00:00:01.500Z") == 1500
    assert milliseconds("yesterday") is milliseconds(None) is None
