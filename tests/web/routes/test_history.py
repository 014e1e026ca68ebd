"""Past candles, past trades, and the symbols there are, over REST."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.web.harness import ADMIN_TOKEN, SYMBOLS, web_harness


async def test_candles_and_trades_are_there_for_a_chart_and_a_tape(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Oldest first, with the exchange's digits, as in the events of the same kinds."""
    async with web_harness(tmp_path) as harness:
        body = json.loads((await harness.call("GET", "/api/ws/klines?symbol=btcusdt&interval=5m&limit=2")).body)
        assert (body["symbol"], body["interval"], body["count"]) == ("BTCUSDT", "5m", 2)
        first, last = body["candles"]
        assert first["timestamp"] < last["timestamp"]
        assert (first["is_closed"], last["is_closed"], last["type"]) == (True, False, "kline")
        answer = await harness.call("GET", "/api/ws/trades?symbol=BTCUSDT&limit=2")
        assert b'"price":61840.10,' in answer.body
        assert [trade["trade_id"] for trade in json.loads(answer.body)["trades"]] == [1, 2]
        assert answer.headers["cache-control"] == "no-store"
        assert harness.exchange.dialled_at == []  # nothing is subscribed for it


async def test_symbols_are_found_by_what_somebody_types(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """In any script; without a query, all of them."""
    async with web_harness(tmp_path) as harness:
        body = json.loads((await harness.call("GET", "/api/ws/symbols?query=btc")).body)
        assert [row["symbol"] for row in body["symbols"]] == ["BTCUSDT"]
        body = json.loads((await harness.call("GET", "/api/ws/symbols?market=usd_m")).body)
        assert {(row["symbol"], row["market"]) for row in body["symbols"]} == {(name, "usd_m") for name in SYMBOLS}


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("klines?symbol=NOPEUSDT", "symbol"),
        ("klines?symbol=BTCUSDT&interval=7m", "interval"),
        ("klines?symbol=BTCUSDT&limit=1001", "limit"),
        ("klines?symbol=BTCUSDT&end=yesterday", "end"),
        ("trades", "symbol"),
        ("trades?symbol=BTCUSDT&aggregate=maybe", "aggregate"),
        ("symbols?limit=0", "limit"),
        ("symbols?market=coin", "market"),
        (f"symbols?query={'x' * 41}", "query"),
    ],
)
async def test_a_wrong_question_is_named(
    target: str, field: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Before the exchange is asked."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", f"/api/ws/{target}")
        assert answer.status == 400
        assert [error["field"] for error in json.loads(answer.body)["errors"]] == [field]


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/api/ws/klines?symbol=&interval=7m&limit=0&end=x", ["symbol", "interval", "limit", "end"]),
        ("/api/ws/trades?symbol=&aggregate=maybe&limit=0", ["symbol", "aggregate", "limit"]),
        (f"/api/ws/symbols?query={'x' * 41}&limit=0&market=coin", ["query", "limit", "market"]),
        ("/api/ws/depth?symbol=&limit=0", ["symbol", "limit"]),
        ("/api/ws/sse/prices?symbols=-&stream_type=x&max_rate=0", ["symbols", "stream_type", "max_rate"]),
        ("/api/ws/sse/klines?symbol=&interval=7m&history=x", ["symbol", "interval", "history"]),
        ("/api/ws/sse/depth?symbol=&limit=0&max_rate=x", ["symbol", "limit", "max_rate"]),
        ("/api/ws/sse/stream?streams=x&limit=0&history=x&max_rate=x", ["streams", "limit", "history", "max_rate"]),
        ("/api/signals?since_id=x&limit=0&signal_type=x", ["since_id", "limit", "signal_type"]),
        ("/api/admin/vips?after=%20&limit=0", ["after", "limit"]),
        ("/api/admin/signals?before_id=0&limit=0", ["before_id", "limit"]),
        ("/api/logs/today?level=x&limit=0", ["level", "limit"]),
    ],
)
async def test_all_wrong_parameters_are_named_at_once(
    target: str, fields: list[str], autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Whoever mended one heard of the next one only then."""
    async with web_harness(tmp_path) as harness:
        is_vips = target.startswith("/api/signals")
        token = harness.service.token("7", vip_days=1) if is_vips else ADMIN_TOKEN
        headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
        answer = await harness.call("GET", target, headers=headers)
        assert answer.status == 400
        assert [error["field"] for error in json.loads(answer.body)["errors"]] == fields


async def test_an_exchange_that_does_not_answer_is_told(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With its own words."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/api/ws/trades?symbol=BTCUSDT&aggregate=true")
        assert answer.status == 502
        assert b"HTTP 404" in answer.body
