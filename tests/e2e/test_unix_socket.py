"""``komas serve --bind unix:/path``: who gets in, who is counted as whom, and whose file it is."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets.sync.client

from komas.web.socket_file import is_alive
from tests.e2e.processes import PATIENCE_S, Process, events, komas, running, simulating, token_for, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


@contextmanager
def _serving(folder: Path, *arguments: str, is_stock: bool = False) -> Iterator[Process]:
    """A server on ``folder/s``."""
    bind, data = f"unix:{folder}/s", str(folder / "data")
    variables = {"KOMAS_DATA_DIR": data, "KOMAS_UPSTREAM": "ws://127.0.0.1:9", "KOMAS_REQUEST_BURST": "3"}
    variables["KOMAS_REQUEST_RATE"] = "0.01"
    stock = [sys.executable, "-m", "hypercorn", "--config", "hypercorn.toml", "--bind", bind, "komas.asgi:app"]
    with running(stock if is_stock else komas("serve", "--bind", bind, *arguments), variables) as process:
        wait_for(lambda: is_alive(folder / "s") or not process.is_alive(), "the socket")
        yield process


@contextmanager
def _client(folder: Path, **headers: str) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(folder / "s"))
    with httpx.Client(transport=transport, base_url="http://localhost", headers=headers, timeout=PATIENCE_S) as client:
        yield client


def _answers(folder: Path) -> bool:
    if not (folder / "s").exists() or not is_alive(folder / "s"):
        return False
    with _client(folder) as client:
        return client.get("/healthz").status_code == 200


def test_all_is_served_over_a_unix_socket_for_the_clients_of_a_proxy(folder: Path) -> None:
    """Prices, signals, and control for who has the token alone: a proxy speaks for everybody."""
    with simulating() as exchange, _serving(folder, "--upstream", exchange.ws_url, "--request-rate", "0") as process:
        line = process.line(r"komas listens on unix:\S+/s; (curl --unix-socket \S+/s http://localhost/readyz)$")
        assert subprocess.run(line[1].split(), capture_output=True, check=True).stdout
        assert any("control needs the token" in line and "only Unix sockets" in line for line in process.output)
        admin = {"Authorization": f"Bearer {(folder / 'data' / 'admin-token').read_text()}"}
        with _client(folder) as client:
            assert "<title>" in client.get("/").text
            assert client.post("/api/ws/connect").status_code == 401
            assert client.post("/api/ws/connect", headers=admin).status_code == 200
            with client.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as response:
                seen = (json.loads(data)["type"] for name, data, _ in events(response) if name == "message")
                assert [next(seen) for _ in range(20)] == ["trade"] * 20
            token = token_for(folder / "data", "--vip-days", "1")
            with websockets.sync.client.unix_connect(
                str(folder / "s"),
                f"ws://localhost/ws/signals?token={token}",
                additional_headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"},
                open_timeout=PATIENCE_S,
            ) as socket:
                assert json.loads(socket.recv(timeout=PATIENCE_S))["type"] == "connected"
                [session] = client.get("/api/admin/sessions", headers=admin).json()["sessions"]
                assert session["address"] == "192.0.2.7"


@pytest.mark.parametrize("is_stock", [False, True])
def test_limits_of_an_address_are_those_of_the_proxy_s_client(is_stock: bool, folder: Path) -> None:  # noqa: FBT001 - a table
    """All clients of a proxy that names nobody are one, which the log says."""
    with _serving(folder, is_stock=is_stock) as process:
        with _client(folder, **{"X-Forwarded-For": "192.0.2.7"}) as client:
            assert [client.get("/api/ws/status").status_code for _ in range(4)] == [200, 200, 200, 429]
        with _client(folder, Forwarded="for=192.0.2.7") as client:
            assert client.get("/api/ws/status").status_code == 429
        with _client(folder, **{"X-Forwarded-For": "192.0.2.8"}) as client:
            assert client.get("/api/ws/status").status_code == 200
        with _client(folder) as client:
            assert [client.get("/api/ws/status").status_code for _ in range(4)] == [200, 200, 200, 429]
        wait_for(lambda: any("count as one address" in line for line in process.output), "the warning")


def test_the_socket_of_a_server_that_runs_is_not_taken(folder: Path) -> None:
    """It went on, and nobody reached it."""
    with _serving(folder) as first:
        with _serving(folder) as second:
            assert second.ended() == 1
            assert second.output[-1] == f"komas: unix:{folder}/s is taken by another program; give another --bind"
        assert first.is_alive()
        assert _answers(folder)


def test_the_file_is_gone_with_the_server(folder: Path) -> None:
    """And only its owner and group could connect; after a kill the next server replaces it."""
    path = folder / "s"
    with _serving(folder) as process:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        process.signal(signal.SIGKILL)
        process.ended()
    assert path.is_socket()
    with _serving(folder) as process:
        assert _answers(folder)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    assert not path.exists()


def test_a_second_address_that_is_taken_leaves_no_file(folder: Path) -> None:
    """Of two addresses, one of which cannot be had."""
    with _serving(folder):
        command = komas("serve", "--bind", f"unix:{folder}/t,unix:{folder}/s", "--data-dir", str(folder / "other"))
        run = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 1
    assert f"komas: unix:{folder}/s is taken by another program" in run.stderr.decode()
    assert not (folder / "t").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "long", "nowhere"])
def test_a_path_that_cannot_be_is_one_line(kind: str, folder: Path) -> None:
    """Which says why; nothing is deleted."""
    path = folder / {"long": "s" * 120, "nowhere": "run/s"}.get(kind, "s")
    if kind == "file":
        path.write_text("dear diary")
    elif kind == "folder":
        path.mkdir()
    command = komas("serve", "--bind", f"unix:{path}", "--data-dir", str(folder / "data"))
    run = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 2
    assert b"Traceback" not in run.stderr
    words = {
        "file": "no socket is there",
        "folder": "a folder is there",
        "long": "bytes",
        "nowhere": "its folder is not",
    }
    last = run.stderr.decode().splitlines()[-1]
    assert last.startswith(f"komas: bind: unix:{path}")
    assert words[kind] in last
    assert kind not in ("file", "folder") or path.exists()
