"""Signals, the newest on top; a row changes with its updates. Sans-I/O."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from komas.cli.watch.figures import Trend, arrow, duration, milliseconds, style_of
from komas.cli.watch.records import SIGNAL_TYPES, Fields, Record, words
from komas.cli.watch.safe_text import shown
from komas.cli.watch.table import Column, Line, Side, Size, Span, draw
from komas.cli.watch.views import KEPT, SPARK, Row
from komas.model.codec import encode

_MS: Final = 1000
_KNOWN: Final = ("id", "created_at", "coin_name", "position", "spread")


class _Signal(msgspec.Struct):
    type: str
    data: Fields
    came_ms: float
    updates: int = 0
    spread: Trend = msgspec.field(default_factory=Trend)


class SignalsView:
    """The newest signals."""

    header: Row = ("time", "message", "id", "signal_type", "coin_name", "position", "spread", "data")
    columns: Final = (
        Column("id", Side.RIGHT, least=3),
        Column("coin", Side.LEFT, least=5),
        Column("side", Side.LEFT, 1, least=5),
        Column("spread", Side.POINT),
        Column("", Side.LEFT, least=1),
        Column("age", Side.RIGHT, 2),
        Column("type", Side.LEFT, 3, least=8),
        Column("time", Side.LEFT, 4, least=8),
        Column("updates", Side.RIGHT, 5),
        Column("trend", Side.LEFT, 6, least=12),
        Column("more", Side.LEFT, 7, least=12),
    )

    def __init__(self) -> None:
        self._signals: dict[int, _Signal] = {}

    def take(self, record: Record) -> None:
        """Add a signal, or change one."""
        if record.type not in SIGNAL_TYPES or record.signal_id is None:
            return
        known = self._signals.get(record.signal_id)
        if known is None:
            known = self._signals[record.signal_id] = _Signal(
                record.signal_type,
                dict(record.fields),
                milliseconds(record.fields.get("created_at")) or milliseconds(record.timestamp) or 0.0,
            )
        else:
            known.data.update(record.fields)
            known.updates += record.type == "signal_update"
        if (spread := _number(record.fields.get("spread"))) is not None:
            known.spread.add(spread)
        while len(self._signals) > KEPT:
            del self._signals[min(self._signals)]

    def row(self, record: Record) -> Row | None:
        """The fields of a message; those of an update are the changed ones alone."""
        if record.type not in SIGNAL_TYPES:
            return None
        number = "" if record.signal_id is None else str(record.signal_id)
        fields = [words(record.fields.get(key)) for key in _KNOWN[2:]]
        rest = shown(encode(_rest(record.fields)).decode("utf-8", "replace"))
        return (record.timestamp, record.type, number, shown(record.signal_type), *fields, rest)

    def direction(self, record: Record) -> int:
        """Of the position that is advised."""
        return _way(record.fields.get("position"))

    def summary(self) -> Span:
        """How many there are."""
        return Span(f"{len(self._signals)} signals", "dim") if self._signals else Span("waiting for a signal", "dim")

    def body(self, size: Size, now_ms: float) -> list[Line]:
        """A table."""
        newest = sorted(self._signals, reverse=True)[: max(0, size.height - 1)]
        return draw(self.columns, [_shown(number, self._signals[number], now_ms) for number in newest], size.width)


def _shown(number: int, signal: _Signal, now_ms: float) -> list[Span]:
    data, way = signal.data, signal.spread.direction
    more = "  ".join(f"{words(key)} {words(value)}" for key, value in _rest(data).items())
    return [
        Span(str(number), "dim"),
        Span(words(data.get("coin_name"))),
        Span(words(data.get("position")), style_of(_way(data.get("position")))),
        Span(words(data.get("spread")), style_of(way)),
        Span(arrow(way), style_of(way)),
        Span(duration(max(0.0, now_ms - signal.came_ms) / _MS)),
        Span(shown(signal.type)),
        Span(words(data.get("created_at"))[11:19], "dim"),
        Span(str(signal.updates) if signal.updates else "", "dim"),
        Span(signal.spread.line[-SPARK:] if signal.updates else "", "dim"),
        Span(more, "dim"),
    ]


def _rest(data: Fields) -> Fields:
    return {key: value for key, value in data.items() if key not in _KNOWN}


def _way(position: object) -> int:
    word = position.upper() if isinstance(position, str) else ""
    return 1 if word == "LONG" else -1 if word == "SHORT" else 0


def _number(value: object) -> Decimal | None:
    match value:
        case bool():
            return None
        case Decimal():
            return value
        case int():
            return Decimal(value)
        case _:
            return None
