"""Whether an event is the next one of its stream, by the exchange's own numbers (sans-I/O).

Trades and aggregate trades count up by one; candles open one interval after another, and within one the count of
trades rises; a book ticker's update id and a ticker's event time only rise. What was seen before is dropped, whichever
connection brings it again; what is missing is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from komas.model.kinds import BY_EVENT, Order
from komas.model.market import AggTrade, BookTicker, Depth, Event, Gap, Kline, Trade
from komas.model.streams import Stream, next_open_ms, previous_open_ms


class Verdict(msgspec.Struct, frozen=True):
    """Whether an event is new, what is missing right before it, and whether its numbers have started again."""

    is_new: bool
    gap: Gap | None = None
    is_restart: bool = False


NEXT = Verdict(is_new=True)
SEEN = Verdict(is_new=False)


# A testnet is wiped each month, a double is restarted, one garbage id may be far too high: so many old events in a row,
# each newer than the one before, are no repetition but a new count. A second connection that lags brings old events in
# a row, too: but never ones that happened after the newest that is known, and not for so long without anything new.
RESTART: Final = 50
RESTART_STATES: Final = 10  # of what has no time but its number: one of each read of the exchange, and it takes longer
RESTART_MS: Final = 30_000
LATE_MS: Final = 5_000  # REST tells when a trade was made, a frame when it was sent: some tenths of a second later
FUTURE_MS: Final = 86_400_000  # so far ahead of what comes is no trade of a connection that led, but garbage


class _Run(msgspec.Struct):
    """Old events in a row, each newer than the one before; what a second connection repeats of them is no other run."""

    count: int
    first: int
    newest: int
    since_ms: int
    risen_ms: int

    def goes_on_with(self, number: int, received_ms: int) -> bool:
        """Whether a number may be of this run: none that lies in it for long is, for its newest one was garbage."""
        return number >= self.newest or (number >= self.first and received_ms - self.risen_ms < RESTART_MS)


class Sequencer:
    """The newest event of every stream."""

    def __init__(self) -> None:
        self._latest: dict[Stream, Event] = {}
        self._runs: dict[Stream, _Run] = {}

    def judge(self, stream: Stream, event: Event, received_ms: int) -> Verdict:
        """Judge one event, and remember it; ``received_ms`` is komas's clock, milliseconds since the epoch."""
        verdict = self._compare(stream, event)
        if verdict is SEEN:
            return self._restarted(stream, event, received_ms)
        self._latest[stream] = event
        if self._runs:
            self._runs.pop(stream, None)
        return verdict

    def follow(self, stream: Stream, events: Sequence[Event]) -> int:
        """How many of these events, from the first one on, are each the next one; these are remembered, others not."""
        latest = self._latest.get(stream)
        if latest is None:
            return 0
        compare, count = _COMPARE[type(latest)], 0
        for event in events:
            if compare(stream, latest, event) is not NEXT:
                break
            latest = event
            count += 1
        if count:
            self._latest[stream] = latest
            if self._runs:
                self._runs.pop(stream, None)
        return count

    def resume(self, stream: Stream, event: Event) -> None:
        """Go on after an event: what has come since then is missing."""
        self._latest[stream] = event

    def forget(self, stream: Stream) -> None:
        """Let a stream start anew: what is sent while it is not wanted is not missing."""
        self._latest.pop(stream, None)
        self._runs.pop(stream, None)

    def latest(self, stream: Stream) -> Event | None:
        """The newest event of a stream, ``None`` before its first."""
        return self._latest.get(stream)

    def _compare(self, stream: Stream, event: Event) -> Verdict:
        latest = self._latest.get(stream)
        return NEXT if latest is None else _COMPARE[type(event)](stream, latest, event)

    def _restarted(self, stream: Stream, event: Event, received_ms: int) -> Verdict:
        number, latest = number_of(event), self._latest[stream]
        if number == number_of(latest) or _is_late(event, latest):
            return SEEN
        run = self._runs.get(stream)
        if run is None or not run.goes_on_with(number, received_ms):
            run = self._runs[stream] = _Run(1, number, number, received_ms, received_ms)
        elif number > run.newest:
            run.count += 1
            run.newest, run.risen_ms = number, received_ms
        else:
            return SEEN  # what is repeated decides nothing
        enough = RESTART if isinstance(event, Trade | AggTrade) else RESTART_STATES
        is_known = run.count >= enough and _starts_again(event, latest, received_ms - run.since_ms)
        if not is_known:
            return SEEN
        lost = Gap(stream=stream.name, first=number_of(latest) + 1, last=None)
        self.forget(stream)
        self.judge(stream, event, received_ms)
        return Verdict(is_new=True, gap=lost, is_restart=True)


def number_of(event: Event) -> int:
    """The exchange's own number of an event, rising within its stream: an id, or a time in milliseconds."""
    return BY_EVENT[type(event)].number(event)


def _counted(stream: Stream, latest: Trade | AggTrade, trade: Trade | AggTrade) -> Verdict:
    last, number = latest.trade_id, trade.trade_id
    if number == last + 1:
        return NEXT
    if number <= last:
        return SEEN
    return Verdict(is_new=True, gap=Gap(stream=stream.name, first=last + 1, last=number - 1))


def _updated(_stream: Stream, latest: BookTicker | Depth, event: BookTicker | Depth) -> Verdict:
    return NEXT if event.update_id > latest.update_id else SEEN


_Timed = TypeVar("_Timed", bound=Event)


def _timed(_stream: Stream, latest: _Timed, event: _Timed) -> Verdict:
    """Two events of one millisecond are two events; an older time is an old event."""
    return SEEN if event.timestamp < latest.timestamp or event == latest else NEXT


def _candle(stream: Stream, latest: Kline, candle: Kline) -> Verdict:
    last = latest.timestamp
    if candle.timestamp < last or (candle.timestamp == last and not _goes_on(latest, candle)):
        return SEEN
    first_missing = next_open_ms(candle.interval, last) if latest.is_closed else last
    if candle.timestamp in (last, first_missing):
        return NEXT
    last_missing = previous_open_ms(candle.interval, candle.timestamp)
    return Verdict(is_new=True, gap=Gap(stream=stream.name, first=first_missing, last=last_missing))


_RULES: Final[dict[Order, Callable[[Stream, Any, Any], Verdict]]] = {
    Order.COUNTED: _counted,
    Order.CANDLES: _candle,
    Order.UPDATES: _updated,
    Order.TIMED: _timed,
}
# The stream's kind decides of which type all its events are.
_COMPARE: Final = {event: _RULES[spec.order] for event, spec in BY_EVENT.items()}


def _goes_on(latest: Kline, candle: Kline) -> bool:
    """Whether an update of one candle is newer: by its trades, for it brings no number of its own."""
    if latest.is_closed:
        return False
    return candle.is_closed or (candle.trades >= latest.trades and candle != latest)


def _is_late(event: Event, latest: Event) -> bool:
    """Whether an old number is an old trade's, by its time; a newest trade of the future proves nothing."""
    if not isinstance(event, Trade | AggTrade) or not isinstance(latest, Trade | AggTrade):
        return False
    return -LATE_MS <= latest.timestamp - event.timestamp <= FUTURE_MS


def _starts_again(event: Event, latest: Event, lasted_ms: int) -> bool:
    """Whether old numbers are a new count.

    Of trades, by their times: those that are old, too, do not come here, but where the newest one is of the future only
    time can tell. Other kinds' times are their numbers, or are ours: a connection that lags by half a minute behind one
    that has fallen silent is taken for a new count.
    """
    if isinstance(event, Trade | AggTrade) and event.timestamp > latest.timestamp:
        return True
    return lasted_ms >= RESTART_MS
