"""A connection that answers pings and brings nothing, as the readers of its streams see it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.builders import TICKER, ticker_frame
from tests.venues.exchange import Peer, listening
from tests.web.harness import Events, web_harness

PRICES = "/api/ws/sse/prices?symbols=BTCUSDT"
FRAMES = 21  # enough to know the rhythm

pytestmark = pytest.mark.usefixtures("both_ways")


async def _tick(peer: Peer, frames: int) -> None:
    for _ in range(frames):
        await peer.say(ticker_frame(event_ms=int(trio.current_time() * 1000)))
        await trio.sleep(1)


async def _stalling(peer: Peer) -> None:
    await _tick(peer, FRAMES)
    while True:
        await peer.socket.ping()  # returns once it is answered
        await trio.sleep(1)


async def _flowing(peer: Peer) -> None:
    await _tick(peer, 1000)


async def _names(events: Events, count: int) -> list[tuple[float, str]]:
    """When the next events came, so many at least, and which they were."""
    seen: list[tuple[float, str]] = []
    while len(seen) < count:
        for line in (await events.chunk()).split(b"\n\n"):
            if line.startswith(b"data: "):
                seen.append((trio.current_time(), "message"))
            elif line.startswith(b"event: "):
                seen.append((trio.current_time(), line.splitlines()[0].removeprefix(b"event: ").decode()))
    return seen


async def test_a_silent_stall_is_noticed(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Another connection takes over within fifteen seconds, and no reader is told of a loss, for there is none."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(listening(_stalling), then=listening(_flowing))
        async with harness.stream(PRICES) as events:
            while all(name != "message" for _, name in await _names(events, 1)):
                continue
            seen = await _names(events, 2 * FRAMES)
            assert {name for _, name in seen} <= {"message", "health"}
            arrivals = [at for at, name in seen if name == "message"]
            pauses = [later - earlier for earlier, later in pairwise(arrivals)]
            assert 5 <= max(pauses) < 15
            status = json.loads((await harness.call("GET", "/api/ws/status")).body)
            assert (status["reconnects"], status["rotations"]) == (0, 1)


async def test_a_server_whose_streams_are_all_stale_is_not_ready(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Its prices are old, whatever the state of the connection: another server may have newer ones."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(listening(_stalling), then=listening(_stalling))
        harness.services.hub.interest.pin([TICKER])
        harness.services.markets.connect()
        await trio.sleep(FRAMES)
        assert (await harness.call("GET", "/readyz")).status == 200
        reasons: set[str] = set()
        for _ in range(100):
            await trio.sleep(0.5)
            reasons |= set(json.loads((await harness.call("GET", "/readyz")).body)["reasons"])
        assert reasons == {"spot: all 1 streams are stale"}
        assert b"komas_streams_" in (await harness.call("GET", "/metrics")).body
