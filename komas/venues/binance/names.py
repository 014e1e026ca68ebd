"""How Binance names its streams. Sans-I/O.

A symbol in lower case, ``@``, and a suffix that is case-sensitive: ``btcusdt@kline_1M`` is a month,
``btcusdt@kline_1m`` a minute (binance-spot-api-docs, web-socket-streams.md, 2026-07-21). komas writes streams in the
same way, so ``Stream.name`` is what is asked of the exchange.
"""

from __future__ import annotations

from typing import Final

from komas.model.kinds import KINDS, Venue
from komas.model.streams import INTERVALS, Stream

_BY_SUFFIX: Final = {spec.suffix: kind for kind, spec in KINDS.items() if not spec.has_interval}
_WITH_INTERVAL: Final = {spec.suffix: kind for kind, spec in KINDS.items() if spec.has_interval}


def parse_name(name: str, venue: Venue = Venue.BINANCE) -> Stream | None:
    """Read the name of a stream of one of Binance's markets; ``None`` for a stream that komas does not know there."""
    symbol, at, suffix = name.partition("@")
    if not at or not symbol:
        return None
    kind, interval = _BY_SUFFIX.get(suffix), None
    if kind is None:
        for start, candles in _WITH_INTERVAL.items():
            if suffix.startswith(start) and (interval := suffix.removeprefix(start)) in INTERVALS:
                kind = candles
    if kind is None or venue not in KINDS[kind].venues:
        return None
    return Stream(kind, symbol.upper(), interval, venue)
