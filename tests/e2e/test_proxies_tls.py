"""The proxies of ``deploy/`` as they are deployed: TLS, HTTP/2, and a Unix socket between them and komas."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import websockets.asyncio.client
import websockets.exceptions
import websockets.typing

from benchmarks.certificate import sign_certificate
from tests.e2e.processes import PATIENCE_S, Server, events, serving, simulating, token_for
from tests.e2e.proxies import OVER_TLS, OurProxy, proxying, trusting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is this machine")
CLIENT = "127.0.0.2"  # is no trusted proxy
NAMED = {"sni_hostname": "komas.example"}
# What a client may write in order to be somebody else, or to reach past the proxy.
SPOOFED = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6;proto=http", "X-Forwarded-Host": "evil.example"}


@pytest.fixture(scope="module")
def door() -> Iterator[Path]:
    """The path of a socket, which is short; nginx gives up root's rights, if it has them."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "s"


@pytest.fixture(scope="module")
def server(door: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server at a port and at a Unix socket."""
    with simulating() as exchange:
        binds = ("--bind", f"127.0.0.1:0,unix:{door}", "--unix-socket-mode", "666")
        told = ("--trusted-proxies", "127.0.0.1", "--cors-origins", "https://app.example")
        with serving(tmp_path_factory.mktemp("data"), *binds, *told, "--upstream", exchange.ws_url) as server:
            yield server


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("proxy", OVER_TLS, ids=lambda proxy: proxy.__name__)
def test_everything_works_over_tls_and_http_2(
    proxy: OurProxy, kind: str, server: Server, door: Path, tmp_path: Path
) -> None:
    """The page, prices, control with the token, sockets of our own page alone; the client is who it is."""
    folder = tmp_path / "proxy"
    sign_certificate(folder)
    admin = {"Authorization": f"Bearer {server.admin_token()}"}
    token = token_for(server.folder, "--vip-days", "1")
    to: int | Path = door if kind == "unix" else server.port
    with (
        proxying(proxy, folder, to) as port,
        httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"Host": "komas.example"},
            verify=trusting(folder),
            http2=True,
            timeout=PATIENCE_S,
        ) as client,
    ):
        page = client.get("/", extensions=NAMED)
        assert (page.http_version, page.status_code) == ("HTTP/2", 200)
        assert "<title>" in page.text
        assert client.post("/api/ws/connect", extensions=NAMED).status_code == 401
        assert client.post("/api/ws/connect", headers=admin, extensions=NAMED).status_code == 200
        with client.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT", extensions=NAMED) as response:
            assert response.http_version == "HTTP/2"
            seen = (json.loads(data)["type"] for name, data, _ in events(response) if name == "message")
            assert [next(seen) for _ in range(20)] == ["trade"] * 20

        def open_sockets() -> list[str]:
            sessions = client.get("/api/admin/sessions", headers=admin, extensions=NAMED).json()["sessions"]
            return [session["address"] for session in sessions]

        signals = f"/ws/signals?token={token}"
        assert _greeted(port, folder, signals, "https://komas.example", open_sockets) == ("connected", [CLIENT])
        assert _greeted(port, folder, "/ws/market", "https://komas.example", list) == ("open", [])
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            _greeted(port, folder, signals, "https://evil.example", list)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008

        plain = httpx.get(
            f"http://127.0.0.1:{port + 1}/docs?x=1", headers={"Host": "komas.example"}, timeout=PATIENCE_S
        )
        assert plain.status_code in (301, 308)
        assert plain.headers["location"].startswith("https://komas.example")
        assert plain.headers["location"].endswith("/docs?x=1")


def _greeted(
    port: int, folder: Path, path: str, origin: str, meanwhile: Callable[[], list[str]]
) -> tuple[str, list[str]]:
    """The first message's type, and what is seen while the socket is open.

    By a client of one thread: of one that reads TLS in a thread of its own, a request did not reach its proxy at times.
    """

    async def greet() -> tuple[str, list[str]]:
        async with websockets.asyncio.client.connect(
            f"wss://komas.example{path}",
            host="127.0.0.1",
            port=port,
            local_addr=(CLIENT, 0),
            ssl=trusting(folder),
            origin=websockets.typing.Origin(origin),
            additional_headers=SPOOFED,
            open_timeout=PATIENCE_S,
            proxy=None,
        ) as socket:
            message = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
            return message["type"], meanwhile()

    return asyncio.run(greet())


@pytest.mark.parametrize("proxy", OVER_TLS, ids=lambda proxy: proxy.__name__)
def test_a_proxy_says_that_komas_is_away_where_its_socket_is_gone(proxy: OurProxy, tmp_path: Path) -> None:
    """An EventSource is told to come back, all else is 502 or 503."""
    folder = tmp_path / "proxy"
    sign_certificate(folder)
    with (
        tempfile.TemporaryDirectory(prefix="k") as empty,
        proxying(proxy, folder, Path(empty) / "s") as port,
        httpx.Client(
            base_url=f"https://127.0.0.1:{port}", verify=trusting(folder), http2=True, timeout=PATIENCE_S
        ) as client,
    ):
        host = {"Host": "komas.example"}
        answer = client.get("/api/ws/sse/prices?symbols=BTCUSDT", headers=host, extensions=NAMED)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert answer.text.startswith("retry: ")
        assert "event: busy" in answer.text
        assert client.get("/api/ws/status", headers=host, extensions=NAMED).status_code in (502, 503)
