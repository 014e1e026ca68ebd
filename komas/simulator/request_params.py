"""What a REST call asks for, read as the exchange reads it: ``Mistaken`` carries its code for what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from komas.simulator.market import Market
from komas.simulator.symbol_state import Pair

ROWS, MOST_ROWS = 500, 1000
MOST_DIGITS = 20

Parameters = dict[str, str]
Row = TypeVar("Row")


class Mistaken(Exception):
    """A request that the exchange refuses, with its code; ``status`` is HTTP's."""

    def __init__(self, code: int, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Call(NamedTuple):
    """What a call needs: the market, what was asked, and how far the database trails the streams."""

    market: Market
    parameters: Parameters
    now_ms: int
    lag_ms: int = 0


def number(call: Call, name: str, default: int) -> int:
    """A whole number, or the default where it was not sent."""
    text = call.parameters.get(name, "")
    if not text:
        return default
    if len(text) > MOST_DIGITS or not text.isascii() or not text.removeprefix("-").isdigit():
        raise Mistaken(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def limit(call: Call, default: int = ROWS, most: int = MOST_ROWS) -> int:
    """How many rows at most; more than the exchange gives is clipped."""
    rows = number(call, "limit", default)
    if rows < 1:
        raise Mistaken(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(rows, most)


def one_pair(call: Call) -> Pair:
    """The one symbol that must be named."""
    symbol = call.parameters.get("symbol")
    if not symbol:
        raise Mistaken(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    return known_pair(call, symbol)


def known_pair(call: Call, symbol: object) -> Pair:
    """A symbol by its name, which is in upper case."""
    pair = call.market.pairs.get(symbol) if isinstance(symbol, str) else None
    if pair is None:
        raise Mistaken(-1121, "Invalid symbol.")
    return pair


def asked_pairs(call: Call) -> tuple[list[Pair], bool]:
    """The symbols asked for, and whether the answer is one object instead of a list."""
    single, several = call.parameters.get("symbol"), call.parameters.get("symbols")
    if single and several:
        raise Mistaken(-1128, "Combination of optional parameters invalid. Recommendation: 'symbol' or 'symbols'")
    if single:
        return [known_pair(call, single)], True
    if not several:
        return list(call.market.pairs.values()), False
    return [known_pair(call, symbol) for symbol in _array(several)], False


def _array(text: str) -> list[object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found:
        raise Mistaken(-1100, "Illegal characters found in parameter 'symbols'; legal range is a JSON array.")
    return found


def times(call: Call) -> tuple[int | None, int | None]:
    """The bounds, each ``None`` where it was not sent."""
    start, end = (number(call, name, -1) for name in ("startTime", "endTime"))
    if start > end >= 0:
        raise Mistaken(-1128, "Combination of optional parameters invalid. Recommendation: startTime <= endTime")
    return (None if start < 0 else start), (None if end < 0 else end)


def page(rows: Sequence[Row], most: int, *, oldest: bool) -> Sequence[Row]:
    """The oldest or the newest rows, in the order of time."""
    return rows[:most] if oldest else rows[-most:]
