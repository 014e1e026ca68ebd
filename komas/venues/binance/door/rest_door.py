"""Binance's REST interface, answered by komas: one question for everybody who asks the same.

Bots on one address share its weight, and are banned together: here they ask komas, which asks the exchange once, within
the budget that gap filling has, too, and in turns that are fair between them. Each bot sees the weights and headers
that it would see alone. What is answered is what the exchange said, byte for byte, or an error: nothing is made up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from copy import copy
from http import HTTPStatus
from typing import Final

import msgspec
import trio

from komas.errors import VenueError
from komas.venues.binance.door import refusals
from komas.venues.binance.door.accounts import Accounts, seconds_left
from komas.venues.binance.door.answers import ERROR_S, Answers, Kept, true_for_s
from komas.venues.binance.door.endpoints import (
    PRODUCTS,
    SYMBOL,
    SYMBOLS,
    Endpoint,
    Product,
    Question,
    Truth,
    endpoint_of,
    listed,
    question,
)
from komas.venues.binance.door.exchange_info import ExchangeInfo
from komas.venues.binance.door.refusals import Refusal
from komas.venues.core.door import DoorAnswer, DoorRequest
from komas.venues.core.request_turns import RequestTurns
from komas.venues.core.rest import Rest

# Where there is no budget: official clients give up after a second, and ask three times more (binance-common 4.7.0).
PATIENCE_S: Final = 0.8
TURN_S: Final = 8.0  # for other questions before this one: most clients wait for ten seconds
LOOK_S: Final = 0.05
AT_ONCE: Final = 10
WAITING: Final = 1_000
OF_AN_ADDRESS: Final = WAITING // 2  # questions under way: a bot asks for all its pairs when it starts
BOTS_OF_AN_ADDRESS: Final = 20  # may each use a whole minute's weight
CLOCK_S: Final = 600.0  # how long a measured difference of the clocks is believed
CLOCK_ROUND_TRIP_MS: Final = 100  # half of it is how wrong that may be
CLOCK_TRIES: Final = 3
NAME: Final = "binance"

_JSON: Final = "application/json;charset=UTF-8"
_UNIT: Final = "x-mbx-time-unit"
_MICROSECOND: Final = "MICROSECOND"
_INFO: Final = "/exchangeInfo"


class _Time(msgspec.Struct):
    """``{"serverTime":1795982405877}``."""

    serverTime: int  # noqa: N815 - the exchange's key


class _Asked:
    """A question that is under way."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.kept: Kept | None = None
        self.failure: Refusal | None = None


class BinanceDoor:
    """The REST half of the door: both products, over the REST hosts of their markets.

    Questions are asked in ``nursery``, so that one is asked to the end though its client has given up, and comes again.
    """

    name = NAME

    def __init__(self, hosts: Iterable[Rest], clock_ms: Callable[[], int], nursery: trio.Nursery) -> None:
        """``hosts`` are those of spot and of USD-M futures."""
        self._products = [
            _ProductDoor(product, rest, clock_ms, nursery) for product, rest in zip(PRODUCTS, hosts, strict=True)
        ]

    async def answer(self, request: DoorRequest) -> DoorAnswer:
        """Answer one call; an error is an answer, too."""
        for product in self._products:
            if request.path.startswith(product.prefix):
                return await product.answer(request)
        if request.path.startswith(("/sapi/", "/papi/")):
            return _refused(refusals.keys_stay_out(), {})
        return _refused(refusals.no_such_path(request.path[:100], request.method), {})


class _ProductDoor:
    """One product."""

    def __init__(self, product: Product, rest: Rest, clock_ms: Callable[[], int], nursery: trio.Nursery) -> None:
        self.prefix = product.prefix
        self._product = product
        self._rest = rest
        self._clock_ms = clock_ms
        self._nursery = nursery
        self._turns = RequestTurns(rest, at_once=AT_ONCE, most_waiting=WAITING)
        self._bots = Accounts(product.weight_per_minute)
        self._addresses = Accounts(product.weight_per_minute * BOTS_OF_AN_ADDRESS)
        self._answers = Answers()
        self._asked: dict[Question, _Asked] = {}
        self._ahead_ms = 0  # the exchange's clock, of ours
        self._clock_good_until = -math.inf
        self._info: ExchangeInfo | None = None
        self._info_body = b""
        self._cutting = trio.Lock()
        self._measuring = trio.Lock()
        self._of_addresses: Counter[str] = Counter()  # questions that are under way

    async def answer(self, request: DoorRequest) -> DoorAnswer:
        """Answer one call."""
        understood = self._understood(request)
        weight = 1 if isinstance(understood, Refusal) else understood[0].weigh(dict(understood[1].parameters))
        now_ms = self._now_ms()
        used = self._bots.charge(request.connection, weight, now_ms)
        of_address = self._addresses.charge(request.address, weight, now_ms)
        try:
            if used > self._bots.limit or of_address > self._addresses.limit:
                raise refusals.out_of_weight(self._bots.limit, seconds_left(now_ms))
            if isinstance(understood, Refusal):
                raise understood
            found = await self._known(*understood, request.address)
        except Refusal as refusal:
            return _refused(refusal, _weighed(used))
        found.headers.update(_weighed(used))
        return found

    def _understood(self, request: DoorRequest) -> tuple[Endpoint, Question] | Refusal:
        """What is asked; or what is wrong with it, which weighs something, too."""
        try:
            endpoint = endpoint_of(self._product, request.method, request.path, request.query)
            in_microseconds = request.headers.get(_UNIT, "").upper() == _MICROSECOND
            return endpoint, question(endpoint, request.path, request.query, is_in_microseconds=in_microseconds)
        except Refusal as refusal:
            return refusal

    def _now_ms(self) -> int:
        return self._clock_ms() + self._ahead_ms

    async def _known(self, endpoint: Endpoint, asked: Question, address: str) -> DoorAnswer:
        if asked.path == self._product.ping_path:
            return _answered(b"{}")
        if asked.path == self._product.time_path:
            try:
                await self._measure_clock()
            except VenueError as error:
                raise refusals.of_venue(error) from error
            now_ms = self._now_ms()
            return _answered(b'{"serverTime":%d}' % (now_ms * 1_000 if asked.is_in_microseconds else now_ms))
        given = dict(asked.parameters)
        if asked.path.endswith(_INFO) and given.keys() <= {SYMBOL, SYMBOLS}:
            answer = await self._symbols(endpoint, asked, given, address)
            if answer is not None:
                return answer
        kept = await self._ask(endpoint, asked, address)
        return _answered(kept.body, kept.status)

    async def _measure_clock(self) -> None:
        """Learn how far the exchange's clock is ahead; raises ``VenueError``."""
        async with self._measuring:
            if trio.current_time() < self._clock_good_until:
                return
            best_ms = math.inf
            for _ in range(CLOCK_TRIES):  # the first one may have brought a connection about
                began_ms = self._clock_ms()
                told_ms = (await self._rest.get(self._product.time_path, _Time)).serverTime
                took_ms = self._clock_ms() - began_ms
                if took_ms < best_ms:
                    best_ms, self._ahead_ms = took_ms, told_ms - began_ms - took_ms // 2
                if took_ms <= CLOCK_ROUND_TRIP_MS:
                    break
            self._clock_good_until = trio.current_time() + CLOCK_S

    async def _symbols(
        self, endpoint: Endpoint, asked: Question, given: Mapping[str, str], address: str
    ) -> DoorAnswer | None:
        """What one copy says of the symbols; ``None`` where it does not list them all."""
        kept = await self._ask(endpoint, Question(asked.path, ()), address)
        async with self._cutting:
            if kept.body is not self._info_body:
                try:
                    self._info = await ExchangeInfo.read(kept.body)
                except VenueError as error:
                    raise refusals.of_venue(error) from error
                self._info_body = kept.body
            info = self._info
        assert info is not None
        if not given:
            body, rest = info.whole(self._now_ms())
            return _answered(body, rest=rest)
        found = info.of([given[SYMBOL]] if SYMBOL in given else listed(given[SYMBOLS]), self._now_ms())
        return None if found is None else _answered(found)

    async def _ask(self, endpoint: Endpoint, asked: Question, address: str) -> Kept:
        """An answer that is true now: a kept one, that of a question that is under way, or one of its own.

        Of one that was under way before, the answer may be older than what is true now: a book that its client has
        heard newer changes of, a candle that has closed since.
        """
        since = trio.current_time()
        while True:
            kept = self._answers.find(asked, trio.current_time())
            if kept is not None:
                return kept
            flight = self._asked.get(asked)
            if flight is None:
                if self._of_addresses[address] >= OF_AN_ADDRESS:
                    raise refusals.no_budget(1)
                flight = self._asked[asked] = _Asked()
                self._of_addresses[address] += 1
                self._nursery.start_soon(self._fetch, endpoint, asked, flight, address, name=f"{NAME} door")
            await flight.done.wait()
            if flight.failure is not None:
                raise copy(flight.failure)
            assert flight.kept is not None
            if flight.kept.good_until >= since:
                return flight.kept

    async def _fetch(self, endpoint: Endpoint, asked: Question, flight: _Asked, address: str) -> None:
        """Ask the exchange, in its address's turn."""
        try:
            async with AsyncExitStack() as stack:
                await self._wait_for_budget()
                with trio.move_on_after(TURN_S) as waiting:
                    await stack.enter_async_context(self._turns.turn(address))
                if waiting.cancelled_caught:
                    raise refusals.no_budget(self._rest.statistics().held_off_s)
                flight.kept = await self._fetched(endpoint, asked)
        except VenueError as error:
            flight.failure = refusals.of_venue(error)
        except Refusal as refusal:
            flight.failure = refusal
        finally:
            del self._asked[asked]
            self._of_addresses[address] -= 1
            if not self._of_addresses[address]:
                del self._of_addresses[address]
            flight.done.set()

    async def _wait_for_budget(self) -> None:
        with trio.move_on_after(0 if self._rest.statistics().held_off_s > PATIENCE_S else PATIENCE_S):
            while not self._rest.has_room:  # noqa: ASYNC110 - time brings it back, and tells nobody
                await trio.sleep(LOOK_S)
        if not self._rest.has_room:
            raise refusals.no_budget(self._rest.statistics().held_off_s)

    async def _fetched(self, endpoint: Endpoint, asked: Question) -> Kept:
        now, now_ms = trio.current_time(), self._now_ms()
        headers = {_UNIT: _MICROSECOND} if asked.is_in_microseconds else {}
        try:
            body = await self._rest.fetch(
                asked.path, dict(asked.parameters), headers=headers, most_bytes=endpoint.most_bytes
            )
        except VenueError as error:
            refusal = refusals.of_venue(error)
            if refusal.status != HTTPStatus.BAD_REQUEST:
                raise
            kept = Kept(refusal.body(), refusal.status, now + ERROR_S)
        else:
            kept = Kept(body, HTTPStatus.OK, now + await self._true_for_s(endpoint, asked, body, now_ms))
        if kept.good_until > trio.current_time():
            self._answers.keep(asked, kept)
        return kept

    async def _true_for_s(self, endpoint: Endpoint, asked: Question, body: bytes, now_ms: int) -> float:
        if endpoint.truth is Truth.CANDLES:  # whether one is closed, the exchange's clock says
            try:
                await self._measure_clock()
            except VenueError:
                return 0.0
            now_ms = min(now_ms, self._now_ms())
        return true_for_s(endpoint, asked, body, now_ms)


def _answered(body: bytes, status: int = HTTPStatus.OK, *, rest: bytes = b"") -> DoorAnswer:
    return DoorAnswer(status, body, {"Content-Type": _JSON}, rest)


def _weighed(used: int) -> dict[str, str]:
    return {"X-MBX-USED-WEIGHT": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}


def _refused(refusal: Refusal, headers: Mapping[str, str]) -> DoorAnswer:
    more = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return DoorAnswer(refusal.status, refusal.body(), {"Content-Type": _JSON, **headers, **more})
