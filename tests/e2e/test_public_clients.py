"""Public exchange clients against the double: what they understand of Binance, they understand of it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from komas.simulator import SimOptions, Simulator, simulate

pytestmark = pytest.mark.bench_extra

DEADLINE_S = 90  # importing ccxt alone takes seconds
TRADES = 30

# Each prints the ids of trades, one a line. They are asyncio's, so that they run in a process of their own.
PYTHON_BINANCE = """
import asyncio, sys
from binance import AsyncClient, BinanceSocketManager

async def main(ws_url, rest_url, count):
    client = AsyncClient()
    client.API_URL = rest_url + "/api"
    info = await client.get_symbol_info("BTCUSDT")
    assert info["baseAsset"] == "BTC", info
    sockets = BinanceSocketManager(client)
    sockets.STREAM_URL = ws_url + "/"
    async with sockets.trade_socket("BTCUSDT") as socket:
        for _ in range(count):
            print((await socket.recv())["t"], flush=True)
    await client.close_connection()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""

UNICORN = """
import sys, time
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

manager = BinanceWebSocketApiManager(
    exchange="binance.com", websocket_base_uri=sys.argv[1] + "/", restful_base_uri=sys.argv[2] + "/",
    output_default="dict", warn_on_update=False, disable_colorama=True,
)
manager.create_stream(["trade"], ["btcusdt"])
left = int(sys.argv[3])
while left:
    found = manager.pop_stream_data_from_stream_buffer()
    if not found:
        time.sleep(0.01)
    elif "data" in found:
        print(found["data"]["t"], flush=True)
        left -= 1
manager.stop_manager()
"""

CCXT = """
import asyncio, sys
import ccxt.pro

async def main(ws_url, rest_url, count):
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}})
    exchange.urls["api"]["ws"]["spot"] = ws_url + "/ws"
    exchange.urls["api"]["public"] = rest_url + "/api/v3"
    await exchange.load_markets()
    seen = 0
    while seen < count:
        for trade in await exchange.watch_trades("BTC/USDT"):
            if seen < count:
                print(trade["id"], flush=True)
            seen += 1
    await exchange.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("module", "program"),
    [("binance", PYTHON_BINANCE), ("unicorn_binance_websocket_api", UNICORN), ("ccxt", CCXT)],
)
async def test_a_public_client_reads_trades(module: str, program: str, tmp_path: Path) -> None:
    """It connects, subscribes its own way, and reads trades without a gap."""
    pytest.importorskip(module, reason=f"{module} is not installed: it comes with the bench extra")
    script = tmp_path / "client.py"
    script.write_text(program)
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            simulator: Simulator = await nursery.start(partial(simulate, SimOptions(bind="127.0.0.1:0")))
            command = [sys.executable, str(script), simulator.ws_url, simulator.rest_url, str(TRADES)]
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
            nursery.cancel_scope.cancel()
    ids = [int(line) for line in done.stdout.decode().split() if line.isdigit()]
    assert len(ids) == TRADES, done.stdout.decode()
    assert all(later == earlier + 1 for earlier, later in pairwise(ids))
