"""Those who only wait: what many idle readers and VIPs cost one process, and what becomes of those who come.

A newcomer's wait is from the moment at which it was to come, whether or not the machine let it, until it is greeted.
"""

from __future__ import annotations

import random
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import feeder, machine
from benchmarks.cluster.balancer import Balancer, balancer_command
from benchmarks.crowd import GREETED, REQUEST
from benchmarks.feeder import Order
from benchmarks.processes import Child, Komas, child, komas
from benchmarks.report import Row
from komas.signals.tokens import Issuer, Rules

READERS: Final = 10_000
VIPS: Final = 2_000
STORM: Final = 5_000
STORM_S: Final = 5.0
NEWCOMERS: Final = 500
NEWCOMERS_S: Final = 5.0
EVENTS_A_SECOND: Final = 4.0  # to ten thousand readers, while newcomers come
IDLE_S: Final = 45.0  # three heartbeats of readers, two pings of VIPs
SETTLE_S: Final = 1.0
GIVE_UP_S: Final = 60.0
CONNECTED: Final = b'"type":"connected"'
MANY: Final = "1000000"
LIMITS: Final = ("max-sse", "max-sse-per-address", "max-sockets", "max-sockets-per-address", "max-sockets-per-user")
READ_BYTES: Final = 2**16

IDLE_TITLE: Final = "who only waits: memory, processor and how they came"
COMING_TITLE: Final = "who comes: greeted after so many ms"


def measure() -> Iterator[tuple[str, list[Row]]]:
    """Both tables; the second has newcomers beside fan-out, and those who all come back, direct and behind nginx."""
    machine.allow_many_sockets()
    machine.pin(0, machine.cores()[1])
    coming: list[Row] = []
    with _server() as (server, source, _):
        readers = Arrivals(server.port, REQUEST, GREETED)
        row = _wait(readers, READERS, server, "SSE readers")
        source.tell(Order(EVENTS_A_SECOND, round(EVENTS_A_SECOND * (NEWCOMERS_S + 1))))
        waits = readers.come(NEWCOMERS, NEWCOMERS_S)
        coming.append(_row(f"beside {READERS:,} readers of {EVENTS_A_SECOND:g} events a second", NEWCOMERS, waits))
        readers.leave()
    with _server() as (server, _, token):
        request = (
            f"GET /ws/signals?token={token} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\n"
            "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        vips = Arrivals(server.port, request.encode(), CONNECTED)
        rows = [row, _wait(vips, VIPS, server, "VIP sockets")]
        vips.leave()
    for name, port_of in _ways():
        with _server() as (server, _, _), ExitStack() as stack:
            readers = Arrivals(port_of(server.port, stack), REQUEST, GREETED)
            readers.come(STORM, STORM_S)
            readers.leave()
            time.sleep(SETTLE_S)
            coming.append(_row(f"all come back within {STORM_S:g} s, {name}", STORM, readers.come(STORM, STORM_S)))
            readers.leave()
    yield IDLE_TITLE, rows
    yield COMING_TITLE, coming


def _ways() -> list[tuple[str, Callable[[int, ExitStack], int]]]:
    ways: list[tuple[str, Callable[[int, ExitStack], int]]] = [("direct", lambda port, _: port)]
    if balancer_command() is not None:
        ways.append(("behind nginx", _behind_nginx))
    return ways


def _behind_nginx(port: int, stack: ExitStack) -> int:
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="komas-bench-")))
    folder.chmod(0o777)  # the workers may be another user
    (folder / "logs").mkdir()
    balancer = Balancer(folder, [port])
    balancer.start()
    stack.callback(balancer.stop)
    while not _listens(balancer.port):
        time.sleep(0.02)
    return balancer.port


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextmanager
def _server() -> Iterator[tuple[Komas, Child, str]]:
    """``komas serve``, what feeds it, and a VIP's token."""
    mine, other = machine.cores()
    secret = secrets.token_urlsafe(48)
    options = [word for limit in LIMITS for word in (f"--{limit}", MANY)]
    with child(other, feeder.feed) as source:
        options += ["--upstream", f"ws://127.0.0.1:{source.hear()}", "--jwt-secret", secret]
        with komas(mine, "serve", *options) as server:
            token = Issuer(secret.encode(), Rules()).issue("1", now_s=int(time.time()), ttl_s=3600, vip_days=1)
            yield server, source, token


def _wait(arrivals: Arrivals, count: int, server: Komas, who: str) -> Row:
    arrivals.come(1, 0)
    time.sleep(SETTLE_S)
    one_kb, began = machine.resident_kb(server.pid), time.monotonic()
    arrivals.come(count, 0)
    came_s = time.monotonic() - began
    time.sleep(SETTLE_S)
    idle_kb = machine.resident_kb(server.pid)
    cpu_s = machine.cpu_s(server.pid)
    arrivals.hear(IDLE_S)
    return {
        "who": who,
        "count": count,
        "came/s": count / came_s,
        "KB each": (idle_kb - one_kb) / count,
        "resident MB": idle_kb / 1024,
        "CPU % while they wait": 100 * (machine.cpu_s(server.pid) - cpu_s) / IDLE_S,
        "gone": arrivals.gone,
    }


def _row(what: str, count: int, waits: Sequence[float]) -> Row:
    ordered = sorted(waits)
    at = [
        ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000 if ordered else 0.0 for percent in (50, 99)
    ]
    return {
        "what": what,
        "came": count,
        "greeted": len(waits),
        "p50 ms": at[0],
        "p99 ms": at[1],
        "longest ms": 1000 * max(ordered, default=0.0),
    }


class _Client:
    __slots__ = ("due_at", "is_greeted", "seen", "socket")

    def __init__(self, connection: socket.socket, due_at: float) -> None:
        self.socket = connection
        self.due_at = due_at
        self.is_greeted = False
        self.seen = b""


class Arrivals:
    """Clients that connect when they are to, ask, and read whatever comes."""

    def __init__(self, port: int, request: bytes, greeted: bytes) -> None:
        self._address = ("127.0.0.1", port)
        self._request = request
        self._greeted = greeted
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self.gone = 0

    def come(self, count: int, within_s: float) -> list[float]:
        """Let so many come at random moments of so many seconds; how long each waited that was greeted, in seconds."""
        began, gone = time.monotonic(), self.gone
        chance = random.Random(count)
        due = sorted((began + chance.random() * within_s for _ in range(count)), reverse=True)
        waits: list[float] = []
        while (due or len(waits) + self.gone - gone < count) and time.monotonic() < began + within_s + GIVE_UP_S:
            while due and due[-1] <= time.monotonic():
                self._connect(due.pop())
                if len(due) % 64 == 0:
                    break  # those who wait are heard in between
            self._select(0 if due and due[-1] <= time.monotonic() else 0.002, waits)
        return waits

    def hear(self, seconds: float) -> None:
        """Read what comes for so long."""
        until, waits = time.monotonic() + seconds, list[float]()
        while (left_s := until - time.monotonic()) > 0:
            self._select(left_s, waits)

    def leave(self) -> None:
        """All of them."""
        for client in self._clients:
            self._selector.unregister(client.socket)
            client.socket.close()
        self._clients.clear()

    def _connect(self, due_at: float) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        client = _Client(connection, due_at)
        connection.connect_ex(self._address)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_WRITE, client)

    def _select(self, wait_s: float, waits: list[float]) -> None:
        for key, events in self._selector.select(wait_s):
            client: _Client = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    client.socket.send(self._request)
                    self._selector.modify(client.socket, selectors.EVENT_READ, client)
                    continue
                data = client.socket.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._lose(client)
            elif not client.is_greeted:
                client.seen += data
                if self._greeted in client.seen:
                    client.is_greeted, client.seen = True, b""
                    waits.append(time.monotonic() - client.due_at)

    def _lose(self, client: _Client) -> None:
        self.gone += 1
        self._clients.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()
