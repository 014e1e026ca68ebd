"""The market line on real sockets: a replay to the last digit, an outage, readers that stall, endings."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from komas.model.kinds import kinds
from tests.e2e.processes import CAPTURE, PATIENCE_S, ROOT, Server, events, komas, running, serving, simulating, wait_for

pytestmark = pytest.mark.usefixtures("way")

BOTH_WAYS = pytest.mark.parametrize("stock", [False, True], ids=["komas serve", "hypercorn"])
TRADE = re.compile(r'"trade_id":(\d+),"price":([^,]+),"quantity":([^,]+),"timestamp":(\d+),"is_buyer_maker":(\w+)')
RAW = re.compile(r'"E":(\d+),.*"t":(\d+),"p":"([^"]+)","q":"([^"]+)","T":\d+,"m":(\w+)')


@pytest.mark.skipif(not CAPTURE.is_file(), reason="../shared/captures is not here")
def test_a_replay_arrives_to_the_last_digit(tmp_path: Path) -> None:
    """Every trade of the capture, once, in order, with the digits of the file."""
    wanted = []
    with gzip.open(CAPTURE, "rt") as lines:
        for line in lines:
            if '"stream":"btcusdt@trade"' in line:
                found = RAW.search(line)
                assert found is not None
                event_ms, *rest = found.groups()
                wanted.append((rest[0], rest[1], rest[2], event_ms, rest[3]))
    got = []
    with (
        simulating("--replay", str(CAPTURE), "--speed", "inf") as exchange,
        serving(tmp_path, "--upstream", exchange.ws_url, "--mailbox", "20000") as server,  # on a slow machine, too
        server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
    ):
        for name, data, _identity in events(response):
            assert name in ("message", "status", "health")
            if name == "message":
                found = TRADE.search(data)
                assert found is not None
                got.append(found.groups())
                if len(got) == len(wanted):
                    break
    assert len(wanted) == 9757
    assert got == wanted


def test_an_outage(tmp_path: Path) -> None:
    """The reader stays, is told, and gets the trades that were missed, every id in its place.

    An outage of forty seconds, and a stall, are on the deterministic clock: tests/venues/test_chaos.py and
    tests/web/routes/test_market_stalls.py.
    """
    with (
        simulating() as exchange,
        serving(tmp_path, "--upstream", exchange.ws_url) as server,
        server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
    ):
        seen = events(response)
        while next(seen)[0] != "message":
            continue
        exchange.fault(fault="outage", seconds=2)
        deadline = time.monotonic() + PATIENCE_S
        numbers: list[int] = []
        reconnected = False
        backfilled = 0
        for name, data, _identity in seen:
            assert name != "gap", data
            assert time.monotonic() < deadline
            if name == "status":
                reconnected = reconnected or '"reconnecting"' in data
            if name != "message":
                continue
            found = TRADE.search(data)
            assert found is not None
            numbers.append(int(found[1]))
            if data.endswith(',"backfilled":true}'):
                backfilled += 1
            elif backfilled:
                break
        assert reconnected
        assert backfilled > 10
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert server.status()["reconnects"] == 1


@pytest.mark.beneath_tls
def test_it_starts_without_a_network_and_says_why(tmp_path: Path) -> None:
    """It serves what it has, retries, and is there when the network is."""
    with serving(tmp_path, "--upstream", "ws://127.0.0.1:1", "--connect-wait-s", "0.5") as server:
        answer = server.http.post("/api/ws/connect")
        assert answer.status_code == 502
        assert "127.0.0.1:1 refused the connection" in answer.json()["detail"]
        assert server.status()["state"] == "reconnecting"
        assert server.http.get("/api/ws/prices").json()["count"] == 0
        assert server.http.get("/healthz").status_code == 200


def _stall(server: Server, count: int) -> list[socket.socket]:
    """Clients that ask for trades and never read."""
    readers = []
    for _ in range(count):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(b"GET /api/ws/sse/trades?symbol=BTCUSDT HTTP/1.1\r\nHost: localhost\r\n\r\n")
        readers.append(reader)
    wait_for(lambda: server.status()["subscribers"] == count, f"{count} subscribers")
    return readers


@BOTH_WAYS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_whatever_clients_do(stock: bool, number: signal.Signals, tmp_path: Path) -> None:  # noqa: FBT001 - a table
    """Five stalled readers, an idle connection, half a request: exit status 0, within the graceful timeout."""
    with serving(tmp_path, "--demo", stock=stock, KOMAS_DEMO="true") as server:
        readers = _stall(server, 5)
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST /api/ws/subscribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        with server.http.stream("GET", "/api/ws/sse/trades?symbol=ETHUSDT") as response:
            started = time.monotonic()
            server.process.signal(number)
            assert list(events(response)) is not None  # ends with a proper last chunk, or httpx would raise
            assert server.process.ended() == 0
            assert time.monotonic() - started < 5
        for client in (*readers, half):
            client.close()
    assert not any("Traceback" in line for line in server.process.output)


@BOTH_WAYS
def test_who_comes_within_the_drain_delay_is_served(stock: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a table
    """A balancer learns of the stop by /readyz, and sends clients until it has."""
    delay_s = 3
    with (
        serving(tmp_path, "--demo", stock=stock, KOMAS_DEMO="true", KOMAS_DRAIN_DELAY_S=str(delay_s)) as server,
        server.http.stream("GET", "/api/ws/sse/trades?symbol=ETHUSDT") as before,
    ):
        assert server.http.get("/readyz").status_code == 200
        stopped = time.monotonic()
        server.process.signal(signal.SIGTERM)
        wait_for(lambda: server.http.get("/readyz").status_code == 503, "not ready")
        assert "the server is shutting down" in server.http.get("/readyz").json()["reasons"]
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as newcomer:
            assert newcomer.get("/healthz").status_code == 200
            with newcomer.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as after:
                names = [name for name, _, _ in events(after)]  # to its proper end, or httpx would raise
                assert "message" in names
                assert "busy" not in names
        assert list(events(before))
        assert server.process.ended() == 0
        assert time.monotonic() - stopped >= delay_s
    assert not any("Traceback" in line for line in server.process.output)


def test_a_second_signal_ends_the_drain_delay(tmp_path: Path) -> None:
    """Who presses Ctrl-C twice does not wait for balancers."""
    with serving(tmp_path, "--demo", "--drain-delay-s", "300") as server:
        server.process.signal(signal.SIGINT)
        wait_for(lambda: server.http.get("/readyz").status_code == 503, "not ready")
        time.sleep(0.3)  # what comes sooner is the first one again
        server.process.signal(signal.SIGINT)
        assert server.process.ended() == 130


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """However long the first one may take."""
    with (
        serving(tmp_path, "--demo", "--graceful-timeout-s", "60") as server,
        socket.create_connection(("127.0.0.1", server.port)) as slow,
    ):
        slow.sendall(b"POST /api/ws/subscribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        server.process.signal(signal.SIGINT)
        time.sleep(0.3)
        server.process.signal(signal.SIGINT)
        assert server.process.ended() in (0, 130)


@BOTH_WAYS
def test_a_crash_of_the_feed_ends_the_process(stock: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a table
    """With a status that is not 0, and never a zombie that goes on answering."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import trio\n"
        "import komas.venues.core.feed as feed\n"
        "async def run(self, task_status=trio.TASK_STATUS_IGNORED):\n"
        "    task_status.started()\n"
        "    await trio.sleep(1)\n"
        "    raise ZeroDivisionError('the feed crashed')\n"
        "feed.Feed.run = run\n"
    )
    path = os.pathsep.join((str(tmp_path), str(ROOT)))  # the komas that is broken is the one that is tested
    with serving(tmp_path, stock=stock, PYTHONPATH=path, KOMAS_UPSTREAM="ws://127.0.0.1:1") as server:
        assert server.process.ended() != 0
        assert any("the feed crashed" in line for line in server.process.output)


def test_a_client_that_leaves_is_gone_within_a_second(demo: Server) -> None:
    """Also behind a pipelined request, and after a half-close; no socket is kept."""
    request = b"GET /api/ws/sse/trades?symbol=SOLUSDT HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = demo.status()["subscribers"]
    for sent in (request, request + request):
        with socket.create_connection(("127.0.0.1", demo.port)) as client:
            client.sendall(sent)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            wait_for(lambda: demo.status()["subscribers"] == int(str(before)) + 1, "subscribed")
        wait_for(lambda: demo.status()["subscribers"] == before, "left", timeout=5)


@pytest.mark.parametrize("kind", [str(kind) for kind in kinds(is_price=True)])
def test_every_kind_of_price_comes_through(kind: str, demo: Server) -> None:
    """From the simulator to a reader; each event repeats its type."""
    query = {"symbols": "BTCUSDT", "stream_type": kind}
    with demo.http.stream("GET", "/api/ws/sse/prices", params=query) as response:
        data = next(data for name, data, _identity in events(response) if name == "message")
        message = json.loads(data)
        assert (message["type"], message["data"]["type"], message["data"]["symbol"]) == (kind, kind, "BTCUSDT")
        streams = demo.http.get("/api/ws/streams").json()["streams"]
        assert any((row["type"], row["symbol"]) == (kind, "BTCUSDT") for row in streams)


def test_prices_of_a_name_that_is_not_latin(demo: Server) -> None:
    """In the query as UTF-8, percent-encoded."""
    with demo.http.stream("GET", "/api/ws/sse/prices", params={"symbols": "币安人生usdt"}) as response:
        data = next(data for name, data, _identity in events(response) if name == "message")
        assert '"symbol":"币安人生USDT"' in data


def test_a_return_is_exact_over_real_sockets(demo: Server) -> None:
    """A reader that comes back with its last id gets the next trade, and all after it."""
    identities: list[str] = []
    for _ in range(2):
        headers = {"Last-Event-ID": identities[-1]} if identities else {}
        with demo.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT", headers=headers) as response:
            for name, _data, identity in events(response):
                assert name in ("message", "status")
                if name == "message":
                    identities.append(identity)
                if len(identities) % 10 == 0 and identities:
                    break
        time.sleep(0.5)
    numbers = [int(identity.rpartition("-")[2]) for identity in identities]
    assert numbers == list(range(numbers[0], numbers[0] + 20))


def _come_back(server: Server, position: str) -> socket.socket:
    """A reader of trades that names its position, and does not read yet."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(PATIENCE_S)
    reader.connect(("127.0.0.1", server.port))
    request = f"GET /api/ws/sse/trades?symbol=BTCUSDT HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {position}\r\n\r\n"
    reader.sendall(request.encode())
    return reader


def _numbers_until(reader: socket.socket, number: int) -> list[int]:
    """The ids that a reader gets, up to one of them; nothing but events, and no gap."""
    numbers, rest = [0], b""
    while numbers[-1] < number:
        piece = reader.recv(2**16)
        assert piece
        *lines, rest = (rest + piece).split(b"\n")
        assert not any(line.startswith((b"event: gap", b"event: lagged")) for line in lines)
        numbers += [int(line.rpartition(b"-")[2]) for line in lines if line.startswith(b"id: ")]
    return numbers[1:]


def test_readers_that_come_back_and_do_not_read_cost_little(tmp_path: Path) -> None:
    """Each was joined its whole replay, a megabyte and more, and kept it; now the history has it, once for all.

    Then they read: everything since their position, once and in order, and what came meanwhile behind it.
    """
    missed, readers = 6_000, list[socket.socket]()
    with (
        simulating("--speed", "60", "--symbols", "BTCUSDT") as exchange,
        serving(tmp_path, "--upstream", exchange.ws_url, "--journal", "1000000") as server,
        server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
    ):
        identities = (identity for name, _data, identity in events(response) if name == "message")
        position = next(identities)
        first = int(position.rpartition("-")[2])
        next(identity for identity in identities if int(identity.rpartition("-")[2]) > first + missed)
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        readers += [_come_back(server, position) for _ in range(40)]
        wait_for(lambda: server.status()["subscribers"] == len(readers) + 1, "subscribed")
        assert process.memory_info().rss - before < len(readers) * 200 * 1024
        for reader in readers:
            numbers = _numbers_until(reader, first + missed + 1_000)
            assert numbers == list(range(first, numbers[-1] + 1))  # its own place, and what came after it
            reader.close()


def test_the_api_answers_over_http(demo: Server) -> None:
    """A plain client reads what komas writes."""
    assert isinstance(demo.http, httpx.Client)
    assert demo.http.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert demo.http.get("/metrics").text.startswith("# HELP komas_")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes its files")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_runs_without_its_standard_files(closed: str, tmp_path: Path) -> None:
    """Started by something that closed them: nothing is printed, and all else is as ever."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = shlex.join(komas("serve", "--bind", f"127.0.0.1:{port}", "--upstream", "ws://127.0.0.1:9"))
    with running(["sh", "-c", f"exec {command} {closed}"], {"KOMAS_DATA_DIR": str(tmp_path)}) as process:

        def answers() -> bool:
            assert process.is_alive()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, "the server")
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
        assert not any("Traceback" in line for line in process.output)
