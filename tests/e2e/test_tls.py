"""A server that speaks TLS itself, under the stock command: what holds without, holds with it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.certificate import sign_certificate
from tests.e2e.processes import PATIENCE_S, Server, events, serving_tls, wait_for

pytestmark = pytest.mark.usefixtures("way")
TRADES = "/api/ws/sse/trades?symbol=BTCUSDT"
ENOUGH = 200
LONG = "/api/ws/sse/stream?streams=btcusdt@trade/ethusdt@trade/btcusdt@depth@100ms/ethusdt@depth@100ms"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a certificate for localhost is, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    sign_certificate(folder, "localhost")
    return folder


@pytest.fixture
def server(certificate: Path, tmp_path: Path) -> Iterator[Server]:
    """A demo."""
    with serving_tls(tmp_path, certificate, KOMAS_DEMO="true") as server:
        wait_for(lambda: server.status()["connected"], "the exchange")
        yield server


@contextmanager
def stalled(server: Server, certificate: Path, count: int) -> Iterator[list[ssl.SSLSocket]]:
    """Clients that ask and do not read."""
    with ExitStack() as stack:
        yield [stack.enter_context(_stall(server, certificate)) for _ in range(count)]


def _stall(server: Server, certificate: Path) -> ssl.SSLSocket:
    below = socket.socket()
    below.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    below.connect(("127.0.0.1", server.port))
    trusted = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    client = trusted.wrap_socket(below, server_hostname="localhost")
    client.sendall(f"GET {LONG} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def test_each_trade_comes_once_beside_readers_that_stall(server: Server, certificate: Path) -> None:
    """And who stalled for a while has all of its own, too: what waited came in order, under one cipher."""
    with stalled(server, certificate, 3) as slow:
        with server.http.stream("GET", TRADES) as response:
            numbers = [json.loads(data)["data"]["trade_id"] for name, data, _ in first(response) if name == "message"]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for client in slow:
            client.settimeout(PATIENCE_S)
            text = b""
            while text.count(b"\n\n") < ENOUGH:
                data = client.recv(2**16)  # which raises where bytes were left out, or came twice
                assert data
                text += data


def first(response: httpx.Response) -> list[tuple[str, str, str]]:
    """Some events."""
    found: list[tuple[str, str, str]] = []
    for event in events(response):
        found.append(event)
        if len(found) == ENOUGH:
            break
    return found


def test_it_stops_whatever_clients_do(server: Server, certificate: Path) -> None:
    """Streams end with a proper last chunk, stalled readers hold nothing up, nothing is a traceback."""
    with (
        stalled(server, certificate, 5),
        server.http.stream("GET", "/api/ws/sse/trades?symbol=ETHUSDT") as response,
    ):
        started = time.monotonic()
        server.process.signal(signal.SIGTERM)
        assert list(events(response)) is not None
        assert server.process.ended() == 0
        assert time.monotonic() - started < 10
    assert not any("Traceback" in line for line in server.process.output)


def test_a_large_answer_is_whole(server: Server) -> None:
    """Of many writes, of which the socket takes some at once."""
    answer = server.http.get("/openapi.json")
    assert answer.json()["openapi"]
    assert len(answer.content) > 2**16
