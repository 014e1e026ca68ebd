"""The metrics of a real server, and a real Prometheus that scrapes them with the files of ``deploy/``."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.e2e.processes import PATIENCE_S, ROOT, Server, running, serving, wait_for

DEPLOY: Final = ROOT / "deploy"
# What a demo that nobody reads from for long never has.
EMPTY: Final = {"komas_websocket_closes_total", "komas_cluster_", "komas_backplane_"}  # of several processes, here one


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self._url}/-/ready", timeout=PATIENCE_S).status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; a question that it does not understand fails."""
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=query, timeout=PATIENCE_S).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """The first value that an expression has now."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def _scraping(server: Server, folder: Path) -> Iterator[Prometheus]:
    """``deploy/prometheus/``, but for the server's address and for how often it is asked."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    for ours, tried in (('"komas:8000"', f'"127.0.0.1:{server.port}"'), ("10s", "1s"), ("15s", "1s")):
        assert config.count(ours) == 1
        config = config.replace(ours, tried)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with running(command, cwd=folder):
        prometheus = Prometheus(f"http://{address}")
        wait_for(prometheus.is_ready, "Prometheus")
        yield prometheus


def test_prometheus_scrapes_and_the_dashboard_has_something_to_show(tmp_path: Path) -> None:
    """It takes every line; each panel's question is understood, and nearly each has an answer; no alert comes."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with (
        serving(tmp_path / "komas", "--demo") as server,
        _scraping(server, folder) as prometheus,
        server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT") as reader,
    ):
        lines = reader.iter_lines()
        next(line for line in lines if "trade" in line)
        wait_for(lambda: prometheus.value('up{job="komas"}') == 1, "a scrape")
        wait_for(lambda: prometheus.value("rate(komas_upstream_messages_total[10s]) > 0"), "a rate")
        (target,) = prometheus.ask("targets", state="active")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        known = {row["metric"]["__name__"] for row in prometheus.ask("query", query='{job="komas"}')["result"]}
        assert {"komas_build_info", "process_resident_memory_bytes", "python_info"} <= known
        kinds = prometheus.ask("metadata")
        assert kinds["komas_write_latency_seconds"][0]["type"] == "histogram"
        for expression in _expressions():
            answer = prometheus.ask("query", query=expression)["result"]
            assert answer or any(name in expression for name in EMPTY), expression
        firing = prometheus.ask("query", query='ALERTS{alertstate="firing"}')["result"]
        assert not firing


def test_sockets_are_counted_by_how_their_clients_left(tmp_path: Path) -> None:
    """By the code that a client closed with, where it is a registered one; 1006 without any, and that of a breach."""
    with serving(tmp_path, "--demo") as server:
        address = f"ws://127.0.0.1:{server.port}/ws/market"
        for code in (1000, 4321):
            with connect(address, open_timeout=PATIENCE_S) as client:
                client.close(code)
        with connect(address, open_timeout=PATIENCE_S) as broken:
            broken.socket.sendall(b"\xff\xff")  # bits that only an extension may set
            with suppress(ConnectionClosed):
                while True:
                    broken.recv(PATIENCE_S)
        with connect(address, open_timeout=PATIENCE_S) as cut:
            cut.socket.shutdown(socket.SHUT_RDWR)

        def is_counted() -> bool:
            text = server.http.get("/metrics").text
            return all(
                f'komas_websocket_closes_total{{code="{code}",reason="client",transport="market"}} 1.0\n' in text
                for code in ("1000", "other", "1002", "1006")
            )

        wait_for(is_counted, "four ends")


def _expressions() -> list[str]:
    """Those of the dashboard, for every server and a short time."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "komas.json").read_text("utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    for variable, value in (("$job", ".+"), ("$instance", ".+"), ("$__rate_interval", "10s")):
        found = [expression.replace(variable, value) for expression in found]
    return found
