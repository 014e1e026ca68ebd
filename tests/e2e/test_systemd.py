"""``komas serve`` as a service of ``Type=notify``, and the unit of ``deploy/``."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE_S, ROOT, serving, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no systemd there")


@pytest.fixture
def notify() -> Iterator[socket.socket]:
    """What systemd listens on."""
    with tempfile.TemporaryDirectory(prefix="k") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"{folder}/notify")
        notify.settimeout(PATIENCE_S)
        yield notify


def _next(notify: socket.socket) -> str:
    while (said := notify.recv(4096).decode()) == "WATCHDOG=1":
        continue
    return said.partition("\n")[0]


def test_a_service_is_ready_once_it_listens_and_says_that_it_stops(notify: socket.socket, tmp_path: Path) -> None:
    """What is started after it finds it there; the watchdog hears of it all the while."""
    watched = {"NOTIFY_SOCKET": notify.getsockname(), "WATCHDOG_USEC": "300000"}
    options = ("--upstream", "ws://127.0.0.1:9", "--drain-delay-s", "2")
    with serving(tmp_path, *options, **watched) as server:
        assert _next(notify) == "READY=1"
        assert server.http.get("/healthz").status_code == 200
        wait_for(lambda: notify.recv(4096) == b"WATCHDOG=1", "a sign of life")
        server.process.signal(signal.SIGTERM)
        assert _next(notify) == "STOPPING=1"
        assert server.http.get("/healthz").status_code == 200
        assert server.process.ended() == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["komas.service", "komas@.service"])
def test_systemd_takes_the_unit_and_finds_little_exposed(name: str, tmp_path: Path) -> None:
    """Only the program is another, which must be there; of a template there is an instance."""
    unit = (ROOT / "deploy" / name).read_text("utf-8")
    copy = tmp_path / name.replace("@", "@0")
    copy.write_text(unit.replace("/opt/komas/bin/komas", shutil.which("true") or ""))
    for command in (["verify", str(copy)], ["security", "--offline=yes", "--threshold=20", str(copy)]):
        run = subprocess.run(["systemd-analyze", *command], capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
