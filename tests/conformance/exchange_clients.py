"""Exchange clients against the simulator: their books, level by level, and their trades, in order, over faults.

Each client keeps its book its own way, from a snapshot and the diffs after it. Meanwhile a diff is lost, connections
are cut, and the exchange is away for a while: the client must come back by itself.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from tests.conformance.client_story import WANTED_OF_FUTURES, Client, Story
from tests.conformance.counterparts import Absent, Row, folder, node_with, python_with
from tests.e2e.processes import ROOT, Exchange, Process, running, serving, simulating, wait_for

PROGRAMS: Final = Path(__file__).with_name("clients")
SEED: Final = 20261130
SYMBOLS: Final = ("BTCUSDT", "DOGEUSDT")  # a busy book, and prices with five decimals
AWAY_S: Final = 1.5
COME_BACK_S: Final = 90.0
CUTS: Final[Sequence[Mapping[str, Any]]] = ({"fault": "abort"}, {"fault": "outage", "seconds": AWAY_S})
FAULTS: Final = 1 + len(CUTS)

CCXT: Final = "ccxt==4.5.90"
PYTHON_BINANCE: Final = "python-binance==1.0.37"
UNICORN: Final = "unicorn-binance-local-depth-cache==2.14.0"
UNICORN_STREAMS: Final = "unicorn-binance-websocket-api==2.16.1"
SDK: Final = "binance-sdk-spot==13.3.0"
NODE_CCXT: Final = "ccxt@4.5.84"
NODE_BINANCE: Final = "binance@3.6.5"
NODE_ORDERBOOKS: Final = "orderbooks@1.1.14"
NODE_SDK: Final = "@binance/spot@32.0.4"

PYTHON_CLIENTS: Final = {
    "ccxt_client": Client("ccxt.pro, Python", CCXT, digits=False),
    # After a gap it takes a snapshot, and then puts the diff on top that showed the gap, old as it is.
    "python_binance_client": Client("python-binance", PYTHON_BINANCE, digits=True, torn=2),
    "unicorn_client": Client("UNICORN's depth cache", UNICORN, digits=False),
    "binance_sdk_client": Client("Binance's SDK, Python", SDK, digits=True),
    "ccxt_futures_client": Client("ccxt.pro's futures, Python", CCXT, digits=False, wanted=WANTED_OF_FUTURES),
}
NODE_CLIENTS: Final = {
    "ccxt_client.mjs": Client("ccxt.pro, JavaScript", NODE_CCXT, digits=False),
    "binance_client.mjs": Client("binance with orderbooks", f"{NODE_BINANCE}, {NODE_ORDERBOOKS}", digits=False),
    "binance_sdk_client.mjs": Client("Binance's SDK, JavaScript", NODE_SDK, digits=True),
    "ccxt_futures_client.mjs": Client(
        "ccxt.pro's futures, JavaScript", NODE_CCXT, digits=False, wanted=WANTED_OF_FUTURES
    ),
}


def run() -> Iterator[Row]:
    """A row for each client. Where a language is absent, the others come all the same."""
    absent: list[str] = []
    for language in (_python, _node, _java, _komas):
        try:
            yield from language()
        except Absent as reason:
            absent.append(str(reason))
    if absent:
        raise Absent("; ".join(absent))


def _python() -> Iterator[Row]:
    with folder() as place:
        python = python_with(place, CCXT, PYTHON_BINANCE, UNICORN, UNICORN_STREAMS, SDK)
        for program, client in PYTHON_CLIENTS.items():
            yield _row(client, [str(python), "-m", f"{__package__}.clients.{program}"])


def _node() -> Iterator[Row]:
    with folder() as place:
        home = node_with(place, NODE_CCXT, NODE_BINANCE, NODE_ORDERBOOKS, NODE_SDK)
        for source in PROGRAMS.glob("*.mjs"):
            shutil.copy(source, home)  # node looks for packages beside the program
        for program, client in NODE_CLIENTS.items():
            yield _row(client, ["node", str(home / program)])


def _java() -> Iterator[Row]:
    java = shutil.which("java")
    if java is None:
        raise Absent("there is no java here")
    with running([java, "--version"]) as process:
        version = process.line(r"\S+ \d\S*")[0]
    yield _row(Client("the JDK's WebSocket, Java", version, digits=True), [java, str(PROGRAMS / "JdkClient.java")])


def _komas() -> Iterator[Row]:
    client = Client("komas serve, event streams", "this tree", digits=True, is_gapless=True)
    with folder() as place, _market() as exchange, serving(place, "--binance-upstream", exchange.ws_url) as server:
        command = [sys.executable, "-m", f"{__package__}.clients.komas_client", server.url, *SYMBOLS]
        with running(command, {"PYTHONPATH": str(ROOT)}) as process:
            yield _watched(client, exchange, process)


def _row(client: Client, command: Sequence[str]) -> Row:
    with _market() as exchange, running([*command, exchange.ws_url, exchange.rest_url, *SYMBOLS]) as process:
        return _watched(client, exchange, process)


def _market() -> AbstractContextManager[Exchange]:
    return simulating("--seed", str(SEED), "--symbols", ",".join(SYMBOLS))


def _watched(client: Client, exchange: Exchange, process: Process) -> Row:
    """Let the client live through the faults, then look at what it printed."""
    story = Story(process, SYMBOLS, client)
    try:
        story.goes_on("the start", COME_BACK_S)
        for speed in ("", "@100ms"):  # of the two, what the client reads
            exchange.fault(fault="drop", stream=f"{SYMBOLS[0].lower()}@depth{speed}")
        story.goes_on("a lost diff", COME_BACK_S)
        for fault in CUTS:
            _cut(exchange, process, fault)
            story.goes_on(f"{fault['fault']}", COME_BACK_S)
    except AssertionError as failure:
        return story.row(SEED, FAULTS, len(CUTS), f"{failure}; it said {process.output[-3:]}"[:1000])
    return story.row(SEED, FAULTS, len(CUTS))


def _cut(exchange: Exchange, process: Process, fault: Mapping[str, Any]) -> None:
    """End all connections, and wait for one that is new."""
    before = _dials(exchange)
    exchange.fault(**fault)

    def is_back() -> bool:
        assert process.is_alive(), "the client has ended"
        return _dials(exchange) > before

    wait_for(is_back, "another connection", COME_BACK_S)


def _dials(exchange: Exchange) -> int:
    """How many connections there have been; none while the exchange is away."""
    with suppress(httpx.TransportError):
        dials = exchange.state()["dials"]
        assert isinstance(dials, list)
        return len(dials)
    return 0
