"""Binance's REST interface at komas: one question for all, the exchange's own bytes, and no client pays for another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing

from komas.venues.binance.door.endpoints import SPOT
from komas.venues.binance.door.rest_door import BOTS_OF_AN_ADDRESS, OF_AN_ADDRESS, PATIENCE_S, BinanceDoor
from komas.venues.core.door import DoorAnswer, DoorRequest
from komas.venues.core.rest import TIMEOUT_S, open_rest

NOW_MS = 1_796_078_640_000 + 30_000
MINUTE = 60_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=2"


def now_ms() -> int:
    """The exchange's clock."""
    return NOW_MS + round(trio.current_time() * 1000)


class _Exchange:
    """Answers with a counter in each body, so that two answers are never the same."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.headers: list[httpx.Headers] = []
        self.takes_s = 0.1
        self.says: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None

    @property
    def calls(self) -> int:
        """Those for data."""
        return sum(count for path, count in self.asked.items() if not path.endswith("/time"))

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked[path] += 1
        self.headers.append(request.headers)
        await trio.sleep(self.takes_s if not path.endswith("/time") else 0.02)
        if (said := self.says(request)) is not None:
            return said
        if path.endswith("/time"):
            return httpx.Response(200, json={"serverTime": now_ms()})
        if path.endswith("/klines"):
            opens = now_ms() // MINUTE * MINUTE
            rows = [[at, "1.10", "2", "1", "1.50", "7", at + MINUTE - 1, "9", 3] for at in (opens - MINUTE, opens)]
            return httpx.Response(200, json=rows)
        if path.endswith("/exchangeInfo"):
            listed = [{"status": "TRADING", "symbol": symbol} for symbol in SYMBOLS]
            body = {"timezone": "UTC", "serverTime": 1, "rateLimits": [], "symbols": listed, "sors": []}
            return httpx.Response(200, json=body)
        return httpx.Response(200, content=b'{"answer": %d,  "as": "it came"}' % self.asked[path])


@asynccontextmanager
async def _door(*, ahead_ms: int = 0) -> AsyncIterator[tuple[BinanceDoor, _Exchange]]:
    exchange = _Exchange()
    transport = httpx.MockTransport(exchange.answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        yield BinanceDoor([rest, rest], lambda: now_ms() + ahead_ms, nursery), exchange
        nursery.cancel_scope.cancel()


async def ask(door: BinanceDoor, target: str, *, client: str = "a", method: str = "GET", **headers: str) -> DoorAnswer:
    """One call."""
    path, _, query = target.partition("?")
    answer = await door.answer(DoorRequest(method, path, query.encode(), headers, client.partition(":")[0], client))
    return DoorAnswer(answer.status, answer.body + answer.rest, answer.headers)


def code_of(answer: DoorAnswer) -> int:
    """That of an error."""
    code: int = json.loads(answer.body)["code"]
    return code


async def test_many_who_ask_the_same_are_one_question(autojump_clock: trio.testing.MockClock) -> None:
    """Fifty at once, and whoever comes while it is true; each is answered with the exchange's own bytes."""
    async with _door() as (door, exchange):
        found: list[DoorAnswer] = []

        async def one(number: int) -> None:
            found.append(await ask(door, KLINES, client=f"10.0.0.{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        found.append(await ask(door, KLINES))
        assert exchange.calls == 1
        assert len({answer.body for answer in found}) == 1
        assert {answer.status for answer in found} == {200}
        await trio.sleep(2.1)
        await ask(door, KLINES)
        assert exchange.calls == 2


async def test_the_candle_that_is_open_is_not_kept_beyond_its_end(autojump_clock: trio.testing.MockClock) -> None:
    """200 ms after the boundary the last row is the candle that has begun."""
    async with _door() as (door, _):
        await trio.sleep(29)
        closing = json.loads((await ask(door, KLINES)).body)
        await trio.sleep(1.1)
        opened = json.loads((await ask(door, KLINES)).body)
        assert opened[-1][0] == closing[-1][0] + MINUTE


async def test_an_answer_that_was_under_way_at_the_boundary_is_not_for_who_asks_behind_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its last row is a candle that has closed since; freqtrade would drop it."""
    async with _door() as (door, exchange):
        await ask(door, "/api/v3/time")
        exchange.takes_s = 0.0
        rows = json.loads((await ask(door, KLINES)).body)
        closes_s = (rows[-1][6] + 1 - now_ms()) / 1000
        await trio.sleep(closes_s - 0.05)
        old = httpx.Response(200, json=rows)

        def answer_late(request: httpx.Request) -> httpx.Response | None:
            exchange.says = lambda _: None
            return old

        exchange.says, exchange.takes_s = answer_late, 0.2
        found: list[int] = []

        async def one(after_s: float) -> None:
            await trio.sleep(after_s)
            found.append(json.loads((await ask(door, KLINES)).body)[-1][0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 0)
            nursery.start_soon(one, 0.1)
        assert found == [rows[-1][0], rows[-1][0] + MINUTE]


@pytest.mark.parametrize("ahead_ms", [-600_000, 600_000])
async def test_a_clock_of_ours_that_is_wrong_keeps_no_open_candle(
    autojump_clock: trio.testing.MockClock, ahead_ms: int
) -> None:
    """The exchange's clock says what is over."""
    async with _door(ahead_ms=ahead_ms) as (door, exchange):
        target = f"{KLINES}&endTime={now_ms() + 1}"
        await ask(door, target)
        await trio.sleep(3)
        await ask(door, target)
        assert exchange.asked["/api/v3/klines"] == 2


async def test_the_time_is_the_exchanges(autojump_clock: trio.testing.MockClock) -> None:
    """Within 50 ms, though our clock is wrong; it is measured once in a while."""
    async with _door(ahead_ms=123_456) as (door, exchange):
        for _ in range(5):
            told = json.loads((await ask(door, "/api/v3/time")).body)["serverTime"]
            assert abs(told - now_ms()) <= 50
            await trio.sleep(7)
        assert exchange.asked["/api/v3/time"] == 1
        micro = await ask(door, "/api/v3/time", **{"x-mbx-time-unit": "MICROSECOND"})
        assert json.loads(micro.body)["serverTime"] // 1000 - now_ms() in range(-50, 51)


async def test_a_book_is_never_older_than_the_question(autojump_clock: trio.testing.MockClock) -> None:
    """Its client may have heard of newer changes: what was under way before is not good enough."""
    async with _door() as (door, exchange):
        found: dict[str, int] = {}

        async def one(name: str, after_s: float) -> None:
            await trio.sleep(after_s)
            found[name] = json.loads((await ask(door, "/api/v3/depth?symbol=BTCUSDT")).body)["answer"]

        async with trio.open_nursery() as nursery:
            for name, after_s in (("first", 0.0), ("second", 0.05), ("third", 0.06)):
                nursery.start_soon(one, name, after_s)
        assert found == {"first": 1, "second": 2, "third": 2}
        assert exchange.calls == 2


async def test_what_the_exchange_says_no_with_is_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    """Its code and its words; the same mistake again costs nothing for a moment."""
    async with _door() as (door, exchange):
        exchange.says = lambda _: httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."})
        for _ in range(3):
            answer = await ask(door, "/api/v3/avgPrice?symbol=NOPE")
            assert (answer.status, answer.body) == (400, b'{"code":-1121,"msg":"Invalid symbol."}')
        assert exchange.calls == 1
        exchange.says = lambda _: httpx.Response(451, content=b"<html>")
        answer = await ask(door, "/api/v3/avgPrice?symbol=OTHER")
        assert (answer.status, code_of(answer)) == (451, -1000)


@pytest.mark.parametrize("status", [429, 418])
async def test_a_ban_is_told_and_nothing_more_is_asked(autojump_clock: trio.testing.MockClock, status: int) -> None:
    """429 with -1003 and how long, as JSON, for it is not the client that is banned; errors are not kept as answers."""
    async with _door() as (door, exchange):
        banned = httpx.Response(status, headers={"Retry-After": "30"}, json={"code": -1003, "msg": "Too many"})
        exchange.says = lambda _: banned
        for target in (KLINES, KLINES, "/api/v3/depth?symbol=BTCUSDT"):
            answer = await ask(door, target)
            assert (answer.status, code_of(answer)) == (429, -1003)
            assert 25 <= int(answer.headers["Retry-After"]) <= 30
            assert answer.headers["Content-Type"].startswith("application/json")
        assert exchange.calls == 1
        exchange.says = lambda _: None
        await trio.sleep(31)
        assert (await ask(door, KLINES)).status == 200


async def test_without_budget_a_client_hears_so_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """Official clients ask four times where they wait for longer; what is known is still answered."""
    async with _door() as (door, exchange):
        exchange.says = lambda request: (
            httpx.Response(200, headers={"w": "4000"}, json={}) if "avgPrice" in request.url.path else None
        )
        assert (await ask(door, "/api/v3/avgPrice?symbol=BTCUSDT")).status == 200
        began = trio.current_time()
        answer = await ask(door, "/api/v3/trades?symbol=BTCUSDT")
        assert (answer.status, code_of(answer), answer.headers["Retry-After"]) == (429, -1003, "1")
        assert trio.current_time() - began <= PATIENCE_S + 0.01
        assert exchange.asked["/api/v3/trades"] == 0


@pytest.mark.parametrize("failing", ["silent", "cut", "odd"])
async def test_a_road_that_fails_is_an_error_in_the_exchanges_words(
    autojump_clock: trio.testing.MockClock, failing: str
) -> None:
    """After ten seconds at most; nothing hangs and nothing is invented."""
    async with _door() as (door, exchange):

        def fail(_request: httpx.Request) -> httpx.Response:
            if failing == "cut":
                raise httpx.ReadError("cut")
            return httpx.Response(502, content=b"<html>bad gateway</html>")

        if failing == "silent":
            exchange.takes_s = 1000
        else:
            exchange.says = fail
        began = trio.current_time()
        answer = await ask(door, KLINES)
        assert (answer.status, code_of(answer)) == ((502, -1000) if failing == "odd" else (503, -1001))
        assert trio.current_time() - began <= TIMEOUT_S + 1


async def test_weights_are_those_that_each_client_would_see_alone(autojump_clock: trio.testing.MockClock) -> None:
    """By address and minute; who has used up its own is refused, for the rest of the minute, and nobody else."""
    async with _door() as (door, _):
        used = []
        for target in (KLINES, KLINES, "/api/v3/depth?symbol=BTCUSDT&limit=1000", "/api/v3/nothing", "/api/v3/ping"):
            answer = await ask(door, target)
            assert answer.headers["X-MBX-USED-WEIGHT"] == answer.headers["X-MBX-USED-WEIGHT-1M"]
            used.append(int(answer.headers["X-MBX-USED-WEIGHT-1M"]))
        assert used == [2, 4, 54, 55, 56]
        assert (await ask(door, KLINES, client="b")).headers["X-MBX-USED-WEIGHT-1M"] == "2"
        answer = await ask(door, "/api/v3/ticker/24hr")
        while int(answer.headers["X-MBX-USED-WEIGHT-1M"]) <= SPOT.weight_per_minute:
            assert answer.status == 200
            answer = await ask(door, "/api/v3/ticker/24hr")
        assert (answer.status, code_of(answer)) == (429, -1003)
        assert 0 < int(answer.headers["Retry-After"]) <= 30
        assert (await ask(door, KLINES, client="b")).status == 200
        await trio.sleep(30)
        assert (await ask(door, KLINES)).headers["X-MBX-USED-WEIGHT-1M"] == "2"


async def test_bots_of_one_address_have_a_minute_each(autojump_clock: trio.testing.MockClock) -> None:
    """They share a machine, or a proxy; and however many there are, an address has an end."""
    async with _door() as (door, _):
        target = "/api/v3/ticker/24hr"
        found: Counter[int] = Counter()
        for bot in range(BOTS_OF_AN_ADDRESS + 5):
            for _ in range(SPOT.weight_per_minute // 80):
                found[(await ask(door, target, client=f"10.0.0.1:{bot}")).status] += 1
        assert found == {200: 20 * 75, 429: 5 * 75}
        assert (await ask(door, target, client="10.0.0.2:1")).status == 200


async def test_a_start_of_many_bots_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    """Each asks for the candles of its ten pairs at once; three hundred pairs in all, from one address."""
    async with _door() as (door, exchange):
        found: Counter[int] = Counter()

        async def one(bot: int, pair: int) -> None:
            target = f"/api/v3/klines?symbol=S{pair}&interval=1m&limit=1000"
            found[(await ask(door, target, client=f"10.0.0.1:{bot}")).status] += 1

        async with trio.open_nursery() as nursery:
            for bot in range(60):
                for pair in range(10):
                    nursery.start_soon(one, bot, bot % 30 * 10 + pair)
        assert found == {200: 600}
        assert exchange.asked["/api/v3/klines"] == 300


async def test_symbols_are_asked_for_once_a_minute_whoever_wants_which(autojump_clock: trio.testing.MockClock) -> None:
    """All of them, one, or some; in the exchange's order and words, with its present time."""
    async with _door() as (door, exchange):
        path = "/api/v3/exchangeInfo"
        bodies = [
            json.loads((await ask(door, path + query)).body)
            for query in ("", "?symbol=ETHUSDT", '?symbols=["%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT","BTCUSDT"]')
        ]
        found = [[listed["symbol"] for listed in body["symbols"]] for body in bodies]
        assert found == [list(SYMBOLS), ["ETHUSDT"], ["BTCUSDT", "币安人生USDT"]]
        for body in bodies:
            assert list(body) == ["timezone", "serverTime", "rateLimits", "symbols", "sors"]
            assert abs(body["serverTime"] - now_ms()) < 1000
        assert exchange.asked[path] == 1
        await trio.sleep(61)
        await ask(door, path)
        assert exchange.asked[path] == 2


async def test_a_symbol_that_the_copy_lacks_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """It may have been listed a moment ago."""
    async with _door() as (door, exchange):
        await ask(door, "/api/v3/exchangeInfo")
        exchange.says = lambda _: httpx.Response(200, json={"symbols": [{"symbol": "NEWUSDT"}]})
        answer = await ask(door, "/api/v3/exchangeInfo?symbol=NEWUSDT")
        assert (answer.status, exchange.asked["/api/v3/exchangeInfo"]) == (200, 2)
        exchange.says = lambda _: httpx.Response(200, content=b"[]")
        await trio.sleep(61)
        assert (await ask(door, "/api/v3/exchangeInfo")).status == 503


async def test_who_gives_up_and_comes_again_finds_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The question is asked to its end."""
    async with _door() as (door, exchange):
        exchange.takes_s = 1.5
        with trio.move_on_after(1):
            await ask(door, KLINES)
        await trio.sleep(0.7)
        began = trio.current_time()
        assert (await ask(door, KLINES)).status == 200
        assert trio.current_time() == began
        assert exchange.asked["/api/v3/klines"] == 1


async def test_one_client_does_not_take_all_turns(autojump_clock: trio.testing.MockClock) -> None:
    """Who asks for everything at once waits for its own; others do not."""
    async with _door() as (door, _):
        found: Counter[int] = Counter()

        async def greedy(number: int) -> None:
            found[(await ask(door, f"/api/v3/avgPrice?symbol=S{number}", client="greedy")).status] += 1

        async with trio.open_nursery() as nursery:
            for number in range(OF_AN_ADDRESS + 50):
                nursery.start_soon(greedy, number)
            await trio.sleep(0.01)
            with trio.fail_after(0.5):
                assert (await ask(door, "/api/v3/avgPrice?symbol=MINE", client="modest")).status == 200
        assert found == {200: OF_AN_ADDRESS, 429: 50}
        assert (await ask(door, "/api/v3/avgPrice?symbol=LATER", client="greedy")).status == 200


async def test_keys_are_neither_needed_nor_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    """Official clients send an empty one with public calls."""
    async with _door() as (door, exchange):
        assert (await ask(door, KLINES, **{"x-mbx-apikey": "SECRET"})).status == 200
        assert (await ask(door, "/api/v3/order?signature=SECRET", method="POST")).status == 403
        assert (await ask(door, "/sapi/v1/account", **{"x-mbx-apikey": "SECRET"})).status == 403
        assert not any("SECRET" in value for headers in exchange.headers for value in headers.values())


async def test_microseconds_are_another_question(autojump_clock: trio.testing.MockClock) -> None:
    """With the header that asks for them."""
    async with _door() as (door, exchange):
        await ask(door, "/api/v3/avgPrice?symbol=BTCUSDT")
        await ask(door, "/api/v3/avgPrice?symbol=BTCUSDT", **{"x-mbx-time-unit": "MICROSECOND"})
        assert exchange.asked["/api/v3/avgPrice"] == 2
        assert exchange.headers[-1]["x-mbx-time-unit"] == "MICROSECOND"


async def test_each_product_is_asked_at_its_own_host(autojump_clock: trio.testing.MockClock) -> None:
    """And counted by itself; a product that komas has not is not there."""
    async with _door() as (door, exchange):
        await ask(door, KLINES)
        answer = await ask(door, "/fapi/v1/openInterest?symbol=BTCUSDT")
        assert (answer.status, answer.headers["X-MBX-USED-WEIGHT-1M"]) == (200, "1")
        assert exchange.asked["/fapi/v1/openInterest"] == 1
        answer = await ask(door, "/dapi/v1/ping")
        assert (answer.status, code_of(answer)) == (404, -5000)
