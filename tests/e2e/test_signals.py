"""The signal line on real sockets: close codes as clients see them, kills, leaks, and the user's own examples."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client
from websockets.sync.client import ClientConnection

from komas.model.signals import SignalInsert
from komas.signals.database import SignalDatabase
from komas.signals.session import MESSAGE_BYTES
from komas.web.hypercorn.lasting_socket import LINGER_S
from tests.e2e.browser import browsing, needs_chromium, showing
from tests.e2e.processes import PATIENCE_S, ROOT, Server, komas, running, serving, token_for, wait_for

pytestmark = pytest.mark.usefixtures("way")

GUIDE = ROOT.parent / "shared" / "spec" / "signals-websocket-guide.ru.md"
VIP = ("--vip-days", "30")
UNREACHABLE = "ws://127.0.0.1:9"  # nobody wants prices here
SIGNALS, SIGNAL_BYTES = 100, 12_000  # more than the kernel takes for a client that does not read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of this module keeps its data."""
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module")
def server(way: str, folder: Path) -> Iterator[Server]:
    """A server without prices."""
    with serving(folder, "--upstream", UNREACHABLE) as server:
        yield server


@pytest.fixture(scope="module")
def vip(folder: Path) -> str:
    """A VIP's token that may publish, too."""
    return token_for(folder, *VIP, "--scope", "signals:publish")


def _connect(url: str, **options: object) -> ClientConnection:
    return websockets.sync.client.connect(url, open_timeout=PATIENCE_S, **options)  # type: ignore[call-overload,no-any-return]


def _end(client: ClientConnection) -> tuple[int, str]:
    """How the server closed, whatever it said before."""
    with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
        while True:
            client.recv(timeout=PATIENCE_S)
    end = closed.value.rcvd
    return (0, "cut") if end is None else (end.code, end.reason)


def _hear(client: ClientConnection, kind: str = "") -> dict[str, object]:
    """The next message that is no ping, or the next of a kind."""
    while True:
        message: dict[str, object] = json.loads(client.recv(timeout=PATIENCE_S))
        if message["type"] == kind or (not kind and message["type"] != "ping"):
            return message


@pytest.mark.beneath_tls
def test_the_demo_sends_a_newcomer_a_signal(tmp_path: Path) -> None:
    """With the token that it prints, marked as simulated."""
    with serving(tmp_path, "--demo") as server:
        line = server.process.line(r"^  komas (watch signals --server \S+ --token \S+)$")[1]
        with running(komas(*line.split())) as watching:
            watching.line(r"^time\tmessage\tid\tsignal_type\t")
            found = watching.line(r'\tnew_signal\t.*"simulated":true')
            assert found.string.split("\t")[3]


@pytest.mark.beneath_tls
def test_watching_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    """Killed, away for a while, back: nothing is missed and nothing comes twice."""
    numbers: list[int] = []
    with serving(tmp_path, "--upstream", UNREACHABLE) as server:
        token = token_for(tmp_path, *VIP, "--scope", "signals:publish")
        watch = running(komas("watch", "signals", "--json", "--server", server.url), {"KOMAS_TOKEN": token})
        with watch as watching:
            watching.line('"state":"connected"')
            server.publish(token, number=1)
            numbers.append(int(watching.line(r'^\{"type":"new_signal".*"number":(\d+)')[1]))
            os.kill(server.process.pid, signal.SIGKILL)
            publish = komas("signal", "publish", "--type", "mexc_dex", "--data", '{"number": 2}')
            subprocess.run([*publish, "--data-dir", str(tmp_path)], check=True, capture_output=True)
            with serving(tmp_path, "--upstream", UNREACHABLE, "--bind", f"127.0.0.1:{server.port}") as again:
                numbers.append(int(watching.line(r'^\{"type":"new_signal".*"number":(\d+)')[1]))
                again.publish(token, number=3)
                numbers.append(int(watching.line(r'^\{"type":"new_signal".*"number":(\d+)')[1]))
    assert numbers == [1, 2, 3]


@pytest.mark.beneath_tls
def test_watching_some_coins_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Of those that were published meanwhile, too; what cannot be watched is said in the server's words."""
    numbers: list[int] = []
    found = r'^\{"type":"(?:new_signal|signal_update)".*"number":(\d+)'
    with serving(tmp_path, "--upstream", UNREACHABLE) as server:
        token = token_for(tmp_path, *VIP, "--scope", "signals:publish")
        asked = ("watch", "signals", "--json", "--server", server.url, "--token", token)
        with running(komas(*asked, "--type", "mexc_spot_futures,funding_rate", "--coin", "btc,NB")) as watching:
            watching.line('"state":"connected"')
            server.publish(token, number=1, coin_name="ETH")
            server.publish(token, number=2, coin_name="BTC")
            numbers.append(int(watching.line(found)[1]))
            os.kill(server.process.pid, signal.SIGKILL)
            for arguments in (
                ("publish", "--type", "funding_rate", "--data", '{"number": 3, "coin_name": "ETH"}'),
                ("publish", "--type", "funding_rate", "--data", '{"number": 4, "coin_name": "nb"}'),
                ("publish", "--type", "mexc_dex", "--data", '{"number": 5, "coin_name": "NB"}'),
                ("update", "1", "--data", '{"number": 6, "coin_name": "NB"}'),
            ):
                command = komas("signal", *arguments, "--data-dir", str(tmp_path))
                subprocess.run(command, check=True, capture_output=True)
            with serving(tmp_path, "--upstream", UNREACHABLE, "--bind", f"127.0.0.1:{server.port}") as again:
                numbers += [int(watching.line(found)[1]) for _ in range(2)]
                again.publish(token, number=7, coin_name="eth")
                again.publish(token, number=8, coin_name="NB")
                numbers.append(int(watching.line(found)[1]))
                done = subprocess.run(
                    komas(*asked, "--type", "other"), capture_output=True, text=True, check=False, timeout=60
                )
        assert (done.returncode, "signal_type is one of" in done.stderr) == (2, True)
    assert numbers == [2, 4, 6, 8]


def test_a_token_of_the_demo_at_another_server_is_explained(tmp_path: Path) -> None:
    """And the reverse: the server tells strangers nothing, its log and the command name the secret."""
    demo = tmp_path / "demo"
    tokens = {folder: token_for(folder, *VIP) for folder in (tmp_path, demo)}
    for folder, other, words in (
        (tmp_path, demo, "for any other server: komas token issue"),
        (demo, tmp_path, "for `komas serve --demo`: komas token issue --demo"),
    ):
        with serving(folder, "--upstream", UNREACHABLE) as server:
            with _connect(server.signals_url(tokens[other])) as client:
                assert _end(client) == (1008, "Unauthorized")
            watch = komas("watch", "signals", "--server", server.url, "--token", tokens[other])
            environment = os.environ | {"KOMAS_DATA_DIR": str(tmp_path)}
            done = subprocess.run(watch, capture_output=True, text=True, check=False, timeout=60, env=environment)
            assert done.returncode == 2
            assert "the server says: Unauthorized; " in done.stderr
            assert str(other / "jwt-secret") in done.stderr
            assert words in done.stderr
            server.process.line(re.escape(str(other / "jwt-secret")))


def test_compression_is_not_negotiated(server: Server, vip: str) -> None:
    """Though the client asks for it."""
    with _connect(server.signals_url(vip), compression="deflate") as client:
        assert client.protocol.extensions == []
        assert _hear(client)["type"] == "connected"


def _frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False, mask: bool = True) -> bytes:
    head = bytes([(fin << 7) | (rsv1 << 6) | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([(mask << 7) | size])
    elif size < 2**16:
        head += struct.pack("!BH", (mask << 7) | 126, size)
    else:
        head += struct.pack("!BQ", (mask << 7) | 127, size)
    return head + (b"\0\0\0\0" if mask else b"") + payload


BREACHES = {
    "a binary message": (1003, _frame(2, b"x")),
    "an empty binary message": (1003, _frame(2, b"")),
    "not UTF-8": (1007, _frame(1, b"\xff\xfe")),
    "not UTF-8 at the end of a fragment": (1007, _frame(1, b"\xe2\x82", fin=False) + _frame(0, b"a")),
    "a message too big": (1009, _frame(1, b"x" * (MESSAGE_BYTES + 1))),
    "a message too big in fragments": (
        1009,
        _frame(1, b"x" * (MESSAGE_BYTES // 2), fin=False) + _frame(0, b"x" * (MESSAGE_BYTES // 2), fin=False) * 2,
    ),
    "a header that promises a terabyte": (1009, struct.pack("!BBQ", 0x81, 0xFF, 2**40) + b"\0\0\0\0x"),
    "a compressed bomb": (1009, _frame(1, b"\0" * 260_000, rsv1=True)),
    "a bit of an extension": (1002, _frame(1, b"x", rsv1=True)),
    "a frame without a mask": (1002, _frame(1, b"x", mask=False)),
    "an unknown opcode": (1002, _frame(3, b"x")),
    "a ping in fragments": (1002, _frame(9, b"x", fin=False)),
    "a continuation of nothing": (1002, _frame(0, b"x")),
    "messages without end": (1008, _frame(1, b'{"type":"ping"}') * 100),
    "pings without end": (1008, _frame(9, b"x") * 2000),
    "empty fragments without end": (1008, _frame(1, b"", fin=False) + _frame(0, b"", fin=False) * 2000),
}


def _commit(breach: str, url: str) -> tuple[int, str]:
    """Break the protocol; returns how the server closed."""
    with _connect(url, ping_interval=None) as client:
        assert _hear(client)["type"] == "connected"
        with suppress(OSError):
            client.socket.sendall(BREACHES[breach][1])
        return _end(client)


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_of_the_protocol_is_answered_by_its_code(breach: str, server: Server, vip: str) -> None:
    """And reaches the client, though it sends on."""
    code, reason = _commit(breach, server.signals_url(vip))
    assert code == BREACHES[breach][0]
    assert reason == ("Rate limit exceeded" if code == 1008 else reason)
    assert server.http.get("/healthz").status_code == 200


@pytest.mark.beneath_tls
@pytest.mark.parametrize("breach", ["a bit of an extension", "a frame without a mask", "not UTF-8"])
def test_after_a_breach_the_server_closes_first(breach: str, server: Server, vip: str) -> None:
    """RFC 6455, 7.1.1: a client that has answered the close waits for the end of TCP, and is not kept waiting."""
    with _connect(server.signals_url(vip), ping_interval=None) as client:
        assert _hear(client)["type"] == "connected"
        began = time.monotonic()
        client.socket.sendall(BREACHES[breach][1])
        _end(client)  # known once TCP has ended
        assert time.monotonic() - began < LINGER_S / 2


def test_a_token_of_a_hundred_kilobytes_is_no_request(server: Server) -> None:
    """Longer than any head may be: said in HTTP, before any WebSocket."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        with suppress(OSError):
            client.sendall(f"GET /ws/signals?token={'x' * 100_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 414 ")


@pytest.mark.beneath_tls
def test_a_bomb_costs_no_memory(server: Server, vip: str) -> None:
    """Ten of 256 MiB each: four at most, says the contract."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.is_file():
        pytest.skip("memory is read in /proc")

    def peak_kb() -> int:
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        assert found is not None
        return int(found[1])

    bomb = _frame(1, b"\0" * 260_000, rsv1=True)
    with _connect(server.signals_url(vip)) as client:
        assert _hear(client)["type"] == "connected"
    before = peak_kb()
    for _ in range(10):
        with _connect(server.signals_url(vip), compression="deflate") as client:
            assert _hear(client)["type"] == "connected"
            with suppress(OSError):
                client.socket.sendall(bomb)
                client.socket.shutdown(socket.SHUT_WR)  # no close frame will come: the server need not wait for one
            assert _end(client)[0] == 1009
    assert peak_kb() - before < 4096


def test_a_revocation_by_another_process_closes_open_sockets(server: Server, folder: Path, vip: str) -> None:
    """1008 VIP subscription required, to that user alone; a grant lets the user in again."""
    other = token_for(folder, *VIP, "--user-id", "124")
    with _connect(server.signals_url(vip)) as client, _connect(server.signals_url(other)) as bystander:
        assert _hear(client)["user_id"] == 123
        assert _hear(bystander)["user_id"] == 124
        subprocess.run(komas("vip", "revoke", "123", "--data-dir", str(folder)), check=True, capture_output=True)
        began = time.monotonic()
        assert _end(client) == (1008, "VIP subscription required")
        assert time.monotonic() - began < PATIENCE_S
        bystander.send('{"type":"ping"}')
        assert _hear(bystander)["type"] == "pong"
    with _connect(server.signals_url(vip)) as client:
        assert _end(client) == (1008, "VIP subscription required")
    subprocess.run(
        komas("vip", "grant", "123", "--days", "30", "--data-dir", str(folder)), check=True, capture_output=True
    )
    with _connect(server.signals_url(vip)) as client:
        assert _hear(client)["type"] == "connected"


def test_published_from_the_command_line_and_heard(server: Server, folder: Path, vip: str) -> None:
    """With its digits; updated, too."""
    with _connect(server.signals_url(vip)) as client:
        assert _hear(client)["type"] == "connected"
        data = '{"coin_name": "NB", "position": "SHORT", "spread": 8.840, "mexc_spot_price": 0.00670000}'
        publish = komas("signal", "publish", "--type", "mexc_spot_futures", "--data", data, "--data-dir", str(folder))
        done = subprocess.run(publish, check=True, capture_output=True, text=True)
        number = json.loads(done.stdout)["id"]
        text = client.recv(timeout=PATIENCE_S)
        assert '"spread":8.840,"mexc_spot_price":0.00670000,' in str(text)
        update = komas("signal", "update", str(number), "--data", '{"spread": 9.120}', "--data-dir", str(folder))
        subprocess.run(update, check=True, capture_output=True)
        changed = str(client.recv(timeout=PATIENCE_S))
        assert changed.startswith('{"type":"signal_update","signal_type":"mexc_spot_futures",')
        assert changed.endswith(f'"signal_id":{number},"data":{{"spread":9.120}}}}')


def _never_reading(server: Server, token: str, **query: object) -> socket.socket:
    """A signal socket with the smallest of buffers, whose client reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before connecting: it decides the window's scale
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", server.port))
    target = server.signals_url(token, **query).split("/", 3)[3]
    client.sendall(
        f"GET /{target} HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return client


def _in_the_kernel(client: socket.socket, server: Server) -> int:
    """How many bytes wait on either side of a connection, outside the server."""
    ports = f":{client.getsockname()[1]:04X}", f":{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4].split(":") for row in rows if row[1].endswith(ports) and row[2].endswith(ports)]
    return sum(int(size, 16) for queue in queues for size in queue)


@pytest.mark.beneath_tls
@pytest.mark.parametrize("stock", [False, True])
def test_a_drain_is_1001_also_beside_those_who_do_not_read(tmp_path: Path, *, stock: bool) -> None:
    """Under both commands; the process ends with 0, within its time."""
    environment = {"KOMAS_UPSTREAM": UNREACHABLE, "KOMAS_SIGNAL_MAILBOX": "1000"}
    with serving(tmp_path, stock=stock, **environment) as server, ExitStack() as stack:
        token = token_for(tmp_path, *VIP, "--scope", "signals:publish")
        reader = stack.enter_context(_connect(server.signals_url(token)))
        assert _hear(reader)["type"] == "connected"
        stalled = [stack.enter_context(_never_reading(server, token)) for _ in range(3)]
        wait_for(lambda: "komas_signal_sockets 4.0" in server.http.get("/metrics").text, "four sockets")
        for number in range(SIGNALS):
            server.publish(token, filling="x" * SIGNAL_BYTES, number=number)
            assert _hear(reader, "new_signal")
        if Path("/proc/net/tcp").is_file():
            assert all(_in_the_kernel(client, server) < SIGNALS * SIGNAL_BYTES for client in stalled)
        server.process.signal(signal.SIGTERM)
        assert _end(reader) == (1001, "Server shutting down")
        assert server.process.ended() == 0


def _has_served(server: Server, vip: str) -> None:
    """Let one VIP come and go, so that everything is open that stays open: the database is, from the first one on."""
    with _connect(server.signals_url(vip)) as client:
        assert _hear(client)["type"] == "connected"
    wait_for(lambda: "komas_signal_sockets 0.0" in server.http.get("/metrics").text, "no sockets", timeout=20)


@pytest.mark.beneath_tls
def test_a_socket_that_is_left_leaves_nothing_behind(server: Server, vip: str) -> None:
    """Closed, cut, thrown out with messages unread, left half way: places and files are free again."""
    _has_served(server, vip)
    files = Path(f"/proc/{server.process.pid}/fd")
    before = len(list(files.iterdir())) if files.is_dir() else 0
    for _ in range(20):
        with _connect(server.signals_url(vip)) as client:
            assert _hear(client)["type"] == "connected"
        with _connect(server.signals_url(vip)) as cut:
            cut.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            cut.socket.close()
        with _connect(server.signals_url(vip), ping_interval=None) as flooding:
            flooding.socket.sendall(_frame(1, b'{"type":"ping"}') * 100)
            assert _end(flooding) == (1008, "Rate limit exceeded")
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"GET /ws/signals HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
        half.close()
    wait_for(lambda: "komas_signal_sockets 0.0" in server.http.get("/metrics").text, "no sockets", timeout=20)
    if files.is_dir():
        wait_for(lambda: len(list(files.iterdir())) <= before + 5, "no files", timeout=20)


FLOOD = _frame(1, b'{"type":"ping"}') * 100
GOODBYE = _frame(8, b"\x03\xe8")
LEAVING: dict[str, tuple[bytes, Callable[[socket.socket], None] | None]] = {
    "closes": (b"", socket.socket.close),
    "sends no more": (b"", lambda client: client.shutdown(socket.SHUT_WR)),
    "says that it closes": (GOODBYE, None),
    "floods and stays": (FLOOD, None),
    "floods and closes": (FLOOD, socket.socket.close),
    "floods and sends no more": (FLOOD, lambda client: client.shutdown(socket.SHUT_WR)),
    "floods and says that it closes": (FLOOD + GOODBYE, None),
}


@pytest.mark.beneath_tls
def test_a_place_is_free_once_its_client_has_left(tmp_path: Path) -> None:
    """In the middle of a replay that it does not read: the place was kept for 8 to 28 s."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()
    for number in range(300):
        database.publish(SignalInsert("mexc_dex", {"number": number, "filling": "x" * 15_000}, "p"), 0)
    database.close()
    with serving(tmp_path, "--upstream", UNREACHABLE) as server:
        token = token_for(tmp_path, *VIP)

        def has(sockets: str) -> bool:
            return f"\nkomas_signal_sockets {sockets}\n" in server.http.get("/metrics").text

        for how, (words, leave) in LEAVING.items():
            with _never_reading(server, token, since_id=0) as client:
                wait_for(lambda: has("1.0"), "a socket")
                time.sleep(0.5)  # until nothing more fits into the kernel
                client.sendall(words)
                if leave is not None:
                    leave(client)
                wait_for(lambda: has("0.0"), how, timeout=5)


def test_a_flood_and_a_close_in_one_breath_leave_nothing_behind(server: Server, vip: str) -> None:
    """However many messages are left unread, while the client keeps its end open."""
    files = Path(f"/proc/{server.process.pid}/fd")
    if not files.is_dir():
        pytest.skip("open files are counted in /proc")
    _has_served(server, vip)
    before = len(list(files.iterdir()))
    target = server.signals_url(vip).split("/", 3)[3]
    handshake = (
        f"GET /{target} HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for count in range(36, 50, 2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            client.sendall(handshake)
            heard = b""
            while b'"connected"' not in heard:
                heard += client.recv(65536)
            client.sendall(_frame(1, b'{"type":"ping"}') * count + _frame(8, b"\x03\xe8"))
        wait_for(lambda: len(list(files.iterdir())) <= before + 2, "all closed", timeout=20)
    assert "a session failed" not in "\n".join(server.process.output)


def test_no_token_is_in_any_log_error_or_metric(tmp_path: Path) -> None:
    """Wherever it was put, whatever format the access log has, whatever went wrong."""
    secret = tmp_path / "data" / "jwt-secret"
    config = tmp_path / "hypercorn.toml"
    config.write_text(
        'accesslog = "-"\n'
        "access_log_format = '%(h)s %(r)s %(R)s %(U)s %(q)s %(Uq)s %({authorization}i)s %({cookie}i)s"
        " %({sec-websocket-protocol}i)s %(f)s %(a)s'\n"
    )
    for stock in (False, True):
        command = ["--config", str(config)] if not stock else []
        environment = {"KOMAS_LOG_LEVEL": "DEBUG", "KOMAS_UPSTREAM": UNREACHABLE}
        with serving(tmp_path / "data", *command, stock=stock, **environment) as server:
            token = token_for(tmp_path / "data", *VIP, "--scope", "signals:publish")
            said = _put_everywhere(server, token)
            metrics = server.http.get("/metrics").text
            logs = server.http.get("/api/logs/today", params={"limit": 1000}).text
            server.process.signal(signal.SIGTERM)
            assert server.process.ended() == 0
        files = [file.read_bytes().decode("utf-8", "replace") for file in (tmp_path / "data").rglob("*.jsonl")]
        assert any("connected" in text or "stopping" in text for text in files)
        sinks = ["\n".join(server.process.output), metrics, logs, *said, *files]
        for part in (token, *token.split(".")[1:], secret.read_text()):
            assert not [sink for sink in sinks if part in sink], f"leaked under stock={stock}"


def _put_everywhere(server: Server, token: str) -> list[str]:
    """Use a token well and badly; returns every answer."""
    said: list[str] = []
    with _connect(server.signals_url(token)) as client:
        client.send(json.dumps({"type": "refresh", "token": token}))
        client.send(json.dumps({"type": token}))
        said += [str(client.recv(timeout=PATIENCE_S)) for _ in range(3)]
    for options in (
        {"additional_headers": {"Authorization": f"Bearer {token}"}},
        {"subprotocols": ["komas.signals", f"bearer.{token}"]},
        {"subprotocols": [f"bearer.{token}"], "additional_headers": {"Authorization": "Bearer x"}},
    ):
        with _connect(server.signals_url(), **options) as client:
            with suppress(websockets.exceptions.ConnectionClosed):  # the last of them is turned away
                client.send("{}")
            said.append(str(client.protocol.handshake_exc))
    header = {"Authorization": f"Bearer {token}"}
    for method, target, body, headers in (
        ("POST", "/api/signals", b"{", header),
        ("POST", "/api/signals", json.dumps({"signal_type": token, "data": {token: 1}}).encode()[:200], header),
        ("GET", f"/api/signals?token={token}", b"", {}),
        ("GET", f"/api/signals?since_id={token}"[:60], b"", header),
        ("GET", f"/ws/signals?token={token}", b"", {}),
        ("GET", f"/{token}", b"", {}),
        ("GET", f"/api/ws/status?token={token}", b"", {"Cookie": f"token={token}", "Referer": f"http://x/?t={token}"}),
        ("POST", f"/api/ws/subscribe?access_token={token}", b"{}", header),
        ("GET", "/api/vip/1", b"", header),
    ):
        answer = server.http.request(method, target, content=body, headers=headers)
        said.append("" if token[:60] in target else answer.text)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(f"GET /ws/signals?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n".encode())
        client.sendall(f"\xff{token}\r\n\r\n".encode("latin-1"))
        with suppress(OSError):
            client.recv(65536)
    return said


CLOSES = """<!doctype html><script>
const seen = {};
const urls = URLS;
let isIn = !urls.drain;
const stop = () => {
  if (isIn && Object.keys(seen).length === Object.keys(urls).length - 1) fetch('/stop', { method: 'POST', body: '1' });
};
for (const [name, url] of Object.entries(urls)) {
  const ws = new WebSocket(url);
  ws.onmessage = (event) => {
    if (name === 'flood') for (let i = 0; i < 100; i++) ws.send('{"type":"ping"}');
    if (name === 'drain' && !isIn) { isIn = true; stop(); }
  };
  ws.onclose = (event) => {
    // A close is unclean, too, while the page itself has unsent messages left: the flood's own doing.
    seen[name] = [event.code, event.reason, event.wasClean || name === 'flood'];
    if (Object.keys(seen).length === Object.keys(urls).length)
      fetch('/seen', { method: 'POST', body: JSON.stringify(seen) });
    else stop();
  };
}
</script>"""


@needs_chromium
def test_chromium_sees_each_code_and_reason(tmp_path: Path) -> None:
    """From a listed page on another port, and from a page that is not listed."""
    with showing({}) as pages, showing({}) as strangers:
        with _listed(tmp_path / "data", pages.url) as server:
            token = token_for(tmp_path / "data", *VIP)
            urls = {
                "no token": server.signals_url(),
                "garbage": server.signals_url("garbage"),
                "no vip": server.signals_url(token_for(tmp_path / "data")),
                "since": server.signals_url(token, since_id="x"),
                "flood": server.signals_url(token),
                "drain": server.signals_url(token),
            }
            pages.files["/"] = CLOSES.replace("URLS", json.dumps(urls)).encode()
            with browsing(f"{pages.url}/", tmp_path / "one"):
                pages.wait()
                server.process.signal(signal.SIGTERM)
                wait_for(lambda: len(pages.received) == 2, "the last close")
            assert pages.received[1] == {
                "no token": [1008, "Unauthorized", True],
                "garbage": [1008, "Unauthorized", True],
                "no vip": [1008, "VIP subscription required", True],
                "since": [1008, "Invalid since_id", True],
                "flood": [1008, "Rate limit exceeded", True],
                "drain": [1001, "Server shutting down", True],
            }
        with _listed(tmp_path / "data", pages.url) as server:
            one = {"foreign": server.signals_url(token)}
            strangers.files["/"] = CLOSES.replace("URLS", json.dumps(one)).encode()
            with browsing(f"{strangers.url}/", tmp_path / "two"):
                wait_for(lambda: {"foreign": [1008, "Origin not allowed", True]} in strangers.received, "the close")


# The user's own examples, as printed


def _examples(language: str) -> list[str]:
    if not GUIDE.is_file():
        pytest.skip("the user's document is not beside the project")
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


def test_the_python_example(server: Server, vip: str, tmp_path: Path) -> None:
    """Under asyncio, with the token filled in and the port of the test."""
    [example] = _examples("python")
    file = tmp_path / "example.py"
    file.write_text(example.replace("localhost:8000", f"localhost:{server.port}").replace("YOUR_TOKEN", vip))
    with running([sys.executable, "-u", str(file)]) as process:
        process.line(r"^Received: \{'type': 'connected', 'message': 'Connected to CryptoTracker")
        process.line(r"^Received: \{'type': 'pong'\}$")
        server.publish(vip, coin_name="NB", spread=8.84)
        process.line(
            r"^Received: \{'type': 'new_signal', 'signal_type': 'mexc_spot_futures', 'data': \{'id': \d+, 'coin"
        )


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs wscat and React, from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    install = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
        "wscat@6",
        "react@18",
        "react-dom@18",
    ]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=5 * PATIENCE_S)
    if done.returncode:
        pytest.skip(f"npm install failed: {done.stderr.strip()[-200:]}")
    return folder / "node_modules"


def test_the_wscat_example(server: Server, vip: str, node_modules: Path) -> None:
    """As printed, but for the token and the port."""
    example = next(line for line in "\n".join(_examples("bash")).splitlines() if line.startswith("wscat -c"))
    line = example.replace("localhost:8000", f"localhost:{server.port}").replace("YOUR_TOKEN", vip)
    environment = {"PATH": f"{node_modules / '.bin'}{os.pathsep}{os.environ['PATH']}"}
    with running(["bash", "-c", f"sleep 600 | {line}"], environment) as process:
        process.line(r'"type":"connected","message":"Connected to CryptoTracker')
        server.publish(vip, coin_name="NB")
        process.line(r'"type":"new_signal"')


SCRIPT_PAGE = """<!doctype html><script>
window.onerror = (message) => fetch('/seen', { method: 'POST', body: JSON.stringify({ error: message }) });
const handleSignalUpdate = () => {};
const handleNewSignal = (message) => fetch('/seen', { method: 'POST', body: JSON.stringify(message) });
const log = console.log;
console.log = (...words) => {
  log(...words);
  if (words[0] === 'Successfully connected') fetch('/ready', { method: 'POST', body: '1' });
};
EXAMPLE
</script>"""


@needs_chromium
def test_the_javascript_example(tmp_path: Path) -> None:
    """From a page on another port, with the default settings; the reconnecting handler beside it parses, too."""
    connecting, handling, *_ = _examples("javascript")
    with showing({}) as pages, serving(tmp_path / "data", "--upstream", UNREACHABLE) as server:
        token = token_for(tmp_path / "data", *VIP, "--scope", "signals:publish")
        example = connecting.replace("localhost:8000", f"localhost:{server.port}").replace(
            "your_access_token_here", token
        )
        page = SCRIPT_PAGE.replace("EXAMPLE", example + "\nconst connectWebSocket = () => {};\n" + handling)
        pages.files["/"] = page.encode()
        with browsing(f"{pages.url}/", tmp_path / "browser"):
            assert pages.wait() == 1
            server.publish(token, coin_name="NB", spread=8.84)
            wait_for(lambda: len(pages.received) > 1, "a signal")
            assert pages.received[1]["data"]["coin_name"] == "NB"  # type: ignore[index]


REACT_PAGE = """<!doctype html><div id="root"></div>
<script src="/react.js"></script><script src="/react-dom.js"></script>
<script type="importmap">{"imports": {"react": "/react-module.js"}}</script>
<script type="module">
EXAMPLE
function App() {
  const signals = useWebSocketSignals('TOKEN');
  useEffect(() => {
    if (signals.length) fetch('/seen', { method: 'POST', body: JSON.stringify(signals) });
  }, [signals]);
  return null;
}
const log = console.log;
console.log = (...words) => {
  log(...words);
  if (words[0] === 'WebSocket connected') fetch('/ready', { method: 'POST', body: '1' });
};
ReactDOM.createRoot(document.getElementById('root')).render(React.createElement(App));
</script>"""
REACT_MODULE = "export const { useEffect, useRef, useState } = window.React;"


@needs_chromium
def test_the_react_example(tmp_path: Path, node_modules: Path) -> None:
    """With React itself: a signal, its update merged into it, and a new connection after a restart of the server."""
    [example] = [text for text in _examples("javascript") if "useWebSocketSignals" in text]
    files = {
        "/react.js": (node_modules / "react/umd/react.production.min.js").read_bytes(),
        "/react-dom.js": (node_modules / "react-dom/umd/react-dom.production.min.js").read_bytes(),
        "/react-module.js": REACT_MODULE.encode(),
    }
    with showing(files) as pages, serving(tmp_path / "data", "--upstream", UNREACHABLE) as server:
        token = token_for(tmp_path / "data", *VIP, "--scope", "signals:publish")
        text = example.replace("localhost:8000", f"localhost:{server.port}")
        pages.files["/"] = REACT_PAGE.replace("EXAMPLE", text).replace("TOKEN", token).encode()
        with browsing(f"{pages.url}/", tmp_path / "browser"):
            assert pages.wait() == 1
            numbers: list[int] = []

            def shows() -> bool:
                """Its page is connected before the server has let it in, and hears nothing until then."""
                numbers.append(server.publish(token, coin_name="NB", spread=8.84))
                time.sleep(0.2)
                return ("NB", 8.84) in _shown(pages.received[-1])

            wait_for(shows, "a signal")
            header = {"Authorization": f"Bearer {token}"}
            server.http.patch(f"/api/signals/{numbers[-1]}", json={"data": {"spread": 9.12}}, headers=header)
            wait_for(lambda: ("NB", 9.12) in _shown(pages.received[-1]), "its update")


def _shown(report: object) -> list[tuple[object, object]]:
    return [(row.get("coin_name"), row.get("spread")) for row in report] if isinstance(report, list) else []


def _listed(folder: Path, origin: str) -> AbstractContextManager[Server]:
    return serving(folder, KOMAS_UPSTREAM=UNREACHABLE, KOMAS_CORS_ORIGINS=origin)


# Kills


def test_what_was_answered_201_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    """In mid-publish, three times; retries with their keys do not double; a VIP that comes back misses nothing."""
    chance = random.Random(7)
    answered: dict[str, int] = {}
    keys: list[str] = []
    token = ""
    for life in range(3):
        with serving(tmp_path, "--upstream", UNREACHABLE) as server:
            token = token or token_for(tmp_path, *VIP, "--scope", "signals:publish")
            header = {"Authorization": f"Bearer {token}"}
            for key in keys[-5:]:  # the last of the life before: some were answered, one was cut
                answer = _post(server, key, header)
                assert answered.setdefault(key, answer) == answer
            deadline = time.monotonic() + chance.uniform(0.2, 0.6)
            with suppress(httpx.HTTPError):
                while True:
                    keys.append(f"{life}-{len(keys)}")
                    if time.monotonic() > deadline:
                        os.kill(server.process.pid, signal.SIGKILL)
                    answered[keys[-1]] = _post(server, keys[-1], header)
    with (
        serving(tmp_path, "--upstream", UNREACHABLE) as server,
        _connect(server.signals_url(token, since_id=0)) as client,
    ):
        header = {"Authorization": f"Bearer {token}"}
        for key in keys:
            assert answered.setdefault(key, _post(server, key, header)) == _post(server, key, header)
        seen: dict[str, int] = {}
        while len(seen) < len(keys):
            data = _hear(client, "new_signal")["data"]
            assert isinstance(data, dict)
            seen[data["key"]] = data["id"]
        assert seen == answered
        assert len(set(seen.values())) == len(keys)


def _post(server: Server, key: str, header: dict[str, str]) -> int:
    body = {"signal_type": "mexc_dex", "data": {"key": key}}
    answer = server.http.post("/api/signals", json=body, headers={**header, "Idempotency-Key": key})
    assert answer.status_code == 201
    number: int = answer.json()["id"]
    return number
