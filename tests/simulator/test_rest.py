"""REST answers: they agree with the streams, page as the exchange pages, and refuse as it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from komas.simulator import payloads
from komas.simulator.book import Book
from komas.simulator.candles import MINUTE_MS
from komas.simulator.fixed_point import decimals
from komas.simulator.market import Market
from komas.simulator.options import Limits
from komas.simulator.player import SyntheticPlayer
from komas.simulator.rate_limits import BANNED, Ledger, Verdict
from komas.simulator.request_params import Call
from komas.simulator.rest import FUTURES_PREFIX, PREFIX, answered, weight
from komas.simulator.symbol_state import Pair
from komas.simulator.tape import spec_for

from .peer import START_MS, opened

PLAYER = SyntheticPlayer(("BTCUSDT", "ETHUSDT", "BIFIUSDT", "币安人生USDT"), 1, START_MS)
MARKET = PLAYER.market


def get(endpoint: str, lag_ms: int = 0, /, **parameters: Any) -> Any:
    """The decoded answer."""
    texts = {name: str(value) for name, value in parameters.items()}
    answer = answered(PREFIX + endpoint, Call(MARKET, texts, START_MS, lag_ms))
    found = json.loads(answer.body)
    if answer.status != 200:
        return answer.status, found["code"]
    return found


def test_the_small_ones() -> None:
    """Ping, time, prices and the best of the book."""
    assert get("ping") == {}
    assert get("time") == {"serverTime": START_MS}
    pair = MARKET.pairs["BTCUSDT"]
    assert float(get("ticker/price", symbol="BTCUSDT")["price"]) * 10**8 == pytest.approx(pair.trades[-1].price)
    assert [row["symbol"] for row in get("ticker/price")] == list(MARKET.pairs)
    best = get("ticker/bookTicker", symbols='["BTCUSDT","ETHUSDT"]')[0]
    depth = get("depth", symbol="BTCUSDT", limit=1)
    assert [best["bidPrice"], best["bidQty"]] == depth["bids"][0]
    assert [best["askPrice"], best["askQty"]] == depth["asks"][0]
    assert get("avgPrice", symbol="BIFIUSDT")["mins"] == 5


def test_exchange_info() -> None:
    """Symbols with status, assets and grids; non-ASCII ones too."""
    info = get("exchangeInfo")
    assert info["serverTime"] == START_MS
    assert [row["symbol"] for row in info["symbols"]] == list(MARKET.pairs)
    [row] = get("exchangeInfo", symbol="BTCUSDT")["symbols"]
    assert (row["status"], row["baseAsset"], row["quoteAsset"]) == ("TRADING", "BTC", "USDT")
    assert {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"}.items() <= row["filters"][0].items()
    assert get("exchangeInfo", symbolStatus="HALT")["symbols"] == []
    assert get("exchangeInfo", symbols='["BTCUSDT","NOPE"]') == (400, -1121)


def test_tickers() -> None:
    """FULL and MINI, one and all."""
    full = get("ticker/24hr", symbol="BTCUSDT")
    assert full["closeTime"] - full["openTime"] == 86_400_000
    assert full["lastId"] - full["firstId"] + 1 == full["count"]
    mini = get("ticker/24hr", symbol="BTCUSDT", type="MINI")
    assert set(mini) < set(full)
    assert "bidPrice" not in mini
    assert len(get("ticker/24hr")) == 4
    assert get("ticker/24hr", type="HUGE") == (400, -1130)


def test_a_rolling_window_has_any_width() -> None:
    """Clients asked for ``ticker``, and got 404; it agrees with the candles of its minutes."""
    full = get("ticker", symbol="BTCUSDT", windowSize="5m")
    assert full["closeTime"] == START_MS
    assert full["openTime"] == START_MS - 4 * MINUTE_MS
    rows = get("klines", symbol="BTCUSDT", interval="1m", startTime=full["openTime"])
    assert full["count"] == sum(row[8] for row in rows)
    assert (full["openPrice"], full["lastPrice"]) == (rows[0][1], rows[-1][4])
    assert "bidPrice" not in full
    assert set(get("ticker", symbol="BTCUSDT", type="MINI")) == set(get("ticker/24hr", symbol="BTCUSDT", type="MINI"))
    assert len(get("ticker", symbols='["BTCUSDT","ETHUSDT"]', windowSize="7d")) == 2
    assert get("ticker") == (400, -1128)
    for wrong in ("0m", "60m", "24h", "8d", "1w", "m", "5", "1e1m", "-1m", ""):
        assert get("ticker", symbol="BTCUSDT", windowSize=wrong) == (400, -1130)


def test_a_trading_day_is_its_candle() -> None:
    """In the zone that is asked for; to the end of the day, which has not come yet."""
    for zone in ("0", "8"):
        row = get("ticker/tradingDay", symbol="BTCUSDT", timeZone=zone)
        [candle] = get("klines", symbol="BTCUSDT", interval="1d", timeZone=zone, limit=1)
        assert [row["openTime"], row["openPrice"], row["highPrice"], row["lowPrice"], row["lastPrice"]] == candle[:5]
        assert (row["closeTime"], row["count"]) == (candle[6], candle[8])
    assert get("ticker/tradingDay") == (400, -1128)
    assert get("ticker/tradingDay", symbol="BTCUSDT", timeZone="x") == (400, -1130)


def test_rules_and_reference_prices() -> None:
    """What clients ask before an order: a range around the last price, in the exchange's words."""
    [row] = get("executionRules", symbol="BTCUSDT")["symbolRules"]
    [rule] = row["rules"]
    assert (row["symbol"], rule["ruleType"], rule["bidLimitMultUp"]) == ("BTCUSDT", "PRICE_RANGE", "1.15")
    assert len(get("executionRules")["symbolRules"]) == 4
    assert get("executionRules", symbolStatus="HALT")["symbolRules"] == []
    reference = get("referencePrice", symbol="BTCUSDT")
    assert reference["referencePrice"] == get("ticker/price", symbol="BTCUSDT")["price"]
    fresh = Market([Pair("NEWUSDT", Book())], START_MS)
    answer = answered(f"{PREFIX}referencePrice", Call(fresh, {"symbol": "NEWUSDT"}, START_MS))
    assert (answer.status, json.loads(answer.body)["code"]) == (400, -2043)


def test_what_futures_clients_ask_first() -> None:
    """Ping, time, and the mark price as its stream has it; not spot's calls under the futures' path."""

    def ask(endpoint: str, **parameters: str) -> Any:
        answer = answered(FUTURES_PREFIX + endpoint, Call(MARKET, parameters, START_MS))
        return json.loads(answer.body) if answer.status == 200 else answer.status

    assert ask("ping") == {}
    assert ask("time") == {"serverTime": START_MS}
    assert [row["symbol"] for row in ask("exchangeInfo")["symbols"]] == list(MARKET.pairs)
    pair = MARKET.pairs["BTCUSDT"]
    row = ask("premiumIndex", symbol="BTCUSDT")
    streamed = json.loads(payloads.mark_price("BTCUSDT", pair.mark_price, pair.last_price, MARKET.now_ms))
    assert (row["markPrice"], row["indexPrice"], row["lastFundingRate"]) == (
        streamed["p"],
        streamed["i"],
        streamed["r"],
    )
    assert (row["nextFundingTime"], row["time"]) == (streamed["T"], streamed["E"])
    assert [row["symbol"] for row in ask("premiumIndex")] == list(MARKET.pairs)
    assert ask("klines", symbol="BTCUSDT") == 404


def test_futures_are_contracts() -> None:
    """They had no ``contractType``: ccxt found spot's symbols there, and none that it could watch."""
    info = json.loads(answered(FUTURES_PREFIX + "exchangeInfo", Call(MARKET, {}, START_MS)).body)
    assert info["serverTime"] == START_MS
    row = next(row for row in info["symbols"] if row["symbol"] == "BTCUSDT")
    assert (row["contractType"], row["status"], row["marginAsset"]) == ("PERPETUAL", "TRADING", "USDT")
    assert (row["pricePrecision"], row["quantityPrecision"]) == (2, 5)
    assert row["filters"][0] == get("exchangeInfo", symbol="BTCUSDT")["symbols"][0]["filters"][0]
    assert row.keys().isdisjoint({"permissions", "isSpotTradingAllowed"})
    assert [each["asset"] for each in info["assets"]] == ["USDT"]
    whole = spec_for("DOGEUSDT")
    assert (decimals(whole.tick), decimals(whole.step)) == (5, 0)


def test_futures_have_volumes() -> None:
    """Symbols of the demo's futures had none: ``ticker/24hr`` was 404 there. No book is in it, as on the exchange."""

    def ask(**parameters: str) -> Any:
        answer = answered(FUTURES_PREFIX + "ticker/24hr", Call(MARKET, parameters, START_MS))
        return json.loads(answer.body)

    row, spot = ask(symbol="BTCUSDT"), get("ticker/24hr", symbol="BTCUSDT")
    assert float(row["quoteVolume"]) > 0
    assert row.items() <= spot.items()
    assert spot.keys() - row.keys() == {"prevClosePrice", "bidPrice", "bidQty", "askPrice", "askQty"}
    assert [each["symbol"] for each in ask()] == list(MARKET.pairs)
    assert ask(symbol="NOPE")["code"] == -1121
    assert weight(FUTURES_PREFIX + "ticker/24hr", {"symbol": "BTCUSDT"}) == 1
    assert weight(FUTURES_PREFIX + "ticker/24hr", {}) == 40


def test_candles_page_as_the_exchange_does() -> None:
    """Newest without bounds, oldest from a start, newest up to an end, never past both."""
    minute = START_MS - MINUTE_MS
    newest = get("klines", symbol="BTCUSDT", interval="1m", limit=3)
    assert [row[0] for row in newest] == [minute - MINUTE_MS, minute, START_MS]
    since = get("klines", symbol="BTCUSDT", interval="1m", startTime=minute - 10 * MINUTE_MS, limit=3)
    assert [row[0] for row in since] == [minute - n * MINUTE_MS for n in (10, 9, 8)]
    until = get("klines", symbol="BTCUSDT", interval="1m", endTime=minute, limit=2)
    assert [row[0] for row in until] == [minute - MINUTE_MS, minute]
    both = get("klines", symbol="BTCUSDT", interval="1m", startTime=minute, endTime=minute)
    assert [row[0] for row in both] == [minute]
    assert len(get("klines", symbol="BTCUSDT", interval="1m")) == 500
    assert len(get("klines", symbol="BTCUSDT", interval="1m", limit=5000)) == 1000


def test_candles_of_all_sizes_agree() -> None:
    """An hour is its minutes; empty minutes are there, flat."""
    hour = START_MS - 3_600_000
    minutes = get("klines", symbol="BIFIUSDT", interval="1m", startTime=hour, endTime=START_MS - 1)
    [whole] = get("klines", symbol="BIFIUSDT", interval="1h", startTime=hour, endTime=START_MS - 1)
    assert len(minutes) == 60
    assert whole[8] == sum(row[8] for row in minutes)
    assert (whole[1], whole[4]) == (next(row for row in minutes if row[8])[1], minutes[-1][4])
    assert any(row[8] == 0 and row[1] == row[2] == row[3] == row[4] for row in minutes)
    assert len(get("klines", symbol="BTCUSDT", interval="1d", limit=60)) == 60
    assert get("uiKlines", symbol="BTCUSDT", interval="1M")[-1][0] == START_MS


def test_the_zone_of_candles() -> None:
    """A day in +8 opens at 16:00 UTC."""
    assert get("klines", symbol="BTCUSDT", interval="1d", timeZone="8", limit=1)[0][0] == START_MS - 8 * 3_600_000
    assert get("klines", symbol="BTCUSDT", interval="1d", timeZone="-1:30", limit=1)[0][0] == START_MS - 81_000_000
    assert get("klines", symbol="BTCUSDT", interval="1d", timeZone="15") == (400, -1130)
    assert get("klines", symbol="BTCUSDT", interval="1d", timeZone="x") == (400, -1130)


def test_trades_and_aggregates_are_found_again() -> None:
    """``fromId`` is inclusive; pages join; times bound both ends."""
    pair = MARKET.pairs["BTCUSDT"]
    first = pair.aggregates[0].id
    page = get("aggTrades", symbol="BTCUSDT", fromId=first, limit=10)
    following = get("aggTrades", symbol="BTCUSDT", fromId=page[-1]["a"] + 1, limit=10)
    assert [row["a"] for row in page + following] == list(range(first, first + 20))
    assert following[0]["f"] == page[-1]["l"] + 1
    start, end = page[3]["T"], page[6]["T"]
    between = get("aggTrades", symbol="BTCUSDT", startTime=start, endTime=end)
    assert {row["T"] for row in between} <= set(range(start, end + 1))
    assert get("aggTrades", symbol="BTCUSDT", limit=1)[0]["a"] == pair.aggregates[-1].id
    assert get("aggTrades", symbol="BTCUSDT", endTime=end, limit=2)[-1]["T"] == end
    assert get("aggTrades", symbol="BTCUSDT", fromId=pair.aggregates[-1].id + 1) == []
    assert [row["id"] for row in get("trades", symbol="BTCUSDT", limit=2)] == [t.id for t in pair.trades[-2:]]
    assert get("historicalTrades", symbol="BTCUSDT", fromId=pair.trades[5].id, limit=1)[0]["id"] == pair.trades[5].id
    assert len(get("historicalTrades", symbol="BTCUSDT")) == 500


def test_the_database_lags() -> None:
    """The newest aggregates and candles are not there yet."""
    late = get("aggTrades", 10_000, symbol="BTCUSDT", limit=1)[0]
    assert late["T"] <= START_MS - 10_000
    assert get("klines", 10_000, symbol="BTCUSDT", interval="1m", limit=1)[0][0] == START_MS - MINUTE_MS


@pytest.mark.parametrize(
    ("endpoint", "parameters", "code"),
    [
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "BTCUSDT"}, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("klines", {"symbol": "btcusdt", "interval": "1m"}, -1121),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "0"}, -1130),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "ten"}, -1100),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": "5", "endTime": "4"}, -1128),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": "1", "startTime": "5"}, -1128),
        ("ticker/price", {"symbol": "BTCUSDT", "symbols": '["ETHUSDT"]'}, -1128),
        ("ticker/price", {"symbols": "BTCUSDT"}, -1100),
        ("ticker/price", {"symbols": '["BTCUSDT", 5]'}, -1121),
        ("depth", {"symbol": "NOPE"}, -1121),
    ],
)
def test_mistakes_have_the_exchanges_codes(endpoint: str, parameters: dict[str, str], code: int) -> None:
    """400 with a negative code."""
    assert get(endpoint, 0, **parameters) == (400, code)


@pytest.mark.parametrize("interval", ["1s", "1m", "1w", "1M"])
@pytest.mark.parametrize("at", [0, 1, START_MS + 10**9, 10**19])
def test_far_times_are_no_trouble(interval: str, at: int) -> None:
    """Before the first candle and after the last."""
    assert isinstance(get("klines", symbol="BTCUSDT", interval=interval, startTime=at), list)
    assert isinstance(get("klines", symbol="BTCUSDT", interval=interval, endTime=at), list)


@pytest.mark.parametrize("text", ["9" * 5000, "-", "1.5", "٣"])
def test_numbers_that_are_none(text: str) -> None:
    """Too long, too short, not whole, not ASCII."""
    assert get("klines", symbol="BTCUSDT", interval="1m", limit=text) == (400, -1100)


def test_deep_nesting_is_a_mistake() -> None:
    """Ten thousand brackets do not bring the double down."""
    assert get("ticker/price", symbols="[" * 10_000) == (400, -1100)


def test_what_is_not_there() -> None:
    """An unknown endpoint is 404."""
    assert get("nonsense") == (404, 0)


@pytest.mark.parametrize(
    ("endpoint", "parameters", "expected"),
    [
        ("ping", {}, 1),
        ("exchangeInfo", {}, 20),
        ("klines", {}, 2),
        ("aggTrades", {}, 4),
        ("depth", {}, 5),
        ("depth", {"limit": "500"}, 25),
        ("depth", {"limit": "9999"}, 250),
        ("ticker/24hr", {}, 80),
        ("ticker/24hr", {"symbol": "A"}, 2),
        ("ticker/24hr", {"symbols": '["A","B"]'}, 2),
        ("ticker/24hr", {"symbols": json.dumps(["A"] * 30)}, 40),
        ("ticker/price", {"symbol": "A"}, 2),
        ("ticker/price", {}, 4),
        ("ticker", {"symbol": "A"}, 4),
        ("ticker", {"symbols": '["A","B"]'}, 8),
        ("ticker/tradingDay", {"symbols": json.dumps(["A"] * 90)}, 200),
        ("executionRules", {"symbol": "A"}, 2),
        ("executionRules", {}, 40),
        ("nonsense", {}, 1),
    ],
)
def test_weights(endpoint: str, parameters: dict[str, str], expected: int) -> None:
    """What each call costs."""
    assert weight(PREFIX + endpoint, parameters) == expected


def test_the_ledger_escalates() -> None:
    """429 until the minute is over; whoever does not stop is banned, longer each time."""
    ledger = Ledger(10)
    assert ledger.charge("a", 10, 15.0) == Verdict(200, 10)
    assert ledger.charge("a", 1, 15.0) == Verdict(429, 11, 45)
    assert ledger.charge("b", 1, 15.0).status == 200
    assert ledger.charge("a", 1, 60.0) == Verdict(200, 1)
    for _ in range(10):
        assert ledger.charge("a", 100, 61.0).status == 429
    assert ledger.charge("a", 1, 61.0) == Verdict(BANNED, 1002, 120)
    assert ledger.charge("a", 1, 180.0) == Verdict(BANNED, 1002, 1)
    assert ledger.charge("a", 1, 181.0).status == 200
    for _ in range(10):
        ledger.charge("a", 100, 182.0)
    assert ledger.charge("a", 1, 182.0).retry_after_s == 240


async def test_limits_over_http(autojump_clock: trio.testing.MockClock) -> None:
    """Used weight is in every answer; too much is 429 with Retry-After, and then 418."""
    async with opened(PLAYER, limits=Limits(weight=50)) as world:
        status, _, head = await world.call("GET", "/api/v3/aggTrades?symbol=BTCUSDT&limit=1")
        assert (status, "x-mbx-used-weight-1m: 4" in head) == (200, True)
        await world.call("GET", "/api/v3/trades?symbol=BTCUSDT&limit=1")
        status, body, head = await world.call("GET", "/api/v3/trades?symbol=BTCUSDT&limit=1")
        assert (status, body["code"], "retry-after: 60" in head) == (429, -1003, True)
        for _ in range(10):
            status, _, head = await world.call("GET", "/api/v3/ping")
        assert (status, "retry-after: 120" in head) == (418, True)


async def test_spot_tells_the_weight_under_both_names_and_the_time(autojump_clock: trio.testing.MockClock) -> None:
    """UNICORN's depth cache reads ``X-MBX-USED-WEIGHT`` and ``Date``, and took no snapshot without them."""
    async with opened() as world:
        _, _, head = await world.call("GET", "/api/v3/ping")
        assert {"date: thu, 01 jan 2026 00:00:00 gmt", "x-mbx-used-weight: 1"} <= set(head.splitlines())
        _, _, head = await world.call("GET", "/fapi/v1/ping")
        assert "x-mbx-used-weight-1m: 1" in head  # counted by itself
        assert "x-mbx-used-weight: " not in head


async def test_microseconds_over_http(autojump_clock: trio.testing.MockClock) -> None:
    """A header asks for sixteen digits."""
    async with opened() as world:
        _, body, _ = await world.call("GET", "/api/v3/time", headers="X-MBX-TIME-UNIT: MICROSECOND\r\n")
        assert body == {"serverTime": START_MS * 1000}


async def test_only_get_is_served(autojump_clock: trio.testing.MockClock) -> None:
    """HEAD has no body, POST is refused, other paths are not found."""
    async with opened() as world:
        status, body, _ = await world.call("HEAD", "/api/v3/ping")
        assert (status, body) == (200, None)
        assert (await world.call("POST", "/api/v3/ping"))[0] == 405
        assert (await world.call("GET", "/fapi/v1/depth?symbol=BTCUSDT"))[0] == 404


async def test_http_that_is_none(autojump_clock: trio.testing.MockClock) -> None:
    """Nonsense, an endless body and a handshake without a key get 4xx and the end of the line."""
    async with opened() as world:
        for sent, expected in (
            (b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
            (
                b"POST /sim/faults HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_100_000,
                b"HTTP/1.1 413",
            ),
            (b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 400"),
        ):
            stream = await world.line()
            await stream.send_all(sent)
            received = b""
            while data := await stream.receive_some():
                received += data
            assert received.startswith(expected)


async def test_an_idle_line_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody keeps a line for nothing; one that is used is kept alive."""
    async with opened() as world:
        stream = await world.line()
        for _ in range(3):
            await stream.send_all(b"GET /api/v3/ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await trio.sleep(60)
        begun = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - begun == 15


async def test_a_body_that_waits_to_be_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """``Expect: 100-continue`` is answered."""
    async with opened() as world:
        stream = await world.line()
        await stream.send_all(
            b"POST /sim/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"[]")
        assert b'{"accepted":0}' in await stream.receive_some()
