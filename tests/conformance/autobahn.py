"""WebSocket, both ways: the fuzzing server of Autobahn's test suite against our client, its client against our server.

The suite is a program of Python 2.7.
"""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio
import trio_websocket

from komas.errors import VenueError
from komas.venues.core import websocket
from tests.conformance.counterparts import Row, folder, install, python_of
from tests.e2e.processes import Process, running, wait_for

SUITE = "autobahntestsuite==25.10.1"
LARGEST = 2**25  # the suite's messages have 16 MiB, the exchange's, and what komas takes, one
CASE_S = 60.0
SUITE_S = 900.0

# permessage-deflate is offered by neither side of komas. A signal socket takes no binary messages.
NO_COMPRESSION = ["12.*", "13.*"]
NO_BINARY = ["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"]

_WSTEST = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite import wstest
wstest.run()
"""


def run_client() -> Iterator[Row]:
    """Our client, as feeds use it."""
    with _suite() as (python, place):
        port = _free_port()
        url = f"ws://127.0.0.1:{port}"
        spec = {"url": url, "outdir": "./reports", "cases": ["*"], "exclude-cases": NO_COMPRESSION, "options": {}}
        with _wstest(python, place, "fuzzingserver", spec):
            wait_for(lambda: _listens(port), "Autobahn's server")
            trio.run(_be_tested, url)
        yield _row("WebSocket client", place)


def run_server() -> Iterator[Row]:
    """Our server, with an echo behind it."""
    with _suite() as (python, place), running([sys.executable, "-m", "tests.conformance.echo_server"]) as echo:
        bind = echo.line(r"echo on (\S+)")[1]
        spec = {
            "outdir": "./reports",
            "servers": [{"agent": "komas", "url": bind.replace("http://", "ws://")}],
            "cases": ["*"],
            "exclude-cases": NO_COMPRESSION + NO_BINARY,
        }
        with _wstest(python, place, "fuzzingclient", spec) as client:
            client.ended(SUITE_S)
        yield _row("WebSocket server", place)


@contextmanager
def _suite() -> Iterator[tuple[Path, Path]]:
    python = python_of("2.7")
    with folder() as place:
        install([str(python), "-m", "pip", "install", "-q", "--target", str(place / "suite"), SUITE], place)
        (place / "wstest.py").write_text(_WSTEST)
        yield python, place


@contextmanager
def _wstest(python: Path, place: Path, mode: str, spec: Mapping[str, object]) -> Iterator[Process]:
    (place / "spec.json").write_text(json.dumps(spec))
    command = [str(python), "-u", "wstest.py", str(place / "suite"), "-m", mode, "-s", "spec.json", "-u", "0"]
    with running(command, {"PYTHONPATH": str(place / "suite")}, place) as process:
        yield process


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _row(name: str, place: Path) -> Row:
    cases: dict[str, dict[str, Any]] = json.loads((place / "reports" / "index.json").read_text())["komas"]
    good = ("OK", "NON-STRICT", "INFORMATIONAL")
    failed = [
        f"{case}: {found['behavior']}, close {found['behaviorClose']}"
        for case, found in cases.items()
        if found["behavior"] not in good or found["behaviorClose"] not in good
    ]
    words = Counter(found["behavior"] for found in cases.values())
    weaker = [case for case, found in cases.items() if found["behavior"] == "NON-STRICT"]
    notes = [f"{', '.join(f'{count} {word}' for word, count in words.items())}"]
    if weaker:
        notes.append(f"not strict: {' '.join(sorted(weaker))}")
    return Row(name, SUITE, len(cases) - len(failed), len(cases), (*notes, *failed))


async def _be_tested(url: str) -> None:
    """Run every case that the fuzzing server has: an echo of what komas's client receives."""
    library: list[_Typed] = []

    async def wrap(*arguments: Any, **options: Any) -> trio_websocket.WebSocketConnection:
        connection = await trio_websocket.wrap_client_stream(*arguments, **options)
        library.append(_Typed(connection))
        vars(connection)["get_message"] = library[-1].get_message
        return connection

    vars(websocket).update(MESSAGE_MAX_BYTES=LARGEST, wrap_client_stream=wrap)
    counted: list[bytes] = []

    async def count(connection: websocket.Socket) -> None:
        counted.extend(await connection.receive())

    async def echo(connection: websocket.Socket) -> None:
        typed = library[-1]
        while True:
            typed.is_binary = False
            for message in await connection.receive():
                await typed.connection.send_message(message if typed.is_binary else message.decode())

    with trio.fail_after(CASE_S):
        await _connected(f"{url}/getCaseCount", count)
    for case in range(1, int(counted[0]) + 1):
        with trio.fail_after(CASE_S):
            await _connected(f"{url}/runCase?case={case}&agent=komas", echo)
    with trio.fail_after(CASE_S):
        await _connected(f"{url}/updateReports?agent=komas", echo)


class _Typed:
    """Tells text and binary apart, which komas's client does not: what it hands to its library may be either."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection
        self._get = connection.get_message
        self.is_binary = False

    async def get_message(self) -> str | bytes:
        message: str | bytes = await self._get()
        self.is_binary = isinstance(message, bytes)
        return message


async def _connected(url: str, do: Callable[[websocket.Socket], Awaitable[None]]) -> None:
    """Do something with a connection, until it is done or the connection ends."""
    async with trio.open_nursery() as nursery:
        with suppress(VenueError, trio_websocket.ConnectionClosed):
            connection = await websocket.dial(nursery, url, sent=lambda: None)
            try:
                await do(connection)
            finally:
                await connection.close()
