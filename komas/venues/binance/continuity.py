"""Is this fact the next one? By the exchange's own numbers, stream by stream (thinks).

Trades and aggregate trades count up by one; candles open one interval after another; a book ticker's update id and a
ticker's event time only rise. What was seen before is dropped; what is missing is named.
"""

from __future__ import annotations

from typing import Final

import msgspec

from komas.model.market import AggTrade, BookTicker, Event, Gap, Kline, MiniTicker, Ticker, Trade
from komas.model.streams import Stream, next_open_ms, previous_open_ms


class Verdict(msgspec.Struct, frozen=True):
    """Whether a fact is new, what is missing right before it, and whether its numbers have started again."""

    is_new: bool
    gap: Gap | None = None
    is_restart: bool = False


NEXT = Verdict(is_new=True)
SEEN = Verdict(is_new=False)


# A testnet is wiped each month, a double is restarted, one garbage id may be far too high: so many old facts in a row,
# each newer than the one before, are no repetition but a new count.
RESTART: Final = 50


class Continuity:
    """The last number of every stream."""

    def __init__(self) -> None:
        self._last: dict[Stream, int] = {}
        self._below: dict[Stream, tuple[int, int]] = {}  # how many old facts in a row, and the newest of them
        self._closed: dict[Stream, bool] = {}

    def judge(self, stream: Stream, event: Event) -> Verdict:
        """Judge one fact, and remember it."""
        verdict = self._compare(stream, event)
        if verdict is SEEN:
            return self._restarted(stream, event)
        self._below.pop(stream, None)
        return verdict

    def forget(self, stream: Stream) -> None:
        """Let a stream start anew: what comes while nobody wants it is not missing."""
        self._last.pop(stream, None)
        self._closed.pop(stream, None)
        self._below.pop(stream, None)

    def known(self) -> tuple[Stream, ...]:
        """The streams that something is remembered of."""
        return tuple(self._last)

    def _compare(self, stream: Stream, event: Event) -> Verdict:
        match event:
            case Trade() | AggTrade():
                return self._counted(stream, event.trade_id)
            case Kline():
                return self._candle(stream, event)
            case BookTicker():
                return self._rising(stream, event.update_id)
            case Ticker() | MiniTicker():
                # Two events of one millisecond are two events; an older time is an old event.
                return self._rising(stream, event.timestamp, allow_equal=True)

    def _restarted(self, stream: Stream, event: Event) -> Verdict:
        number = _number(event)
        count, newest = self._below.get(stream, (0, -1))
        self._below[stream] = (count + 1 if number > newest else 0, number)
        if self._below[stream][0] < RESTART:
            return SEEN
        lost = Gap(stream=stream.name, first=self._last[stream] + 1, last=None)
        self.forget(stream)
        self.judge(stream, event)
        return Verdict(is_new=True, gap=lost, is_restart=True)

    def _counted(self, stream: Stream, number: int) -> Verdict:
        last = self._last.get(stream)
        if last is not None and number <= last:
            return SEEN
        self._last[stream] = number
        if last is None or number == last + 1:
            return NEXT
        return Verdict(is_new=True, gap=Gap(stream=stream.name, first=last + 1, last=number - 1))

    def _rising(self, stream: Stream, number: int, *, allow_equal: bool = False) -> Verdict:
        last = self._last.get(stream)
        if last is not None and (number < last or (number == last and not allow_equal)):
            return SEEN
        self._last[stream] = number
        return NEXT

    def _candle(self, stream: Stream, candle: Kline) -> Verdict:
        last, closed = self._last.get(stream), self._closed.get(stream, False)
        if last is not None and (candle.timestamp < last or (candle.timestamp == last and closed)):
            return SEEN
        self._last[stream] = candle.timestamp
        self._closed[stream] = candle.is_closed
        if last is None or candle.timestamp == last:
            return NEXT
        first_missing = next_open_ms(candle.interval, last) if closed else last
        if first_missing == candle.timestamp:
            return NEXT
        last_missing = previous_open_ms(candle.interval, candle.timestamp)
        return Verdict(is_new=True, gap=Gap(stream=stream.name, first=first_missing, last=last_missing))


def _number(event: Event) -> int:
    match event:
        case Trade() | AggTrade():
            return event.trade_id
        case BookTicker():
            return event.update_id
        case Kline() | Ticker() | MiniTicker():
            return event.timestamp
