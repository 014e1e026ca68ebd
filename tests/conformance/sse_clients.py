"""SSE clients: trades of a simulated exchange, over cuts, a proxy's answers, a restart and a kill.

All clients read at the same time, each through relays of its own, from both endpoints. What they print is held against
the exchange's own list of trades.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from tests.conformance import sse_judge
from tests.conformance.counterparts import Row, folder, node_with, python_with
from tests.conformance.programs import Output, chromium_version, output_of, output_of_page, page, program, until
from tests.conformance.relay import Relay, relaying
from tests.e2e.processes import PATIENCE_S, Exchange, Server, running, serving, simulating

PYTHON: Final = {
    "httpx-sse==0.4.3": "sse_httpx.py",
    "sseclient-py==1.9.0": "sse_sseclient.py",
    "aiohttp-sse-client==0.2.1": "sse_aiohttp.py",
}
BESIDE: Final = ("httpx==0.28.1", "requests==2.34.2", "aiohttp==3.14.5")  # what these read through
EVENTSOURCE: Final = "eventsource@5.1.5"
FETCH: Final = "@microsoft/fetch-event-source@2.0.1"

SYMBOLS: Final = ("BTCUSDT", "币安人生USDT")  # chunks end in the middle of this name, too
ENDPOINTS: Final = {
    "trades": ("/api/ws/sse/trades?symbol=BTCUSDT", SYMBOLS[:1]),
    "stream": ("/api/ws/sse/stream?streams=btcusdt@trade/币安人生usdt@trade", SYMBOLS),
}
OPTIONS: Final = ("--heartbeat-s", "0.1", "--backfill-s", "2")
MORE: Final = 3  # trades of each symbol, after which a client counts as one that has come back
BACK_S: Final = 45.0
BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
BUSY: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"
    b'retry: 1000\nid: %b\nevent: busy\ndata: {"reason":"komas is away"}\n\n'
)
KILL: Final = "a kill, and an exchange that does not tell what was missed"
ONE_ANSWER: Final = 1000  # trades that the exchange tells at once


class Reader:
    """One client at one endpoint, and what it read in each case."""

    def __init__(self, client: str, endpoint: str, relay: Relay) -> None:
        path, self.symbols = ENDPOINTS[endpoint]
        self.client = client
        self.name = f"{client} {endpoint}"
        self.relay = relay
        self.url = f"http://127.0.0.1:{relay.port}{path}"
        self.output = Output([], list)
        self.cases: dict[str, tuple[list[list[Any]], bool]] = {}  # and whether it came back
        self._until = 0
        self._since: list[int] = []

    def has_read_on(self, connections: int) -> bool:
        """Whether it has read some more since it has had so many connections."""
        if len(self.relay.connections) < connections:
            return False
        self._since = self._since or self._trades()
        return all(now >= before + MORE for before, now in zip(self._since, self._trades(), strict=True))

    def end_case(self, name: str, *, came_back: bool) -> None:
        """What it has read until now belongs to this case."""
        rows = self.output.rows
        self.cases[name] = rows[self._until :], came_back
        self._until, self._since = len(rows), []

    def _trades(self) -> list[int]:
        texts = [data for name, _, data in self.output.rows if name == "message"]
        return [sum(f'"{symbol}"' in text for text in texts) for symbol in self.symbols]


def run() -> Iterator[Row]:
    """One row for each client."""
    with folder() as place, ExitStack() as stack:
        python = python_with(place, *PYTHON, *BESIDE)
        node = node_with(place, EVENTSOURCE, FETCH)
        clients = [*PYTHON, EVENTSOURCE, FETCH, f"EventSource of Chromium@{chromium_version()}"]
        exchange = stack.enter_context(simulating())
        readers = [
            Reader(client, endpoint, stack.enter_context(relaying())) for client in clients for endpoint in ENDPOINTS
        ]
        play = _Play(exchange, readers, place, stack)
        play.run(lambda: _start(readers, python, node, place, stack))
        trades = {symbol: _trades(exchange, symbol) for symbol in SYMBOLS}
        for client in clients:
            yield _row(client, [reader for reader in readers if reader.client == client], trades)


def _start(readers: Sequence[Reader], python: Path, node: Path, place: Path, stack: ExitStack) -> None:
    in_page = {}
    for reader in readers:
        if (script := PYTHON.get(reader.client)) is not None:
            command = [str(python), program(script), reader.url]
        elif reader.client == EVENTSOURCE:
            command = ["node", program("sse_eventsource.mjs", node), reader.url]
        else:
            in_page[reader.name] = reader.url
            continue
        reader.output = output_of(stack.enter_context(running(command, cwd=place)))
    packages = {"fetch-event-source": node / "node_modules/@microsoft/fetch-event-source/lib/esm"}
    pages = stack.enter_context(page("sse_page.html", in_page, place / "browser", packages))
    for reader in readers:
        if reader.name in in_page:
            reader.output = output_of_page(pages, reader.name)


class _Play:
    """What happens to all clients at once."""

    def __init__(self, exchange: Exchange, readers: Sequence[Reader], place: Path, stack: ExitStack) -> None:
        self._exchange = exchange
        self._readers = readers
        self._place = place
        self._stack = stack
        self._server = self._serve()

    def run(self, start: Callable[[], None]) -> None:
        """All cases, one after another; ``start`` lets the clients loose."""
        self._case("reads", start)
        self._case("a cut in the middle of an event", self._cut)
        self._case("a proxy's 502", lambda: self._cut(lambda _: BAD_GATEWAY), dials=2)
        self._case("a proxy's busy", lambda: self._cut(_busy), dials=2)
        self._case("a restart", lambda: self._restart(signal.SIGTERM))
        self._exchange.fault(fault="rest", status=503, requests=None, path="historicalTrades")
        self._case(KILL, lambda: self._restart(signal.SIGKILL))
        httpx.delete(f"{self._exchange.rest_url}/sim/faults", timeout=PATIENCE_S).raise_for_status()

    def _case(self, name: str, disturb: Callable[[], None], dials: int = 1) -> None:
        wanted = [len(reader.relay.connections) + dials for reader in self._readers]

        def returned() -> list[bool]:
            return [reader.has_read_on(count) for reader, count in zip(self._readers, wanted, strict=True)]

        disturb()
        until(lambda: all(returned()), BACK_S)
        for reader, came_back in zip(self._readers, returned(), strict=True):
            reader.end_case(name, came_back=came_back)

    def _cut(self, *answers: Callable[[bytes], bytes]) -> None:
        for reader in self._readers:
            for answer in answers:
                reader.relay.answer(answer)
            reader.relay.cut()

    def _restart(self, number: signal.Signals) -> None:
        for reader in self._readers:
            reader.relay.leave()
        self._server.process.signal(number)
        self._server.process.ended()
        self._server = self._serve()
        for reader in self._readers:
            reader.relay.listen()

    def _serve(self) -> Server:
        options = ("--upstream", self._exchange.ws_url, *OPTIONS)
        server = self._stack.enter_context(serving(self._place / "komas", *options))
        for reader in self._readers:
            reader.relay.server_port = server.port
        return server


def _busy(request: bytes) -> bytes:
    """As the files in deploy/ have it while komas is away."""
    found = re.search(rb"(?i)\nlast-event-id: (.*?)\r", request)
    return BUSY % (b"" if found is None else found[1])


def _trades(exchange: Exchange, symbol: str) -> Mapping[int, sse_judge.Trade]:
    """All that the exchange has."""
    found: dict[int, sse_judge.Trade] = {}
    while True:
        query = {"symbol": symbol, "fromId": str(max(found, default=0) + 1), "limit": str(ONE_ANSWER)}
        answer = httpx.get(f"{exchange.rest_url}/api/v3/historicalTrades", params=query, timeout=PATIENCE_S)
        rows = answer.raise_for_status().json()
        found |= {row["id"]: (row["price"], row["qty"], row["isBuyerMaker"]) for row in rows}
        if len(rows) < ONE_ANSWER:
            return found


def _row(client: str, readers: Sequence[Reader], trades: Mapping[str, Mapping[int, sse_judge.Trade]]) -> Row:
    results = {
        f"{reader.name}, {case}": faults for reader in readers for case, faults in _results(reader, trades).items()
    }
    notes = [f"{case}: {'; '.join(faults[:3])}" for case, faults in results.items() if faults]
    name, _, version = client.replace("==", "@").rpartition("@")
    return Row(f"SSE, {name}", version, sum(not faults for faults in results.values()), len(results), tuple(notes))


def _results(reader: Reader, trades: Mapping[str, Mapping[int, sse_judge.Trade]]) -> Mapping[str, Sequence[str]]:
    """What went wrong in each case."""
    judge = sse_judge.Judge(trades)
    results = {}
    for case, (rows, came_back) in reader.cases.items():
        missing = judge.missing
        results[case] = judge.faults(rows)
        if not came_back:
            results[case].append(f"did not read on within {BACK_S:g} s")
        if case == KILL and judge.missing == missing:
            results[case].append("no gap was declared")
    wire = b"".join(connection.received for connection in reader.relay.connections)
    silent = [f"no {word!r} went over the wire" for word in (b": keep-alive\n", b"retry: ") if word not in wire]
    results["heartbeats and retry are no events"] = silent + [
        f"an event {row}" for row in reader.output.rows if row[0] not in sse_judge.NAMES or not row[2]
    ]
    return results
