"""The exchange's own numbers of events that must not be lost. Sans-I/O.

Trades and aggregate trades count up by one; a candle's number is its open time, and the next one opens an interval
later.
"""

from __future__ import annotations

from komas.model.kinds import KINDS
from komas.model.market import AggTrade, Event, Kline, Trade
from komas.model.streams import Stream, next_number


def can_fill(stream: Stream) -> bool:
    """Whether the exchange keeps what this stream sends."""
    return KINDS[stream.kind].is_filled


def first_after(stream: Stream, latest: Event) -> int:
    """From which number on something may have come after an event: a candle that is open goes on itself."""
    match latest:
        case Trade() | AggTrade():
            return latest.trade_id + 1
        case Kline(is_closed=False):
            return latest.timestamp
        case _:
            return next_number(stream, latest.timestamp)


def settled(stream: Stream, events: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """The events that will not change any more: of candles, the last one may be open, or still be counted."""
    return events if stream.interval is None else events[:-1]
