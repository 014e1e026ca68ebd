"""What may be asked at the door, what it weighs, and what the exchange would say no with."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from komas.venues.binance.door import endpoints
from komas.venues.binance.door.endpoints import SPOT, USD_M, Product, Question, endpoint_of, listed, question
from komas.venues.binance.door.refusals import Refusal


def symbols(count: int) -> str:
    """A list of so many, as it stands in a query."""
    return json.dumps([f"S{number}" for number in range(count)], separators=(",", ":"))


def ask(product: Product, path: str, query: str = "", method: str = "GET") -> Question:
    """What a call asks."""
    endpoint = endpoint_of(product, method, path, query.encode())
    return question(endpoint, path, query.encode(), is_in_microseconds=False)


def weigh(product: Product, path: str, query: str = "") -> int:
    """What it weighs."""
    asked = ask(product, path, query)
    return endpoint_of(product, "GET", path, b"").weigh(dict(asked.parameters))


@pytest.mark.parametrize(
    ("path", "query", "code", "words"),
    [
        ("klines", "symbol=btcusdt&interval=1m", -1100, "Illegal characters found in parameter 'symbol'"),
        ("klines", "symbol=BTC%20USDT&interval=1m", -1100, "Illegal characters found in parameter 'symbol'"),
        ("klines", "symbol=BTCUSDT&interval=7m", -1120, "Invalid interval."),
        ("klines", "interval=1m", -1102, "Mandatory parameter 'symbol' was not sent"),
        ("klines", "symbol=&interval=1m", -1102, "Mandatory parameter 'symbol' was not sent"),
        ("klines", "symbol=BTCUSDT&interval=1m&limit=", -1105, "Parameter 'limit' was empty."),
        ("ticker/price", "symbol=", -1105, "Parameter 'symbol' was empty."),
        ("klines", "symbol=BTCUSDT", -1102, "Mandatory parameter 'interval' was not sent"),
        ("klines", "symbol=BTCUSDT&interval=1m&limit=x", -1100, "Illegal characters found in parameter 'limit'"),
        ("klines", "symbol=BTCUSDT&interval=1m&startTime=-1", -1100, "parameter 'startTime'"),
        ("klines", "symbol=BTCUSDT&interval=1m&color=red", -1104, "read '2' parameter(s) but was sent '3'"),
        ("klines", "symbol=BTCUSDT&symbol=BTCUSDT&interval=1m", -1101, "Duplicate values"),
        ("ticker/price", 'symbols=["BTCUSDT","BTCUSDT"]', -1151, "Symbol is present multiple times in the list."),
        ("ticker/price", 'symbols=["BTCUSDT", "ETHUSDT"]', -1100, "parameter 'symbols'"),
        ("ticker/price", 'symbols=["btcusdt"]', -1100, "parameter 'symbols'"),
        ("ticker/price", "symbols=BTCUSDT", -1100, "parameter 'symbols'"),
        ("ticker/price", 'symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128, "Send either 'symbol' or 'symbols'."),
        ("ticker", f"symbols={symbols(101)}",
         -1101, "Too many values sent for parameter 'symbols', maximum allowed up to 100."),
        ("ticker/price", f"symbols={'x' * 20_000}", -1100, "parameter 'symbols'"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_the_exchanges_code_and_words(path: str, query: str, code: int, words: str) -> None:
    """Clients match on both."""
    with pytest.raises(Refusal) as refused:
        ask(SPOT, f"/api/v3/{path}", query)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("product", "method", "path", "query", "status", "code"),
    [
        (SPOT, "POST", "/api/v3/order", "symbol=BTCUSDT", 403, -2015),
        (SPOT, "GET", "/api/v3/openOrders", "", 403, -2015),
        (SPOT, "POST", "/api/v3/order/test", "", 403, -2015),
        (SPOT, "POST", "/api/v3/userDataStream", "", 403, -2015),
        (SPOT, "GET", "/api/v3/klines", "symbol=BTCUSDT&interval=1m&signature=ab", 403, -2015),
        (USD_M, "GET", "/fapi/v3/account", "", 403, -2015),
        (USD_M, "POST", "/fapi/v1/listenKey", "", 403, -2015),
        (USD_M, "GET", "/fapi/v1/historicalTrades", "symbol=BTCUSDT", 403, -2015),
        (SPOT, "POST", "/api/v3/klines", "", 404, -5000),
        (SPOT, "GET", "/api/v3/nothing", "", 404, -5000),
        (USD_M, "GET", "/fapi/v1/nothing", "", 404, -5000),
        (USD_M, "GET", "/fapi/v2/klines", "", 404, -5000),
        (USD_M, "GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=7", 400, -4021),
    ],
)
def test_what_is_not_here_says_so(product: Product, method: str, path: str, query: str, status: int, code: int) -> None:
    """A call for one account goes to the exchange itself."""
    with pytest.raises(Refusal) as refused:
        ask(product, path, query, method)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_three_ways_to_write_a_list_are_one_question() -> None:
    """The official client, npm's, and python-binance."""
    ways = ("%5B%22BTCUSDT%22%2C%22ETHUSDT%22%5D", "[%22BTCUSDT%22,%22ETHUSDT%22]", '["BTCUSDT","ETHUSDT"]')
    asked = {ask(SPOT, "/api/v3/ticker/price", f"symbols={way}") for way in ways}
    assert len(asked) == 1
    assert listed(dict(asked.pop().parameters)["symbols"]) == ["BTCUSDT", "ETHUSDT"]
    assert listed("[]") == []


def test_the_order_of_parameters_asks_nothing_else() -> None:
    """Answers are shared."""
    one, other = "symbol=BTCUSDT&interval=1m&limit=5", "limit=5&interval=1m&symbol=BTCUSDT"
    assert ask(SPOT, "/api/v3/klines", one) == ask(SPOT, "/api/v3/klines", other)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "1000SATSUSDT", "币安人生USDT", "BTCUSDT_261225"])
def test_every_symbol_of_the_exchange_may_be_asked_for(symbol: str) -> None:
    """Also one with letters that are not Latin."""
    asked = ask(SPOT, "/api/v3/avgPrice", f"symbol={quote(symbol)}")
    assert dict(asked.parameters) == {"symbol": symbol}


@pytest.mark.parametrize(
    ("product", "path", "query", "weight"),
    [
        (SPOT, "/api/v3/depth", "symbol=A", 5),
        (SPOT, "/api/v3/depth", "symbol=A&limit=101", 25),
        (SPOT, "/api/v3/depth", "symbol=A&limit=1000", 50),
        (SPOT, "/api/v3/depth", "symbol=A&limit=9999", 250),
        (SPOT, "/api/v3/klines", "symbol=A&interval=1m&limit=1500", 2),
        (SPOT, "/api/v3/trades", "symbol=A", 25),
        (SPOT, "/api/v3/exchangeInfo", "", 20),
        (SPOT, "/api/v3/ticker/24hr", "symbol=A", 2),
        (SPOT, "/api/v3/ticker/24hr", 'symbols=["A","B"]', 2),
        (SPOT, "/api/v3/ticker/24hr", f"symbols={symbols(21)}", 40),
        (SPOT, "/api/v3/ticker/24hr", "", 80),
        (SPOT, "/api/v3/ticker", 'symbols=["A","B","C"]', 12),
        (SPOT, "/api/v3/ticker/price", "symbol=A", 2),
        (SPOT, "/api/v3/ticker/price", "", 4),
        (SPOT, "/api/v3/executionRules", "", 40),
        (USD_M, "/fapi/v1/klines", "symbol=A&interval=1m&limit=99", 1),
        (USD_M, "/fapi/v1/klines", "symbol=A&interval=1m&limit=1500", 10),
        (USD_M, "/fapi/v1/klines", "symbol=A&interval=1m", 5),
        (USD_M, "/fapi/v1/depth", "symbol=A&limit=50", 2),
        (USD_M, "/fapi/v1/aggTrades", "symbol=A", 20),
        (USD_M, "/fapi/v1/ticker/24hr", "", 40),
        (USD_M, "/fapi/v1/premiumIndex", "symbol=A", 1),
    ],
)  # fmt: skip
def test_weights_are_the_exchanges(product: Product, path: str, query: str, weight: int) -> None:
    """binance-spot-api-docs, rest-api.md, and the USD-M connector."""
    assert weigh(product, path, query) == weight


def test_every_row_can_be_asked() -> None:
    """What a call needs is among what it reads."""
    for product in endpoints.PRODUCTS:
        for name, endpoint in product.endpoints.items():
            assert set(endpoint.needs) <= set(endpoint.parameters), name
            assert name.partition("/")[0] not in product.signed, name
        assert product.time_path.removeprefix(product.prefix) in product.endpoints
        assert product.ping_path.removeprefix(product.prefix) in product.endpoints
