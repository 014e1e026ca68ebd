"""Numbers for eyes: zeros at the end are cut, and no digit is ever rounded. Sans-I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from decimal import Context, Decimal, localcontext
from typing import Final

import msgspec

UP: Final = "▲"
DOWN: Final = "▼"
BARS: Final = "▁▂▃▄▅▆▇█"
FULL: Final = "█"
_PARTS: Final = " ▏▎▍▌▋▊▉"  # eighths of a cell
MOST_DIGITS: Final = 40  # beyond, a number is written with its exponent: 1E+999999999 would fill the memory
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_EXACT: Final = Context(prec=60, traps=[])  # a price times a quantity has 40 digits at most


def digits(value: Decimal) -> str:
    """``61837.6`` for 61837.60000000."""
    if not value.is_finite() or abs(value.adjusted()) > MOST_DIGITS:
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: Decimal) -> str:
    """With its sign, but for zero."""
    return f"+{digits(value)}" if compare(value, Decimal()) > 0 else digits(value)


def percent(part: Decimal, whole: Decimal) -> str:
    """How much ``part`` is of ``whole``: our number, no digits of the exchange's, so it is rounded."""
    if not (part.is_finite() and whole.is_finite()) or not whole:
        return ""
    ratio = float(part) / float(whole) if float(whole) else math.nan
    text = f"{100 * ratio:+.2f}" if math.isfinite(ratio) else ""
    return "0.00" if text in {"+0.00", "-0.00"} else text


def product(one: Decimal, other: Decimal) -> Decimal:
    """Exact, for numbers as long as the exchange's; NaN or infinite where they are beyond all bounds."""
    with localcontext(_EXACT):
        return one * other


def difference(one: Decimal, other: Decimal) -> Decimal:
    """Exact, as ``product()``."""
    with localcontext(_EXACT):
        return one - other


def arrow(direction: int) -> str:
    """Where it goes: up for more than zero."""
    return UP if direction > 0 else DOWN if direction < 0 else ""


def style_of(direction: int) -> str:
    """The colour of a direction."""
    return "up" if direction > 0 else "down" if direction < 0 else ""


def compare(one: Decimal, other: Decimal) -> int:
    """1, 0 or -1; 0 for what cannot be compared."""
    if one.is_nan() or other.is_nan():
        return 0
    return (one > other) - (one < other)


def sparkline(values: Iterable[float]) -> str:
    """One bar for each value, between the lowest and the highest; infinite ones are left out."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = high - low
    if not span or not math.isfinite(span):
        return BARS[0] * len(known)
    return "".join(BARS[min(len(BARS) - 1, int((value - low) / span * len(BARS)))] for value in known)


def bar(part: float, whole: float, width: int) -> str:
    """A bar of up to ``width`` cells, in eighths."""
    if not whole > 0 or not math.isfinite(part) or not math.isfinite(whole):
        return ""
    eighths = min(8 * width, max(0, round(part / whole * 8 * width)))
    return (FULL * (eighths // 8) + _PARTS[eighths % 8]).rstrip()


def as_float(value: Decimal) -> float:
    """For bars; zero for what is too large for one."""
    return float(value) if value.is_finite() and abs(value.adjusted()) < MOST_DIGITS else 0.0


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 10:  # noqa: PLR2004  # a tenth tells something up to here
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def milliseconds(moment: object) -> float | None:
    """A moment in ISO 8601 as milliseconds since the epoch; ``None`` for what is none."""
    try:
        return datetime.fromisoformat(moment).timestamp() * 1000 if isinstance(moment, str) else None
    except (ValueError, OverflowError):
        return None


class Trend(msgspec.Struct):
    """The newest values of something, for a sparkline, and where the last step went."""

    most: int = 120
    direction: int = 0
    last: Decimal | None = None
    values: list[float] = msgspec.field(default_factory=list)

    def add(self, value: Decimal) -> None:
        """Take the next value; one that is the same as before keeps the direction."""
        if self.last is not None:
            self.direction = compare(value, self.last) or self.direction
        self.last = value
        try:
            self.values.append(float(value))
        except (OverflowError, ValueError):  # a signalling NaN
            return
        del self.values[: -self.most]

    @property
    def line(self) -> str:
        """The sparkline."""
        return sparkline(self.values)
