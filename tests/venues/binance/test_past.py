"""Past candles and trades: asked once for all who want the same, kept as long as they are true."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from komas.errors import VenueError
from komas.model.kinds import Kind
from komas.model.market import Kline, Trade
from komas.model.streams import Stream
from komas.venues.binance.past import FRESH_S, KEPT_EVENTS, KEPT_S, SKEW_MS, PastEvents
from komas.venues.core.rest import open_rest

MINUTE = 60_000
NOW_MS = 1_770_000_000_000 // MINUTE * MINUTE + 30_000  # half a minute after a candle has opened
CANDLES = Stream.of(Kind.KLINE, "BTCUSDT", "1m")
TRADES = Stream.of(Kind.TRADE, "BTCUSDT")


class _Exchange:
    """Answers candles up to the one that is open, or what the test says."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.takes_s = 0.0
        self.now_ms = NOW_MS
        self.body: Callable[[dict[str, str]], object] = self.candles

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v3/time":
            return httpx.Response(200, content=json.dumps({"serverTime": self.now_ms}))
        self.asked.append(dict(request.url.params))
        await trio.sleep(self.takes_s)
        body = self.body(dict(request.url.params))
        return body if isinstance(body, httpx.Response) else httpx.Response(200, content=json.dumps(body))

    def candles(self, asked: dict[str, str]) -> object:
        last = min(int(asked.get("endTime", NOW_MS)), NOW_MS) // MINUTE * MINUTE
        opens = range(last - (int(asked["limit"]) - 1) * MINUTE, last + 1, MINUTE)
        return [[at, "1.10", "2.0", "0.5", "1.50", "7.000", at + MINUTE - 1, "9.0", 3, "0", "0", "0"] for at in opens]


@asynccontextmanager
async def _past(now_ms: int = NOW_MS) -> AsyncIterator[tuple[PastEvents, _Exchange]]:
    exchange = _Exchange()
    transport = httpx.MockTransport(exchange.answer)
    async with open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest:
        yield PastEvents(rest, lambda: now_ms), exchange


async def test_the_last_candle_is_open_until_its_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """Those before it are closed, oldest first, with the exchange's digits."""
    async with _past() as (past, exchange):
        found = await past.latest(CANDLES, 3, reader="a")
        assert all(isinstance(event, Kline) for event in found)
        assert [(event.timestamp, event["is_closed"]) for event in found] == [
            (NOW_MS // MINUTE * MINUTE - back * MINUTE, back > 0) for back in (2, 1, 0)
        ]
        assert str(found[0]["open"]) == "1.10"
        assert exchange.asked == [{"symbol": "BTCUSDT", "limit": "3", "interval": "1m"}]


@pytest.mark.parametrize(("ahead_ms", "is_closed"), [(30_000, False), (30_000 + SKEW_MS, True)])
async def test_a_clock_that_is_ahead_closes_no_candle(
    autojump_clock: trio.testing.MockClock, *, ahead_ms: int, is_closed: bool
) -> None:
    """What passes for final may still change at the exchange for some seconds of ours."""
    async with _past(NOW_MS + ahead_ms) as (past, exchange):
        exchange.now_ms += ahead_ms
        (last,) = await past.latest(CANDLES, 1, reader="a")
        assert last["is_closed"] is is_closed


async def test_the_newest_candle_of_a_replay_is_open(autojump_clock: trio.testing.MockClock) -> None:
    """It was closed by our clock, for the exchange's was years behind: a chart took no live candle in its place."""
    async with _past(NOW_MS + 365 * 24 * 60 * MINUTE) as (past, _):
        before, last = await past.latest(CANDLES, 2, reader="a")
        assert (before["is_closed"], last["is_closed"]) == (True, False)


async def test_who_asks_the_same_at_the_same_time_waits_for_one_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A hundred readers of one chart; what is about now is good for a second, what is over for minutes."""
    async with _past() as (past, exchange):
        exchange.takes_s = 0.5
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(partial(past.latest, CANDLES, 3, reader=f"reader {number}"))
        assert len(exchange.asked) == 1
        await trio.sleep(FRESH_S)
        await past.latest(CANDLES, 3, reader="a")
        assert len(exchange.asked) == 2
        for _ in range(5):
            await past.latest(CANDLES, 3, end_ms=NOW_MS - 10 * MINUTE, reader="a")
            await trio.sleep(KEPT_S / 6)
        assert len(exchange.asked) == 3


async def test_a_reader_that_leaves_takes_nothing_from_those_who_wait_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One of them asks again."""
    async with _past() as (past, exchange), trio.open_nursery() as nursery:
        exchange.takes_s = 5
        found: list[int] = []

        async def stay() -> None:
            found.append(len(await past.latest(CANDLES, 3, reader="b")))

        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await past.latest(CANDLES, 3, reader="a")

        nursery.start_soon(leave)
        await trio.sleep(1)
        nursery.start_soon(stay)
        await trio.sleep(1)
        leaving.cancel()
        await trio.sleep(6)
        assert found == [3]


async def test_a_failure_is_one_for_all_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    """They are told, and do not ask one after another."""
    async with _past() as (past, exchange), trio.open_nursery() as nursery:
        exchange.takes_s = 5
        exchange.body = lambda _: httpx.Response(500, content=b"{}")
        failures = 0

        async def ask() -> None:
            nonlocal failures
            with pytest.raises(VenueError, match="HTTP 500"):
                await past.latest(CANDLES, 3, reader="a")
            failures += 1

        for _ in range(20):
            nursery.start_soon(ask)
        await trio.sleep(6)
        assert (failures, len(exchange.asked)) == (20, 1)


async def test_trades_come_oldest_first(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever the order of the answer."""
    async with _past() as (past, exchange):
        rows = [
            {"id": number, "price": "61840.10", "qty": "0.50", "time": 5, "isBuyerMaker": True} for number in (8, 7, 9)
        ]
        exchange.body = lambda _: rows
        found = await past.latest(TRADES, 3, reader="a")
        assert [event.trade_id for event in found if isinstance(event, Trade)] == [7, 8, 9]


@pytest.mark.parametrize(
    "body",
    [
        {"code": -1},
        [[1]],
        [[NOW_MS, "NaN", "2", "0.5", "1", "7", 1, "9", 3]],
        [[NOW_MS, "1", "2", "0.5", "1", "7", 1, "9", 3]] * 4,
    ],
    ids=["no list", "short rows", "no price", "more than asked for"],
)
async def test_nonsense_is_the_exchanges_fault(body: object, autojump_clock: trio.testing.MockClock) -> None:
    """Told in words, and nothing of it is kept."""
    async with _past() as (past, exchange):
        exchange.body = lambda _: body
        with pytest.raises(VenueError, match="/api/v3/klines answered"):
            await past.latest(CANDLES, 3, reader="a")
        exchange.body = exchange.candles
        assert len(await past.latest(CANDLES, 3, reader="a")) == 3


async def test_what_is_kept_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """The answers that nobody asked for longest go first."""
    async with _past() as (past, exchange):
        last = NOW_MS - 10 * MINUTE
        for back in range(KEPT_EVENTS // 1000 + 10):
            await past.latest(CANDLES, 1000, end_ms=last - back * 1000 * MINUTE, reader="a")
            await past.latest(CANDLES, 1000, end_ms=last, reader="a")
        asked = len(exchange.asked)
        await past.latest(CANDLES, 1000, end_ms=last, reader="a")
        assert len(exchange.asked) == asked
        await past.latest(CANDLES, 1000, end_ms=last - 1000 * MINUTE, reader="a")
        assert len(exchange.asked) == asked + 1
