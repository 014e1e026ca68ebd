"""A stream, and what a user may write for its parts; the catalogue of candle intervals. Sans-I/O.

A ``Stream`` is one kind of event about one symbol of one venue. Its symbol is upper case.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from komas.errors import CallerError
from komas.model.kinds import KINDS, Kind, Venue

SYMBOL_LENGTH: Final = 40  # the longest on spot in 2026 has 20 letters; room for names that are not Latin
DEFAULT_INTERVAL: Final = "1m"

_SECOND = 1_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
MONTH: Final = "1M"  # the one interval without a fixed length
_CALENDAR_ENDS_MS: Final = 253_370_764_800_000  # the year 9999, the last that datetime knows

# Milliseconds; the order is Binance's. A calendar month has no length: see next_open_ms().
INTERVALS: Final[dict[str, int]] = {
    "1s": _SECOND,
    "1m": _MINUTE,
    "3m": 3 * _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": _HOUR,
    "2h": 2 * _HOUR,
    "4h": 4 * _HOUR,
    "6h": 6 * _HOUR,
    "8h": 8 * _HOUR,
    "12h": 12 * _HOUR,
    "1d": _DAY,
    "3d": 3 * _DAY,
    "1w": 7 * _DAY,
    MONTH: 31 * _DAY,
}


_CANDLES: Final = KINDS[Kind.KLINE].suffix
_BY_SUFFIX: Final = {spec.suffix: kind for kind, spec in KINDS.items() if not spec.has_interval}


class Stream(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """One kind of event about one symbol; ``interval`` belongs to candles alone.

    ``of()`` makes one of the venue that is meant where a user names none.
    """

    kind: Kind
    symbol: str
    interval: str | None = None
    venue: Venue = Venue.BINANCE

    @classmethod
    def of(cls, kind: Kind, symbol: str, interval: str | None = None) -> Stream:
        """A stream of the first venue that has its kind."""
        return cls(kind, symbol, interval, KINDS[kind].venues[0])

    @property
    def name(self) -> str:
        """How komas writes a stream: ``btcusdt@kline_1m``, where case matters (``1M`` is a month, ``1m`` a minute)."""
        return f"{self.symbol.lower()}@{KINDS[self.kind].suffix}{self.interval or ''}"

    def __str__(self) -> str:
        return self.name


def stream(kind: str, symbol: str, interval: str | None = None) -> Stream:
    """Make a stream from what a user wrote; ``CallerError`` names the field that was wrong."""
    checked = parse_kind(kind)
    if KINDS[checked].has_interval:
        return Stream.of(checked, parse_symbol(symbol), parse_interval(interval or DEFAULT_INTERVAL))
    if interval is not None:
        raise CallerError(f"interval is for kline alone, not for {checked}", field="interval")
    return Stream.of(checked, parse_symbol(symbol))


def parse_name(text: str) -> Stream:
    """Read a stream's name, in the exchange's own words: ``btcusdt@kline_1m``; ``CallerError`` says what is wrong."""
    symbol, at, suffix = text.strip().partition("@")
    if not at:
        raise CallerError(f"{_shown(text)} is no stream; write for example btcusdt@trade", field="streams")
    interval = suffix.removeprefix(_CANDLES)
    if interval != suffix:
        return Stream.of(Kind.KLINE, parse_symbol(symbol), parse_interval(interval))
    kind = _BY_SUFFIX.get(suffix)
    if kind is None:
        known = " ".join(f"@{each}" for each in (*_BY_SUFFIX, f"{_CANDLES}1m"))
        raise CallerError(f"{_shown(text)} is no stream that komas has; there are: {known}", field="streams")
    return Stream.of(kind, parse_symbol(symbol))


def parse_kind(text: str) -> Kind:
    """Read a ``stream_type``; ``CallerError`` lists the kinds there are."""
    try:
        return Kind(text)
    except ValueError:
        accepted = " ".join(Kind)
        raise CallerError(f"unknown stream type {_shown(text)}; one of: {accepted}", field="stream_type") from None


def parse_interval(text: str) -> str:
    """Read a candle interval; case matters, ``1m`` is a minute and ``1M`` a month."""
    if text in INTERVALS:
        return text
    raise CallerError(f"unknown interval {_shown(text)}; one of: {' '.join(INTERVALS)}", field="interval")


def parse_symbol(text: str) -> str:
    """Read a symbol in any case, return it in upper case.

    Symbols may hold letters that are not Latin (Binance CHANGELOG, 2025-12-02), so letters and digits of any script
    are taken; separators and whatever could break a stream's name apart are not.
    """
    symbol = text.strip().upper()
    if not symbol:
        raise CallerError("a symbol is missing; write for example BTCUSDT", field="symbols")
    if len(symbol) > SYMBOL_LENGTH:
        raise CallerError(f"symbol {_shown(symbol)} is longer than {SYMBOL_LENGTH} letters", field="symbols")
    if any(mark in symbol for mark in "_-/"):
        raise CallerError(f"symbol {_shown(symbol)} has a separator; {_without_separator(symbol)}", field="symbols")
    if not symbol.isalnum() or symbol.lower().upper() != symbol:
        raise CallerError(f"symbol {_shown(symbol)} is not made of letters and digits alone", field="symbols")
    return symbol


def _without_separator(symbol: str) -> str:
    """What to write instead; a dated future, an option and a COIN-M perpetual have no other name that komas knows."""
    base, *rest = re.split("[_/-]", symbol)
    if len(rest) == 1 and base.isalnum() and rest[0].isalpha() and rest[0] != "PERP":
        return f"write {_shown(base + rest[0])}"
    return "komas has spot pairs and USD-M perpetuals, which are written like 'BTCUSDT'"


def next_open_ms(interval: str, open_ms: int) -> int:
    """Open time of the candle after the one that opened at ``open_ms`` (milliseconds since the epoch, UTC)."""
    if interval != MONTH:
        return open_ms + INTERVALS[interval]
    if not 0 <= open_ms < _CALENDAR_ENDS_MS:
        return open_ms + INTERVALS[MONTH]  # no candle of any exchange: only what a client made up
    opened = datetime.fromtimestamp(open_ms / 1000, UTC)
    year, month = (opened.year + 1, 1) if opened.month == 12 else (opened.year, opened.month + 1)  # noqa: PLR2004 - December
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)


def previous_open_ms(interval: str, open_ms: int) -> int:
    """Open time of the candle before the one that opened at ``open_ms`` (milliseconds since the epoch, UTC)."""
    if interval != MONTH:
        return open_ms - INTERVALS[interval]
    if not INTERVALS[MONTH] <= open_ms < _CALENDAR_ENDS_MS:
        return open_ms - INTERVALS[MONTH]
    opened = datetime.fromtimestamp(open_ms / 1000, UTC)
    year, month = (opened.year - 1, 12) if opened.month == 1 else (opened.year, opened.month - 1)
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)


def _shown(text: str) -> str:
    """What a user wrote, short enough and plain enough for an error message."""
    cut = text if len(text) <= SYMBOL_LENGTH else text[:SYMBOL_LENGTH] + "…"
    return repr(cut)


def next_number(stream: Stream, number: int) -> int:
    """The exchange's number that follows one of a stream: of candles the next open time, else one more."""
    if stream.interval is not None:
        return next_open_ms(stream.interval, number)
    return number + 1


def previous_number(stream: Stream, number: int) -> int:
    """The exchange's number that goes before one of a stream."""
    if stream.interval is not None:
        return previous_open_ms(stream.interval, number)
    return number - 1
