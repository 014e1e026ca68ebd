"""Binance's interface at komas, over real sockets: what bots are told, beside what the exchange itself says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import PATIENCE_S, Exchange, Server, serving, simulating, wait_for

TARGETS = (
    "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=20&endTime={past}",
    "/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={past}&limit=3",
    "/api/v3/aggTrades?symbol=BTCUSDT&fromId={trade}&limit=10",
    "/api/v3/historicalTrades?symbol=BTCUSDT&fromId={trade}&limit=10",
    "/api/v3/klines?symbol=NOPEUSDT&interval=1m",
)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """The simulated exchange."""
    with simulating() as exchange:
        yield exchange


@pytest.fixture(scope="module")
def server(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server before it."""
    with serving(tmp_path_factory.mktemp("door"), "--upstream", exchange.ws_url, request_rate="5") as server:
        yield server


def _fill(target: str, exchange: Exchange) -> str:
    latest = httpx.get(f"{exchange.rest_url}/api/v3/trades?symbol=BTCUSDT&limit=1", timeout=PATIENCE_S).json()[0]
    aggregate = httpx.get(f"{exchange.rest_url}/api/v3/aggTrades?symbol=BTCUSDT&limit=1", timeout=PATIENCE_S).json()[0]
    number = (aggregate["a"] if "aggTrades" in target else latest["id"]) - 30
    return target.format(past=latest["time"] - 600_000, trade=number)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_over_is_what_the_exchange_says(target: str, exchange: Exchange, server: Server) -> None:
    """Byte for byte, also errors."""
    filled = _fill(target, exchange)
    theirs = httpx.get(exchange.rest_url + filled, timeout=PATIENCE_S)
    for ours in (server.http.get(f"/binance{filled}"), server.http.get(f"/binance{filled}")):
        assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
        assert ours.content == theirs.content or theirs.status_code != httpx.codes.OK
        assert ours.json()


def test_a_hundred_bots_at_once_are_no_more_than_one(exchange: Exchange, server: Server) -> None:
    """Each sees its own weight, and none is told that it asks too often."""
    before = server.http.get("/metrics").text
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.get(f"{server.url}/binance/api/v3/klines?symbol=SOLUSDT&interval=5m", timeout=PATIENCE_S))

    bots = [threading.Thread(target=ask) for _ in range(100)]
    for bot in bots:
        bot.start()
    for bot in bots:
        bot.join()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in answers} == {"2"}
    assert len({answer.content for answer in answers}) <= 3  # on a slow machine they take longer than an answer is true
    assert _requests(server.http.get("/metrics").text) - _requests(before) <= 5


def _requests(metrics: str) -> float:
    """Answers of the exchange over REST."""
    lines = (line for line in metrics.splitlines() if line.startswith("komas_rest_seconds_count"))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_an_outage_is_told_and_what_is_known_is_answered(exchange: Exchange, server: Server) -> None:
    """503 with the exchange's code; no bot waits for ever, and nothing is invented."""
    known = _fill(TARGETS[0], exchange)
    assert server.http.get(f"/binance{known}").status_code == httpx.codes.OK
    exchange.fault(fault="rest", status=503, requests=1, path="klines")
    assert server.http.get(f"/binance{known}").status_code == httpx.codes.OK
    target = "/binance/api/v3/klines?symbol=XRPUSDT&interval=1m"
    answer = server.http.get(target)
    assert (answer.status_code, answer.json()["code"]) == (503, -1008)
    assert server.http.get(target).status_code == httpx.codes.OK


def test_no_key_is_in_any_log(server: Server) -> None:
    """Nor a signature; the call is refused in the exchange's form."""
    answer = server.http.post(
        "/binance/api/v3/order?symbol=BTCUSDT&signature=SECRETSIGN", headers={"X-MBX-APIKEY": "SECRETKEY"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, -2015)
    wait_for(lambda: server.http.get("/healthz").status_code == 200, "the server")
    assert not any("SECRET" in line for line in server.process.output)
    logs = [path.read_text("utf-8") for path in server.folder.rglob("*.jsonl")]
    assert not any("SECRET" in text for text in logs)


PYTHON_BINANCE = """
import asyncio, json, sys
from binance import AsyncClient

async def main(url):
    AsyncClient.API_URL = url + "/binance/api"
    client = await AsyncClient.create()
    info = await client.get_symbol_info("ETHUSDT")
    rows = await client.get_klines(symbol="BTCUSDT", interval="1m", limit=5)
    book = await client.get_order_book(symbol="BTCUSDT", limit=5)
    print(json.dumps([info["baseAsset"], len(rows), len(book["bids"])]))
    await client.close_connection()

asyncio.run(main(sys.argv[1]))
"""

CCXT = """
import asyncio, json, sys
import ccxt.async_support as ccxt

async def main(url):
    exchange = ccxt.binance({
        "options": {"fetchMarkets": {"types": ["spot"]}},
        "urls": {"api": {"public": url + "/binance/api/v3", "fapiPublic": url + "/binance/fapi/v1"}},
    })
    await exchange.load_markets()
    rows = await exchange.fetch_ohlcv("BTC/USDT", "1m", limit=5)
    book = await exchange.fetch_order_book("BTC/USDT", 5)
    try:
        await exchange.public_get_klines({"symbol": "NOPE", "interval": "1m"})
    except ccxt.BadSymbol:
        print(json.dumps([exchange.market("ETH/USDT")["base"], len(rows), len(book["bids"])]))
    await exchange.close()

asyncio.run(main(sys.argv[1]))
"""

SDK = """
import json, sys
from binance_common.configuration import ConfigurationRestAPI
from binance_sdk_spot.spot import Spot

client = Spot(config_rest_api=ConfigurationRestAPI(api_key="", base_path=sys.argv[1] + "/binance"))
info = client.rest_api.exchange_info(symbols=["ETHUSDT", "BTCUSDT"]).data()
rows = client.rest_api.klines(symbol="BTCUSDT", interval="1m", limit=5).data()
book = client.rest_api.depth(symbol="BTCUSDT", limit=5).data()
base = next(each.base_asset for each in info.symbols if each.symbol == "ETHUSDT")
print(json.dumps([base, len(rows), len(book.bids)]))
"""


@pytest.mark.bench_extra
@pytest.mark.parametrize(
    ("module", "program"), [("binance", PYTHON_BINANCE), ("ccxt", CCXT), ("binance_sdk_spot", SDK)]
)
def test_a_public_client_asks_komas_as_it_asks_the_exchange(
    module: str, program: str, server: Server, tmp_path: Path
) -> None:
    """Only its address is another; what it makes of the answers, and of an error, is the same."""
    pytest.importorskip(module, reason=f"{module} is not installed: it comes with the bench extra")
    script = tmp_path / "client.py"
    script.write_text(program)
    command = [sys.executable, str(script), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert json.loads(done.stdout.splitlines()[-1] if done.stdout else done.stderr) == ["ETH", 5, 5], done.stderr
