"""Rude clients: one packet costs one connection, and a clear answer where one can be given."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.processes import DIRECT_WRITES, Server, as_admin, events, komas, running, serving, simulating, wait_for

FEW_FILES = 64

pytestmark = pytest.mark.usefixtures("way")

UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
UPGRADE_H2C = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def _send(server: Server, data: bytes, *, timeout: float = 10.0) -> bytes:
    """Send bytes, read until the server has nothing more to say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := client.recv(65536):
                answer += chunk
        except (ConnectionResetError, TimeoutError):
            return answer
        return answer


@pytest.mark.parametrize(
    "packet",
    [
        UPGRADE + KEY + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
        UPGRADE + KEY + b"Sec-WebSocket-Extensions: \xff\r\n\r\n",
        UPGRADE.replace(b"Upgrade\r\nUpgrade", b"Upgrade, \xff\r\nUpgrade") + KEY + b"\r\n",
        UPGRADE + KEY + b"\r\n" + b"\x81\x05hello early bytes",
        UPGRADE + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        UPGRADE_H2C,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: 1\r\n" % index for index in range(10_000)) + b"\r\n",
        b"POST /api/ws/connect HTTP/1.1\r\nHost: ]x[\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"POST /api/ws/subscribe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"G",
        b"",
    ],
)
def test_no_packet_costs_more_than_its_connection(packet: bytes, demo: Server) -> None:
    """The server answers the next client, and what was said was no 500."""
    answer = _send(demo, packet)
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert not answer.startswith(b"HTTP/1.1 101")
    assert demo.http.get("/healthz").json() == {"status": "ok"}
    assert not any("connection failed" in line for line in demo.process.output)


AMBIGUOUS = {
    "two lengths": b"POST /api/ws/connect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
    b"Content-Length: 0\r\n\r\n",
    "a length and chunks": b"POST /api/ws/connect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a header in two lines": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-One: a\r\n b\r\n\r\n",
    "a target of another host": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two origins": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\nOrigin: http://b\r\n\r\n",
    "a user in the host": b"GET /healthz HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
    "a blank in the host": b"GET /healthz HTTP/1.1\r\nHost: local host\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "an event stream, too": b"GET /api/ws/sse/trades?symbol=BTCUSDT HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a WebSocket, too": UPGRADE.replace(b"localhost", b"user@localhost") + KEY + b"\r\n",
}


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_may_be_understood_in_two_ways_is_refused(request_: bytes, demo: Server) -> None:
    """RFC 9112: 400 with words, and the end of the connection; what stands behind it is no request."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(request_ + b"GET /api/ws/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head.lower()
    assert json.loads(body)["status"] == 400  # and nothing behind it
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("size", [40_000, 60_000, 200_000])
def test_a_target_that_is_too_long_is_told_from_a_header_that_is(size: int, demo: Server) -> None:
    """414 and 431, whether it comes in one packet or in many."""
    for head, status in (
        (b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * size), b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * size), b"431"),
    ):
        assert _send(demo, head).split(b" ")[1] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (KEY.replace(b"13", b"8"), b"426"),
        (KEY.replace(b"13", b"13, 8"), b"426"),
        (KEY.replace(b"==", b""), b"400"),
        (KEY.replace(b"dGhl", b"dG l"), b"400"),
        (KEY.replace(b"dGhl", b""), b"400"),
        (KEY + KEY, b"400"),
        (KEY.partition(b"\r\n")[0] + b"\r\n", b"400"),
        (KEY.partition(b"\r\n")[2], b"400"),
    ],
)
def test_a_handshake_that_is_none_is_told_why(headers: bytes, status: bytes, demo: Server) -> None:
    """RFC 6455, 4.2: no key of sixteen bytes, no handshake; of another version, the one that is spoken is named."""
    head, _, body = _send(demo, UPGRADE.replace(b"GET /", b"GET /ws/signals") + headers + b"\r\n").partition(
        b"\r\n\r\n"
    )
    assert head.split(b" ")[1] == status
    lines = head.lower().split(b"\r\n")
    assert (b"sec-websocket-version: 13" in lines) == (b"upgrade: websocket" in lines) == (status == b"426")
    assert json.loads(body)["status"] == int(status)


def test_a_body_of_ten_megabytes_is_refused_and_the_refusal_is_read(demo: Server) -> None:
    """413, also to a client that sends on."""
    answer = demo.http.post("/api/ws/subscribe", content=b"x" * 10_000_000, headers=as_admin(demo))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_connection_close_closes_and_keep_alive_keeps(demo: Server) -> None:
    """Two requests on one connection, then the end that was asked for."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        _ask_on(client)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        assert b'{"status":"ok"}' in answer


def test_an_idle_connection_is_closed_on_time(tmp_path: Path) -> None:
    """After keep_alive_timeout, answered or never asked; an open stream is not idle."""
    config = tmp_path / "hypercorn.toml"
    config.write_text("keep_alive_timeout = 1\n")
    with (
        serving(tmp_path, "--demo", "--config", str(config)) as server,
        server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
    ):
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                client.sendall(sent)
                while client.recv(65536):
                    continue
        seen = events(response)
        assert sum(next(seen)[0] == "message" for _ in range(20)) >= 15


def test_a_refused_handshake_is_closed(demo: Server) -> None:
    """Not left open without any time-out."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(UPGRADE + b"\r\n")
        while client.recv(65536):
            continue


def test_a_limit_holds_against_a_burst(demo: Server) -> None:
    """Counted at the moment of entering: fifty at once get no further than one after the other."""
    request = b"GET /api/ws/sse/trades?symbol=XRPUSDT HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = int(str(demo.status()["subscribers"]))
    clients = [socket.create_connection(("127.0.0.1", demo.port), timeout=10) for _ in range(50)]
    for client in clients:
        client.sendall(request)
    wait_for(lambda: int(str(demo.status()["subscribers"])) == before + 50, "fifty readers")
    for client in clients:
        client.close()
    wait_for(lambda: int(str(demo.status()["subscribers"])) == before, "all gone", timeout=10)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_client_that_has_left_keeps_no_socket_open(demo: Server) -> None:
    """Not even for the keep-alive time: a hundred short visits are a hundred sockets otherwise."""

    def open_files() -> int:
        return len(list(Path(f"/proc/{demo.process.pid}/fd").iterdir()))

    demo.http.get("/healthz")
    before = open_files()
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
    wait_for(lambda: open_files() <= before + 5, "sockets closed", timeout=10)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell limits the open files")
def test_idle_connections_lock_nobody_out(tmp_path: Path) -> None:
    """Where few files may be open: they kept all of them for 75 s."""
    few = ["sh", "-c", f'ulimit -n {FEW_FILES}; exec "$0" "$@"', *komas("serve", "--demo", "--bind", "127.0.0.1:0")]
    variables = {"KOMAS_DATA_DIR": str(tmp_path), "KOMAS_DIRECT_WRITES": DIRECT_WRITES.get()}
    with running(few, variables) as process, ExitStack() as stack:
        port = int(process.line(r"komas listens on http://127.0.0.1:(\d+)")[1])
        for _ in range(2 * FEW_FILES):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as newcomer:
            newcomer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert newcomer.recv(65536).startswith(b"HTTP/1.1 200")
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
        assert not any("Traceback" in line for line in process.output)


def test_logs_stay_closed_however_the_path_is_written(demo: Server) -> None:
    """A trailing slash is the same page."""
    for path in ("/api/logs/today", "/api/logs/today/", "/api/logs/today%2f", "/debug/tasks", "/debug/tasks/"):
        answer = demo.http.get(path, headers={"X-Forwarded-For": "6.6.6.6"})
        assert answer.status_code in (401, 404)
        assert "records" not in answer.text


def test_slow_headers_do_not_stop_others(demo: Server) -> None:
    """Half a request waits by itself."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(b"GET /healthz HTT")
        assert demo.http.get("/healthz").status_code == 200
        time.sleep(0.2)
        client.sendall(b"P/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_early_answer_is_read_by_a_client_that_sends_on(demo: Server) -> None:
    """Reading goes on behind the refusal: a reset would destroy it while the client is still busy sending."""
    token = demo.admin_token().encode()
    head = b"POST /api/ws/subscribe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n" % token
    head += b"Content-Length: 10000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(head)
        for _ in range(10):
            client.sendall(b"x" * 20_000)  # an error here is the reset
            time.sleep(0.1)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 413")


def test_what_was_asked_right_before_half_a_close_is_answered(demo: Server) -> None:
    """As `nc -N` and some load balancers do."""
    head = b"POST /api/ws/connect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Length: 0\r\n\r\n"
    answer = _send(demo, head % demo.admin_token().encode())
    assert b'"connected":true' in answer


def test_http_1_0_has_no_chunks(demo: Server) -> None:
    """What the hub writes past Hypercorn is chunks; a client of HTTP/1.0 reads the events until the end."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
        client.sendall(b"GET /api/ws/sse/trades?symbol=BTCUSDT HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while answer.count(b"\n\n") < 10:
            answer += client.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert all(line.split(b":")[0] in (b"", b"id", b"data", b"event", b"retry") for line in body.splitlines()[:-1])


def _ask_on(client: socket.socket) -> None:
    """One whole request and answer on a connection that stays open."""
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b'{"status":"ok"}' not in answer:
        chunk = client.recv(65536)
        assert chunk, answer
        answer += chunk


def test_the_head_of_a_request_has_five_seconds(demo: Server) -> None:
    """A byte now and then is no request; what is under way, or comes later on the same connection, is left alone."""
    with (
        demo.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
        socket.create_connection(("127.0.0.1", demo.port), timeout=30) as kept,
        socket.create_connection(("127.0.0.1", demo.port), timeout=30) as slow,
        socket.create_connection(("127.0.0.1", demo.port), timeout=30) as silent,
    ):
        _ask_on(kept)
        began = time.monotonic()
        for letter in b"GET /healthz HTTP/1.1\r\nX":
            try:
                slow.sendall(bytes([letter]))
            except OSError:
                break
            time.sleep(0.3)
        assert time.monotonic() - began >= 4
        assert silent.recv(65536) == b""
        _ask_on(kept)
        seen = events(response)
        assert sum(next(seen)[0] == "message" for _ in range(20)) >= 15


@pytest.mark.parametrize(
    "upgrade", ["", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"]
)
def test_who_offered_another_protocol_and_leaves_keeps_no_task(upgrade: str, tmp_path: Path) -> None:
    """Curl and Java's client do; the offer is not taken up, and their leaving is noticed at once."""

    def count(name: str) -> float:
        lines = server.http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    request = f"GET /api/ws/sse/trades?symbol=BTCUSDT HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n".encode()
    # Not the demo: parts of it start ten seconds later, with tasks of their own.
    with simulating() as exchange, serving(tmp_path, "--upstream", exchange.ws_url) as server:
        headers = as_admin(server)
        wait_for(lambda: server.http.post("/api/ws/connect", headers=headers).status_code == 200, "the exchange")
        before = count("komas_tasks")
        with ExitStack() as clients:
            for _ in range(20):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
                client.sendall(request)
                while b"retry:" not in client.recv(65536):
                    continue
            wait_for(lambda: count("komas_sse_clients") == 20, "twenty clients")
            assert count("komas_tasks") >= before + 15  # one each; a task of the start may have ended meanwhile
        wait_for(lambda: count("komas_tasks") <= before + 5, "their tasks' end", timeout=20)


@pytest.mark.parametrize("target", [b"?symbols=BTCUSDT", b"?", b"http://[::1", b"http://[zz]/x", b"x:"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
def test_a_request_without_a_path_is_told_so(method: bytes, target: bytes, demo: Server) -> None:
    """400, or 404 of what can be read as a path; and no failure in any log. For a WebSocket, 403, or 400 as well."""
    ending = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert _send(demo, method + b" " + target + ending).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
    if method == b"GET":
        assert _send(demo, UPGRADE.replace(b"GET /", b"GET " + target) + KEY + b"\r\n").startswith(
            (b"HTTP/1.1 403", b"HTTP/1.1 400")
        )
    assert not any("Traceback" in line for line in demo.process.output)
