"""Who may control behind real proxies, and that everything works through those of ``deploy/``."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.typing

from tests.e2e.browser import browsing, needs_chromium, showing
from tests.e2e.processes import PATIENCE_S, Exchange, Server, events, serving, simulating, token_for, wait_for
from tests.e2e.proxies import (
    AS_THEY_COME,
    OF_OURS,
    Proxy,
    caddy_of_ours,
    caddy_that_compresses,
    nginx_as_it_comes,
    nginx_of_ours,
    proxying,
)

WISH = {"symbols": ["BTCUSDT"], "stream_type": "ticker"}
GUARDED: tuple[tuple[str, str, object], ...] = (
    ("POST", "/api/vip/mallory", {"days": 36500}),
    ("DELETE", "/api/vip/mallory", None),
    ("GET", "/api/vip/mallory", None),
    ("POST", "/api/signals", {"signal_type": "mexc_dex", "data": {"a": 1}}),
    ("PATCH", "/api/signals/1", {"data": {"a": 1}}),
    ("GET", "/api/signals", None),
    ("GET", "/api/logs/today", None),
    ("GET", "/debug/tasks", None),
)
CONTROL: tuple[tuple[str, str, object], ...] = (
    ("POST", "/api/ws/connect", None),
    ("POST", "/api/ws/disconnect", None),
    ("POST", "/api/ws/subscribe", WISH),
    ("POST", "/api/ws/unsubscribe", WISH),
    ("POST", "/api/ws/rotate", None),
    ("POST", "/api/ws/quick/start-prices?symbols=BTCUSDT", None),
    ("POST", "/api/ws/quick/stop", None),
)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """A simulated exchange."""
    with simulating() as exchange:
        yield exchange


@pytest.fixture(scope="module")
def plain(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default settings, that nobody told of a proxy."""
    with serving(tmp_path_factory.mktemp("plain"), "--upstream", exchange.ws_url) as server:
        yield server


@pytest.fixture(scope="module")
def told(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was told of its proxy, as the files of deploy/ ask for."""
    options = ("--upstream", exchange.ws_url, "--trusted-proxies", "127.0.0.1", "--cors-origins", "https://app.example")
    with serving(tmp_path_factory.mktemp("told"), *options) as server:
        yield server


def _statuses(url: str, calls: tuple[tuple[str, str, object], ...], host: str, tries: int = 1) -> dict[str, int]:
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers={"Host": host}) as outsider:
        return {f"{verb} {target}": _status(outsider, verb, target, body, tries) for verb, target, body in calls}


def _status(outsider: httpx.Client, verb: str, target: str, body: object, tries: int) -> int:
    try:
        return outsider.request(verb, target, json=body).status_code
    except httpx.RemoteProtocolError:
        if tries == 1:
            raise
        return _status(outsider, verb, target, body, tries - 1)


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "komas.example"])
@pytest.mark.parametrize("proxy", [*AS_THEY_COME, *OF_OURS], ids=lambda proxy: proxy.__name__)
def test_an_outsider_is_kept_out_through_every_proxy(proxy: Proxy, host: str, plain: Server, tmp_path: Path) -> None:
    """Also where neither side was told of the other, and whatever host the outsider writes."""
    calls = GUARDED + CONTROL if sys.platform == "linux" else GUARDED
    with proxying(proxy, tmp_path, plain.port) as port:
        # Caddy 2.6 closes its own connection to us under one refused POST in some thousands, and loses the answer.
        tries = 2 if proxy is caddy_of_ours else 1
        statuses = _statuses(f"http://127.0.0.1:{port}", calls, host, tries)
        assert set(statuses.values()) <= {401, 403}, statuses


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows who is at the other end")
@pytest.mark.parametrize("proxy", [*AS_THEY_COME, *OF_OURS], ids=lambda proxy: proxy.__name__)
def test_an_outsider_that_leaves_at_once_controls_nothing(proxy: Proxy, plain: Server, tmp_path: Path) -> None:
    """It resets its connection behind the call: its proxy may then hold nothing of it that is connected."""
    call = b"POST /api/ws/quick/start-prices?symbols=XRPUSDT HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with proxying(proxy, tmp_path, plain.port) as port:
        for attempt in range(20):
            with socket.create_connection(("127.0.0.1", port)) as outsider:
                outsider.sendall(call)
                time.sleep(attempt % 5 / 1000)
                outsider.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The look that answers this one came after theirs.
        assert httpx.post(f"http://127.0.0.1:{port}/api/ws/connect", timeout=PATIENCE_S).status_code == 401
    assert "xrpusdt@ticker" not in plain.http.get("/api/ws/streams").text


def test_a_program_of_this_machine_is_let_in_meanwhile(plain: Server) -> None:
    """The user's own curl lines, without a token; VIPs, signals and logs need one here, too."""
    statuses = _statuses(plain.url, CONTROL, f"localhost:{plain.port}")
    assert set(statuses.values()) == {200}, statuses
    statuses = _statuses(plain.url, GUARDED, f"localhost:{plain.port}")
    assert set(statuses.values()) == {401}, statuses


def test_the_same_under_the_hypercorn_command(exchange: Exchange, tmp_path: Path) -> None:
    """Which binds on its own."""
    with serving(tmp_path / "data", stock=True, KOMAS_UPSTREAM=exchange.ws_url) as server:
        assert server.http.post("/api/ws/connect").json()["connected"] is True
        with proxying(nginx_as_it_comes, tmp_path / "proxy", server.port) as port:
            assert httpx.post(f"http://127.0.0.1:{port}/api/ws/disconnect", timeout=PATIENCE_S).status_code == 401
        assert server.status()["connected"] is True


@pytest.mark.parametrize("proxy", OF_OURS, ids=lambda proxy: proxy.__name__)
def test_everything_works_through_the_proxies_of_deploy(proxy: Proxy, told: Server, tmp_path: Path) -> None:
    """The page, prices at once, control with the token, a page's own socket and not another page's."""
    admin = {"Authorization": f"Bearer {told.admin_token()}"}
    token = token_for(told.folder, "--vip-days", "1")
    with proxying(proxy, tmp_path, told.port) as port:
        host = {"Host": "komas.example"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, headers=host) as client:
            assert "<title>" in client.get("/").text
            assert client.post("/api/ws/connect").status_code == 401
            assert client.post("/api/ws/connect", headers=admin).json()["connected"] is True
            with client.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response:
                seen = [json.loads(data)["type"] for name, data, _ in _some(response) if name == "message"]
            assert seen == ["trade"] * 20
        for origin, kind in (("http://komas.example", "connected"), ("https://app.example", "connected")):
            with _socket(port, token, origin) as socket:
                assert json.loads(socket.recv(timeout=PATIENCE_S))["type"] == kind
        with _socket(port, token, "https://evil.example") as socket:
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                socket.recv(timeout=PATIENCE_S)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Origin not allowed")


@pytest.mark.parametrize("given", ["query", "header", "subprotocol"])
@pytest.mark.parametrize("proxy", OF_OURS, ids=lambda proxy: proxy.__name__)
def test_a_long_token_passes_every_proxy(proxy: Proxy, given: str, told: Server, tmp_path: Path) -> None:
    """Large issuers write groups and roles into theirs; 8 KB were the end of it for nginx, 16 for HAProxy."""
    secret = (told.folder / "jwt-secret").read_bytes()
    claims = {"sub": "123", "exp": time.time() + 3600, "vip_until": time.time() + 3600}
    short = jwt.encode({**claims, "groups": ""}, secret, "HS256")
    token = jwt.encode({**claims, "groups": "x" * ((16_000 - len(short)) * 3 // 4)}, secret, "HS256")
    assert 15_990 < len(token) <= 16_000
    pair = ["komas.signals", f"bearer.{token}"]
    with (
        proxying(proxy, tmp_path, told.port) as port,
        websockets.sync.client.connect(
            "ws://komas.example/ws/signals" + (f"?token={token}" if given == "query" else ""),
            address=("127.0.0.1", port),
            additional_headers={"Authorization": f"Bearer {token}"} if given == "header" else None,
            subprotocols=[websockets.typing.Subprotocol(name) for name in pair] if given == "subprotocol" else None,
            open_timeout=PATIENCE_S,
            proxy=None,
        ) as client,
    ):
        assert json.loads(client.recv(timeout=PATIENCE_S))["type"] == "connected"


def _some(response: httpx.Response) -> Iterator[tuple[str, str, str]]:
    count = 0
    for event in events(response):
        count += event[0] == "message"
        yield event
        if count == 20:
            return


def _socket(port: int, token: str, origin: str) -> websockets.sync.client.ClientConnection:
    return websockets.sync.client.connect(
        f"ws://komas.example/ws/signals?token={token}",
        address=("127.0.0.1", port),
        origin=websockets.typing.Origin(origin),
        open_timeout=PATIENCE_S,
        proxy=None,
    )


def test_a_proxy_that_compresses_holds_no_events_back(plain: Server, tmp_path: Path) -> None:
    """Caddy 2.6 with ``encode gzip`` let ten bytes pass in forty seconds."""
    with (
        proxying(caddy_that_compresses, tmp_path / "proxy", plain.port) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, headers={"Accept-Encoding": "gzip"}) as client,
        client.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response,
    ):
        began = time.monotonic()
        assert sum(name == "message" for name, _, _ in _some(response)) == 20
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("proxy", OF_OURS, ids=lambda proxy: proxy.__name__)
def test_an_event_stream_is_told_to_come_back_while_komas_is_away(proxy: Proxy, tmp_path: Path) -> None:
    """200 and ``retry:``: on 502 an EventSource gives up for good. Everything else says 502 or 503.

    With the place that it had: who takes the ``id`` of each event for it, as httpx-sse's README does, kept none.
    """
    with serving(tmp_path / "data", "--upstream", "ws://127.0.0.1:9") as server:
        pass
    with proxying(proxy, tmp_path / "proxy", server.port) as port:
        url = f"http://127.0.0.1:{port}/api/ws/sse/trades?symbol=BTCUSDT"
        answer = httpx.get(url, headers={"Last-Event-ID": "abc-7"}, timeout=PATIENCE_S)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        retry, place, name, data, *end = answer.text.split("\n")
        assert 2000 <= int(retry.removeprefix("retry: ")) <= 6000
        assert place == "id: abc-7"
        assert name == "event: busy"
        assert json.loads(data.removeprefix("data: ")) == {"reason": "komas is away"}
        assert end == ["", ""]
        assert httpx.get(f"http://127.0.0.1:{port}/api/ws/status", timeout=PATIENCE_S).status_code in (502, 503)


PAGE = """<!doctype html><script>
const source = new EventSource('http://localhost:PORT/api/ws/sse/prices?symbols=BTCUSDT');
let seen = 0;
const report = (what) => { seen = 0; fetch('/' + what, { method: 'POST', body: `"${what}"` }); };
source.onmessage = () => { if (++seen === 3) report('prices'); };
source.addEventListener('busy', () => report('busy'));
</script>"""


@needs_chromium
def test_an_eventsource_in_chromium_outlives_a_restart_behind_nginx(exchange: Exchange, tmp_path: Path) -> None:
    """On a page of another origin; komas is killed, is away for a while, and comes back."""
    options = ("--upstream", exchange.ws_url, "--trusted-proxies", "127.0.0.1")
    with (
        showing({}) as pages,
        serving(tmp_path / "data", *options) as server,
        proxying(nginx_of_ours, tmp_path / "proxy", server.port) as port,
    ):
        pages.files["/"] = PAGE.replace("PORT", str(port)).encode()
        with browsing(f"{pages.url}/", tmp_path / "browser"):
            wait_for(lambda: "prices" in pages.received, "prices")
            os.kill(server.process.pid, signal.SIGKILL)
            wait_for(lambda: "busy" in pages.received, "the proxy's own answer")
            pages.received.clear()
            with serving(tmp_path / "data", *options, "--bind", f"127.0.0.1:{server.port}"):
                wait_for(lambda: "prices" in pages.received, "prices again")
