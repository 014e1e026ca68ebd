"""Mark prices: another market, another connection, the same calls."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind
from komas.model.streams import Stream
from tests.builders import mark_price_frame
from tests.venues.exchange import REFUSED, Peer, listening, obeying
from tests.web.harness import web_harness

pytestmark = pytest.mark.usefixtures("both_ways")


async def _marking(peer: Peer) -> None:
    for second in itertools.count(1):
        await peer.say(mark_price_frame(second * 1000))
        await trio.sleep(1)


async def test_mark_prices_have_a_connection_of_their_own(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Dialled when somebody wants one, on the market class's path; let go when nobody does."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        harness.futures_exchange.script(then=listening(_marking))
        await harness.call("POST", "/api/ws/connect")
        assert harness.futures_exchange.dialled_at == []
        body = json.dumps({"symbols": ["btcusdt"], "stream_type": "mark_price"}).encode()
        answer = await harness.call("POST", "/api/ws/subscribe", body=body)
        assert json.loads(answer.body) == {"subscribed": ["btcusdt@markPrice@1s"], "streams": 1}
        assert harness.futures_exchange.peers[0].path == "/market/stream?streams=btcusdt@markPrice@1s"
        assert harness.exchange.peers[0].path == "/stream"
        await trio.sleep(1)
        status = json.loads((await harness.call("GET", "/api/ws/status")).body)
        assert [row["url"] for row in status["connections"]] == [
            "ws://exchange.test:9443/stream",
            "ws://futures.test:9443/market/stream",
        ]
        rows = json.loads((await harness.call("GET", "/api/ws/streams")).body)["streams"]
        assert [(row["type"], row["health"]) for row in rows] == [("mark_price", "live")]
        await harness.call("POST", "/api/ws/unsubscribe", body=body)
        await trio.sleep(1)
        assert len(json.loads((await harness.call("GET", "/api/ws/status")).body)["connections"]) == 1


async def test_a_browser_reads_mark_price_and_funding(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Every digit; a cut is told as the health of the stream, the spot market's state is nobody's concern here."""

    async def cut(peer: Peer) -> None:
        await peer.say(mark_price_frame(1000))

    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        harness.futures_exchange.script(cut, then=listening(_marking))
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT&stream_type=mark_price") as events:
            seen = b""
            while b'"timestamp":2000}' not in seen:
                seen += await events.chunk()
        assert (
            b'"data":{"type":"mark_price","symbol":"BTCUSDT","price":61837.50000000,"index_price":61830.00000001,'
            b'"estimated_settle_price":61836.10,"funding_rate":0.00010000,"next_funding_time":28800000,'
            b'"timestamp":1000}'
        ) in seen
        assert b'event: health\ndata: {"stream":"btcusdt@markPrice@1s","health":"recovering"' in seen
        assert b"reconnecting" not in seen


async def test_a_perpetual_that_is_not_listed_is_said(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """By the futures' own list."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/api/ws/sse/prices?symbols=NOPEUSDT&stream_type=mark_price")
        assert answer.status == 400


async def test_readiness_and_metrics_speak_of_every_market(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Futures that are wanted and cannot be had are a reason; their streams are counted by their health."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        harness.futures_exchange.script(REFUSED, REFUSED, then=listening(_marking))
        harness.services.hub.interest.pin([Stream.of(Kind.MARK_PRICE, "BTCUSDT")])
        harness.services.markets.connect()
        await trio.sleep(0.1)
        answer = await harness.call("GET", "/readyz")
        reason = "usd-m futures: 1 streams are wanted and the exchange is reconnecting: refused"
        assert (answer.status, json.loads(answer.body)["reasons"]) == (503, [reason])
        await trio.sleep(10)
        assert (await harness.call("GET", "/readyz")).status == 200
        metrics = (await harness.call("GET", "/metrics")).body
        assert b"komas_streams_live 1.0" in metrics
        for venue in (b"binance", b"binance-usdm"):
            assert b'komas_upstream_connections{venue="%b"} 1.0' % venue in metrics


async def test_a_perpetual_that_is_heard_again_is_said_to_be_well(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Its readers were told that it was cut: the doubt has an end."""

    async def cut(peer: Peer) -> None:
        await peer.say(mark_price_frame(1000))

    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        harness.futures_exchange.script(cut, then=listening(_marking))
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT&stream_type=mark_price") as events:
            seen = b""
            with trio.fail_after(30):
                while b'"health":"live"' not in seen:
                    seen += await events.chunk()
        assert seen.index(b'"health":"recovering"') < seen.index(b'"health":"live"')
