"""WebSocket clients: signals over a cut, a restart and a kill, pings, and how connections end.

All clients read at the same time, each through a relay of its own; tokens come in each of the three ways.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.conformance.counterparts import Row, folder, node_with, python_with
from tests.conformance.programs import Output, chromium_version, output_of, output_of_page, page, program, until
from tests.conformance.relay import Connection, Relay, relaying
from tests.e2e.processes import Server, running, serving, token_for

PYTHON: Final = {
    "websockets==17.4": "ws_websockets.py",
    "websocket-client==1.9.2": "ws_websocket_client.py",
    "aiohttp==3.14.5": "ws_aiohttp.py",
    "trio-websocket==0.12.2": "ws_trio.py",
}
WS: Final = "ws@8.23.0"
WRONG: Final = ", with a wrong token"
OPTIONS: Final = ("--upstream", "ws://127.0.0.1:9", "--websocket-ping-s", "1")  # nobody wants prices here
PATH: Final = "/ws/signals?positions=1"
BACK_S: Final = 30.0
PING, PONG = 9, 10

Heard = tuple[str, int, str]  # the type of a message, its number, and its spread to the digit


class Reader:
    """One client, and what it is to have heard in each case."""

    def __init__(self, client: str, relay: Relay) -> None:
        self.client = client
        self.relay = relay
        self.url = f"ws://127.0.0.1:{relay.port}{PATH}"
        self.output = Output([], list)
        self.refused = Output([], list)  # of the same client with a wrong token
        self.faults: dict[str, list[str]] = {}
        self._heard = 0
        self._closed = 0

    def heard(self) -> list[Heard]:
        """Signals and updates, all of them."""
        messages = [json.loads(row[1], parse_float=str) for row in self.output.rows if row[0] == "message"]
        return [
            (each["type"], each["data"]["number"], each["data"]["spread"])
            for each in messages
            if each["type"] in ("new_signal", "signal_update")
        ]

    def ends(self) -> list[list[Any]]:
        """Code and reason of each end."""
        return [row[1:] for row in self.output.rows if row[0] == "closed"]

    def has_ended(self) -> bool:
        """Whether a connection has ended in this case."""
        return len(self.ends()) > self._closed

    def has_been_pinged(self) -> bool:
        """Several times over one connection."""
        return any(len(_payloads(each.received, PING)) > 1 for each in self.relay.connections)

    def end_case(self, name: str, published: Sequence[Heard], ends: Sequence[Any] | None) -> None:
        """Hold what it has heard in this case against what was published, and its first end against what is right."""
        heard, closed = self.heard()[self._heard :], self.ends()[self._closed :]
        self._heard, self._closed = self._heard + len(heard), self._closed + len(closed)
        self.faults[name] = [] if heard == published else [f"heard {heard}, and published was {published}"]
        if ends is not None and closed[:1] != [ends]:
            self.faults[name].append(f"ended with {closed}")


def run() -> Iterator[Row]:
    """One row for each client."""
    with folder() as place, ExitStack() as stack:
        python = python_with(place, *PYTHON)
        node = node_with(place, WS)
        clients = [*PYTHON, WS, f"WebSocket of Chromium@{chromium_version()}"]
        readers = [Reader(client, stack.enter_context(relaying())) for client in clients]
        play = _Play(readers, place / "komas", stack)
        play.run(lambda: _start(readers, play.token, python, node, place, stack))
        for reader in readers:
            reader.faults["pings are answered"] = _unanswered(reader.relay.connections)
            name, _, version = reader.client.replace("==", "@").rpartition("@")
            notes = [f"{case}: {'; '.join(faults)[:500]}" for case, faults in reader.faults.items() if faults]
            passed = len(reader.faults) - len(notes)
            yield Row(f"WebSocket, {name}", version, passed, len(reader.faults), tuple(notes))


def _start(readers: Sequence[Reader], token: str, python: Path, node: Path, place: Path, stack: ExitStack) -> None:
    in_page = {}
    for reader in readers:
        if (script := PYTHON.get(reader.client)) is not None:
            command = [str(python), program(script), reader.url]
        elif reader.client == WS:
            command = ["node", program("ws_ws.mjs", node), reader.url]
        else:
            in_page[reader.client] = (reader.url, token)
            in_page[reader.client + WRONG] = (reader.url, f"{token}x")
            continue
        reader.output = output_of(stack.enter_context(running([*command, token], cwd=place)))
        reader.refused = output_of(stack.enter_context(running([*command, f"{token}x"], cwd=place)))
    pages = stack.enter_context(page("ws_page.html", in_page, place / "browser", {}))
    for reader in readers:
        if reader.client in in_page:
            reader.output = output_of_page(pages, reader.client)
            reader.refused = output_of_page(pages, reader.client + WRONG)


class _Play:
    """What happens to all clients at once."""

    def __init__(self, readers: Sequence[Reader], place: Path, stack: ExitStack) -> None:
        self._readers = readers
        self._place = place
        self._stack = stack
        self._published: list[Heard] = []
        self._signal_id = 0
        self.token = token_for(place, "--vip-days", "1", "--scope", "signals:publish")
        self._server = self._serve()

    def run(self, start: Callable[[], None]) -> None:
        """All cases, one after another; ``start`` lets the clients loose."""
        start()
        until(lambda: all(reader.output.rows and reader.refused.rows for reader in self._readers), BACK_S)
        self._case("signals and updates", self._publish)
        until(lambda: all(reader.has_been_pinged() for reader in self._readers), BACK_S)
        self._case("a cut in the middle of a message", self._cut, [1006, ""])
        self._case("a restart", lambda: self._restart(signal.SIGTERM), [1001, "Server shutting down"])
        self._case("a kill", lambda: self._restart(signal.SIGKILL), [1006, ""])
        self._case("an end of its own", lambda: self._publish(last=True), [1000, ""])
        for reader in self._readers:
            refused = reader.refused.rows
            told = [["closed", 1008, "Unauthorized"]]
            reader.faults["a wrong token"] = [] if refused == told else [f"was told {refused}"]

    def _case(self, name: str, disturb: Callable[[], None], ends: Sequence[Any] | None = None) -> None:
        before = len(self._published)
        disturb()
        until(lambda: all(len(reader.heard()) >= len(self._published) for reader in self._readers), BACK_S)
        until(lambda: ends is None or all(reader.has_ended() for reader in self._readers), BACK_S)
        for reader in self._readers:
            reader.end_case(name, self._published[before:], ends)

    def _publish(self, *, last: bool = False) -> None:
        """Three signals, and an update of each; their numbers rise over both."""
        for _ in range(3):
            self._post("POST", "/api/signals", "new_signal", '"coin_name":"币安人生",')
            self._post("PATCH", f"/api/signals/{self._signal_id}", "signal_update")
        if last:
            self._post("POST", "/api/signals", "new_signal", '"last":true,')

    def _post(self, method: str, path: str, kind: str, more: str = "") -> None:
        number = len(self._published)
        signal_type = '"signal_type":"mexc_dex",' if method == "POST" else ""
        answer = self._server.http.request(
            method,
            path,
            content=f'{{{signal_type}"data":{{{more}"number":{number},"spread":{number}.500}}}}'.encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        answer.raise_for_status()
        if method == "POST":
            self._signal_id = answer.json()["id"]
        self._published.append((kind, number, f"{number}.500"))

    def _cut(self) -> None:
        for reader in self._readers:
            reader.relay.cut()
        self._publish()

    def _restart(self, number: signal.Signals) -> None:
        for reader in self._readers:
            reader.relay.leave()
        self._server.process.signal(number)
        self._server.process.ended()
        self._server = self._serve()
        self._publish()  # while nobody is there to hear it
        for reader in self._readers:
            reader.relay.listen()

    def _serve(self) -> Server:
        server = self._stack.enter_context(serving(self._place, *OPTIONS))
        for reader in self._readers:
            reader.relay.server_port = server.port
        return server


def _unanswered(connections: Sequence[Connection]) -> list[str]:
    """Pings without a pong, but for the last one of each connection, which its end may have overtaken."""
    pings = [_payloads(connection.received, PING) for connection in connections]
    pongs = [_payloads(connection.sent, PONG) for connection in connections]
    faults = [
        f"{ping!r} was not answered"
        for asked, answered in zip(pings, pongs, strict=True)
        for ping in asked[:-1]
        if ping not in answered
    ]
    return faults if any(map(len, pings)) else ["there were no pings"]


def _payloads(data: bytearray, opcode: int) -> list[bytes]:
    return [payload for found, payload in _frames(data) if found == opcode]


def _frames(data: bytearray) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of what follows the handshake (RFC 6455, 5.2); no message here has 64 KiB."""
    rest = bytes(data).partition(b"\r\n\r\n")[2]
    while len(rest) > 1:
        length, start = rest[1] & 127, 2
        if length == 126:
            length, start = int.from_bytes(rest[2:4], "big"), 4
        mask = rest[start : start + 4] if rest[1] & 128 else b"\0\0\0\0"
        start += 4 if rest[1] & 128 else 0
        payload = rest[start : start + length]
        yield rest[0] & 15, bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        rest = rest[start + length :]
