"""Stream names: what each asks for. A name that asks for nothing known is not an error, it is silent."""

from __future__ import annotations

import re
from typing import NamedTuple

from komas.simulator.candles import UTC8_MS, WIDTH_MS

ROLLING_MS = {"1h": 3_600_000, "4h": 14_400_000, "1d": 86_400_000}
ALL = re.compile(r"!(miniTicker|ticker_(?:1h|4h|1d))@arr")  # `!ticker@arr` and `!bookTicker` are retired: silent
KLINE = re.compile(r"kline_(\w+?)(@\+08:00)?")
DEPTH = re.compile(r"depth(5|10|20)?(@100ms|@1000ms)?")
MARK = re.compile(r"markPrice(@1s)?")
ROLLING = re.compile(r"ticker_(1h|4h|1d)")
PLAIN = frozenset(
    {"trade", "aggTrade", "ticker", "miniTicker", "bookTicker", "avgPrice", "referencePrice", "blockTrade"}
)


class Stream(NamedTuple):
    """What one name asks for. ``symbol`` is empty for all of them; ``levels`` 0 means the diff."""

    name: str
    kind: str
    symbol: str = ""
    interval: str = ""
    offset_ms: int = 0
    levels: int = 0
    fast: bool = False


def understood(name: str) -> Stream | None:
    """What the name asks for, or ``None``: wrong type, retired, or a symbol that is not in lower case."""
    if whole := ALL.fullmatch(name):
        kind, _, window = whole[1].partition("_")
        return Stream(name, "miniTicker" if kind == "miniTicker" else "rolling", interval=window)
    symbol, _, kind = name.partition("@")
    if not symbol or symbol != symbol.lower():
        return None
    return _of_one(name, symbol.upper(), kind)


def _of_one(name: str, symbol: str, kind: str) -> Stream | None:
    if kind in PLAIN:
        return Stream(name, kind, symbol)
    if found := KLINE.fullmatch(kind):
        offset_ms = UTC8_MS if found[2] else 0
        return Stream(name, "kline", symbol, found[1], offset_ms) if found[1] in WIDTH_MS else None
    if found := DEPTH.fullmatch(kind):
        return Stream(name, "depth", symbol, levels=int(found[1] or 0), fast=found[2] == "@100ms")
    if found := MARK.fullmatch(kind):
        return Stream(name, "markPrice", symbol, fast=found[1] is not None)
    if found := ROLLING.fullmatch(kind):
        return Stream(name, "rolling", symbol, interval=found[1])
    return None


def is_of_futures(name: str) -> bool:
    """Whether a name is of the futures' class ``market``; spot has no such stream, and that class no other."""
    stream = understood(name)
    return stream is not None and stream.kind == "markPrice"
