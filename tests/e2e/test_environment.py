"""What a user's environment says of proxies, against real sockets."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from komas import BinanceWebSocket
from komas.model.market import Depth
from komas.simulator import SimOptions, Simulator, simulate
from komas.venues.core.proxies import LOOPBACK_DIRECT
from tests.e2e.processes import PATIENCE_S

NOWHERE = ["http://127.0.0.1:9", "socks5://127.0.0.1:9"]


@pytest.mark.parametrize("proxy", NOWHERE)
async def test_rest_takes_the_road_of_the_socket(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a proxy in the environment the demo had no depth: its snapshots were asked of the proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    heard = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            simulator: Simulator = await nursery.start(partial(simulate, SimOptions(bind="127.0.0.1:0")))

            def show(depth: Depth) -> None:
                assert depth.bids
                heard.set()

            async with BinanceWebSocket(simulator.ws_url, rest_url=simulator.rest_url) as ws:
                await ws.subscribe_depth("BTCUSDT", show)
                await heard.wait()
            nursery.cancel_scope.cancel()


async def test_what_is_on_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """By programs that obey the environment elsewhere, such as ``komas watch``."""
    monkeypatch.setenv("HTTP_PROXY", NOWHERE[0])
    monkeypatch.delenv("NO_PROXY", raising=False)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            simulator: Simulator = await nursery.start(partial(simulate, SimOptions(bind="127.0.0.1:0")))
            async with httpx.AsyncClient(base_url=simulator.rest_url, mounts=LOOPBACK_DIRECT) as client:
                assert (await client.get("/api/v3/ping")).is_success
            nursery.cancel_scope.cancel()


def test_an_address_of_another_machine_is_status_1(tmp_path: Path) -> None:
    """No other port would help."""
    command = [sys.executable, "-m", "komas", "serve", "--bind", "192.0.2.1:8000", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "komas: 192.0.2.1:8000 cannot be bound: " in done.stderr
    assert done.stderr.endswith("is the address to listen on free, and this machine's?\n")
