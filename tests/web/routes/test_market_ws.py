"""Many streams over one WebSocket: what is heard, what may be asked, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.settings import Settings
from tests.builders import TICKER, TRADE, ticker, trade
from tests.venues.exchange import obeying
from tests.web.harness import WebHarness, web_harness

MARKET = "/ws/market"


def _ask(kind: str, *streams: str, number: int = 1) -> str:
    return json.dumps({"type": kind, "streams": streams, "id": number})


async def _heard(harness: WebHarness, target: str, *says: str) -> list[dict[str, object]]:
    visit = await harness.socket(target, *says)
    return visit.heard


async def _open(harness: WebHarness) -> None:
    harness.exchange.script(obeying)
    harness.services.hub.interest.pin([TICKER, TRADE])
    harness.services.markets.connect()
    await harness.services.markets.primary.feed.connected()
    harness.services.hub.publish(TICKER, ticker("5.10"), 0)
    for number in (1, 2, 3):
        harness.services.hub.publish(TRADE, trade(number), 0)


async def test_events_carry_their_stream_and_a_place(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """What is known at first; with ``since``, what was missed; then what is asked for."""
    async with web_harness(tmp_path) as harness:
        await _open(harness)
        epoch = harness.services.hub.epoch
        target = f"{MARKET}?streams=btcusdt@trade&since={epoch}-1"
        heard = await _heard(harness, target, _ask("subscribe", "btcusdt@ticker", number=7), '{"type":"ping"}')
        assert (heard[0]["type"], heard[0]["streams"], heard[0]["server"]) == ("open", ["btcusdt@trade"], epoch)
        assert [event["position"] for event in heard if event["type"] == "trade"] == [f"{epoch}-2", f"{epoch}-3"]
        (state,) = [event for event in heard if event["type"] == "ticker"]
        assert (state["stream"], "position" in state) == ("btcusdt@ticker", False)
        assert {"type": "subscribed", "streams": ["btcusdt@trade", "btcusdt@ticker"], "id": 7} in heard
        assert {"type": "pong"} in heard
        assert harness.services.hub.interest.subscribers(TRADE) == 0


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("{", "malformed"),
        ('{"type":"subscribe","streams":"btcusdt@trade"}', "malformed"),
        (_ask("subscribe", "btcusdt"), "invalid"),
        (_ask("unsubscribe", "btcusdt@tick"), "invalid"),
        (_ask("subscribe", "nopeusdt@trade"), "invalid"),
        (_ask("subscribe", "ethusdt@trade", "ethusdt@ticker"), "busy"),
        ('{"type":"hello"}', "unknown_type"),
    ],
)
async def test_what_cannot_be_is_an_error_and_the_socket_stays(
    says: str, code: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nothing is changed by it."""
    async with web_harness(tmp_path, Settings(max_streams_per_address=2)) as harness:
        harness.exchange.script(obeying)
        heard = await _heard(harness, f"{MARKET}?streams=btcusdt@trade", says, '{"type":"ping"}')
        errors = [message for message in heard if message["type"] == "error"]
        assert [error["code"] for error in errors] == [code]
        assert heard.index(errors[0]) < heard.index({"type": "pong"})


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("streams=btcusdt@tick", "'btcusdt@tick' is no stream"),
        ("streams=nopeusdt@trade", "NOPEUSDT is not a symbol"),
        ("stream=btcusdt@trade", "stream: did you mean streams?"),
        ("limit=0", "limit is a whole number"),
        ("streams=btcusdt@trade&streams=ethusdt@trade", "streams is given more than once"),
        ("history=1001", "history is a whole number"),
    ],
)
async def test_a_wrong_request_is_closed_with_its_reason(
    query: str, reason: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """1008, which no retry mends."""
    async with web_harness(tmp_path) as harness:
        visit = await harness.socket(f"{MARKET}?{query}")
        assert visit.closed is not None
        assert visit.closed[0] == 1008
        assert reason in str(visit.closed[1])


async def test_what_is_ignored_is_named(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """As of a signal socket."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        heard = await _heard(harness, f"{MARKET}?_=1")
        assert heard[0]["ignored"] == ["_"]


async def test_a_flood_a_drain_and_a_full_house_have_their_codes(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """As signal sockets have them."""
    async with web_harness(tmp_path, Settings(max_sse_per_address=1)) as harness:
        harness.exchange.script(obeying)
        visit = await harness.socket(MARKET, *['{"type":"ping"}'] * 30)
        assert visit.closed == (1008, "Rate limit exceeded")
        async with harness.stream("/api/ws/sse/trades?symbol=BTCUSDT"):
            visit = await harness.socket(MARKET)
            assert visit.closed == (1013, "Try again later")
        harness.services.draining.set()
        visit = await harness.socket(MARKET)
        assert visit.closed == (1001, "Server shutting down")


async def test_a_place_that_cannot_be_read_is_told(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Rather than passed over in silence."""
    async with web_harness(tmp_path) as harness:
        await _open(harness)
        heard = await _heard(harness, f"{MARKET}?streams=btcusdt@trade&since=yesterday")
        assert [(message["stream"], message["to"]) for message in heard if message["type"] == "gap"] == [
            ("btcusdt@trade", None)
        ]
