"""What happened before somebody asked: past candles and trades over REST, for charts and tapes.

Answers are kept for a moment, and those about times that are over for longer; who asks the same at the same time waits
for one request. ``rows`` reads the exchange's rows.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.kinds import Kind
from komas.model.market import Event
from komas.model.streams import Stream, next_number
from komas.venues.binance.rows import AggTradeRow, KlineRow, TradeRow, read
from komas.venues.core.ports import Unreadable
from komas.venues.core.request_turns import RequestTurns
from komas.venues.core.rest import Rest

MOST: Final = 1000  # events of one answer: what the exchange gives
FRESH_S: Final = 1.0  # how long an answer about now is good enough for others who ask
KEPT_S: Final = 600.0  # and one about times that are over
SKEW_MS: Final = 5_000  # by so much our clock may be ahead: a candle that is open must not pass for a closed one
KEPT_EVENTS: Final = 30_000  # of all answers together, some twenty megabytes

_PATHS: Final = {Kind.KLINE: "/api/v3/klines", Kind.TRADE: "/api/v3/trades", Kind.AGG_TRADE: "/api/v3/aggTrades"}
_ROWS: Final[dict[Kind, type]] = {
    Kind.KLINE: list[KlineRow],
    Kind.TRADE: list[TradeRow],
    Kind.AGG_TRADE: list[AggTradeRow],
}
_TIME_PATH: Final = "/api/v3/time"
_BYTES: Final = 2**20  # a thousand trades with long prices have 300 KB


class _Time(msgspec.Struct, frozen=True):
    """``{"serverTime":1499827319559}``."""

    serverTime: int  # noqa: N815 - the exchange's key


class _Question(msgspec.Struct, frozen=True):
    stream: Stream
    limit: int
    end_ms: int | None


class _Answer(msgspec.Struct, frozen=True):
    events: tuple[Event, ...]
    asked_at: float
    good_until: float


class _Asked:
    """A request under way, for which others wait, too."""

    def __init__(self) -> None:
        self.at = trio.current_time()
        self.done = trio.Event()
        self.failure: VenueError | None = None


class PastEvents:
    """Candles and trades of one market before now."""

    def __init__(self, rest: Rest, clock_ms: Callable[[], int]) -> None:
        self._rest = rest
        self._clock_ms = clock_ms
        self._turns = RequestTurns(rest)
        self._answers: OrderedDict[_Question, _Answer] = OrderedDict()
        self._asked: dict[_Question, _Asked] = {}
        self._kept = 0

    async def latest(
        self, stream: Stream, limit: int, *, end_ms: int | None = None, reader: str, asked_after: float = -math.inf
    ) -> tuple[Event, ...]:
        """The last ``limit`` (at most ``MOST``) events of candles or trades, oldest first.

        Of candles those that opened at ``end_ms`` or before; the last of all may still be open. An answer that was
        asked for before ``asked_after``, on trio's clock, is not good enough. Raises ``VenueError``.
        """
        question = _Question(stream, limit, end_ms)
        while True:
            known = self._answers.get(question)
            if known is not None and trio.current_time() < known.good_until and known.asked_at >= asked_after:
                self._answers.move_to_end(question)
                return known.events
            asked = self._asked.get(question)
            if asked is None or asked.at < asked_after:
                return await self._ask(question, reader)
            await asked.done.wait()
            if asked.failure is not None:
                raise asked.failure

    async def _ask(self, question: _Question, reader: str) -> tuple[Event, ...]:
        asked = self._asked[question] = _Asked()
        try:
            async with self._turns.turn(reader):
                events = await self._events(question)
        except VenueError as failure:
            asked.failure = failure
            raise
        else:
            self._keep(question, events, asked.at)
            return events
        finally:
            if self._asked.get(question) is asked:
                del self._asked[question]
            asked.done.set()  # who waited while this one was cancelled asks by itself

    async def _events(self, question: _Question) -> tuple[Event, ...]:
        stream = question.stream
        params = {"symbol": stream.symbol, "limit": str(question.limit)}
        if stream.interval is not None:
            params["interval"] = stream.interval
        if question.end_ms is not None:
            params["endTime"] = str(question.end_ms)
        now_ms = self._clock_ms()
        path = _PATHS[stream.kind]
        found: list[object] = await self._rest.get(path, _ROWS[stream.kind], params, most_bytes=_BYTES)
        if len(found) > question.limit:
            raise VenueError(f"{path} answered more than the {question.limit} rows", cause=Cause.PROTOCOL)
        try:
            numbered = sorted((read(stream, row) for row in found), key=lambda each: each[0])
        except Unreadable as error:
            raise VenueError(f"{path} answered what komas cannot read: {error}", cause=Cause.PROTOCOL) from error
        events = [event for _, event in numbered]
        if numbered and stream.interval is not None:
            end_ms = next_number(stream, numbered[-1][0])
            if end_ms <= now_ms - SKEW_MS and question.end_ms is None:
                now_ms = (
                    await self._exchange_ms()
                )  # a halted symbol has no newer candle; or it is our clock that is wrong
            if end_ms > now_ms - SKEW_MS:
                events[-1] = msgspec.structs.replace(events[-1], is_closed=False)
        return tuple(events)

    async def _exchange_ms(self) -> int:
        return (await self._rest.get(_TIME_PATH, _Time)).serverTime

    def _keep(self, question: _Question, events: tuple[Event, ...], asked_at: float) -> None:
        is_over = bool(events) and question.end_ms is not None and bool(getattr(events[-1], "is_closed", False))
        self._forget(question)
        self._answers[question] = _Answer(events, asked_at, trio.current_time() + (KEPT_S if is_over else FRESH_S))
        self._kept += len(events) + 1
        while self._kept > KEPT_EVENTS and len(self._answers) > 1:
            self._forget(next(iter(self._answers)))

    def _forget(self, question: _Question) -> None:
        if (known := self._answers.pop(question, None)) is not None:
            self._kept -= len(known.events) + 1
