"""``komas serve --workers``: several real processes, a real Redis, and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from komas.shutdown import ECHO_S
from komas.workers.supervisor import WATCHDOG_S
from tests.e2e.processes import PATIENCE_S, Exchange, Process, komas, running, simulating, wait_for
from tests.e2e.proxies import nginx_of_cluster, nginx_of_workers, proxying
from tests.e2e.redis_server import redis_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no workers there")

COUNT = 2


class Workers:
    """A supervisor, and what it prints and writes."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.folder = folder

    def pids(self) -> dict[int, int]:
        """The process of each worker that is there now."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                name = re.search(r"--node-name=\S+-(\d+)$", " ".join(child.cmdline()))
            except psutil.Error:
                continue
            if name is not None:
                found[int(name[1])] = child.pid
        return found

    def socket(self, number: int) -> Path:
        """Where one listens."""
        return self.folder / f"k.{number}.sock"

    def ask(self, number: int, path: str) -> tuple[int, Any]:
        """Ask one worker: the status, and what it said. httpx leaves a socket open that was refused."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self.socket(number)))
            http = HTTPConnection("localhost")
            http.sock = connection
            http.request("GET", path, headers={"Connection": "close"})
            with http.getresponse() as response:
                return response.status, json.loads(response.read())

    def is_ready(self, number: int) -> bool:
        """Whether one is there, and well."""
        try:
            return self.ask(number, "/readyz")[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def records(self) -> list[dict[str, object]]:
        """All records of the day, of all processes."""
        lines = [
            line for file in (self.folder / "data" / "logs").iterdir() for line in file.read_text("utf-8").splitlines()
        ]
        return [json.loads(line) for line in lines]

    def all_ready(self) -> None:
        """Wait until every worker is."""
        for number in range(COUNT):
            wait_for(lambda number=number: self.is_ready(number), f"worker {number} ready")  # type: ignore[misc]


@contextmanager
def working(folder: Path, exchange: Exchange, redis: Path, *options: str, **environment: str) -> Iterator[Workers]:
    """Workers while the block lasts; none is there behind it."""
    command = komas("serve", "--workers", str(COUNT), "--bind", f"unix:{folder}/k.sock", *options)
    variables = {
        "KOMAS_DATA_DIR": str(folder / "data"),
        "KOMAS_BACKPLANE": f"unix://{redis}",
        "KOMAS_BINANCE_UPSTREAM": exchange.ws_url,
        "KOMAS_REQUEST_RATE": "0",
        "TMPDIR": str(folder),  # what a supervisor leaves that is killed goes with the test
        **environment,
    }
    with running(command, variables) as process:
        process.line(r"2 workers listen; for nginx")
        workers = Workers(process, folder)
        workers.all_ready()
        yield workers


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Exchange, Path]]:
    """An exchange, and a Redis."""
    with redis_server() as redis, simulating() as exchange:
        yield exchange, redis.socket


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for sockets; nginx gives up root's rights, if it has them."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _gone(pids: Sequence[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_a_killed_worker_is_replaced_and_a_signal_drains_all(world: tuple[Exchange, Path], short: Path) -> None:
    """One token, one day's file whose records say whose they are, nobody left behind."""
    with working(short, *world) as workers:
        assert {workers.ask(number, "/api/ws/status")[1]["cluster"]["node"][-2:] for number in (0, 1)} == {
            "-0",
            "-1",
        }
        before = workers.pids()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: workers.pids().get(0, before[0]) != before[0], "a new worker")
        workers.all_ready()
        assert workers.pids()[1] == before[1]
        [replaced] = [each for each in workers.records() if "is replaced" in str(each["event"])]
        assert (replaced["worker"], replaced["status"], replaced["node"]) == (0, -9, "supervisor")
        pids = list(workers.pids().values())
        workers.process.signal(signal.SIGTERM)
        assert workers.process.ended() == 0
        assert _gone(pids)
        assert sorted(each.name for each in short.iterdir()) == ["data"]  # no socket
        names = [str(each["node"]) for each in workers.records()]
        assert {name[-2:] for name in names} == {"-0", "-1", "or"}
        made = [each for each in workers.records() if str(each["event"]).endswith("/admin-token")]
        assert len((short / "data" / "admin-token").read_text()) > 32
        assert made


def test_workers_do_not_outlive_a_supervisor_that_is_killed(world: tuple[Exchange, Path], short: Path) -> None:
    """Nobody would replace them, and the next supervisor would find their addresses taken."""
    with working(short, *world) as workers:
        pids = list(workers.pids().values())
        os.kill(workers.process.pid, signal.SIGKILL)
        wait_for(lambda: _gone(pids), "the end of the workers")
        assert not list(short.glob("*.sock"))


def test_a_second_signal_ends_all_at_once(world: tuple[Exchange, Path], short: Path) -> None:
    """Whatever they still do."""
    with working(short, *world, "--drain-delay-s", "300") as workers:
        pids = list(workers.pids().values())
        workers.process.signal(signal.SIGTERM)
        wait_for(lambda: not workers.is_ready(0), "a drain")
        time.sleep(2 * ECHO_S)  # what comes sooner is the same Ctrl-C, doubled by a wrapper
        workers.process.signal(signal.SIGTERM)
        assert workers.process.ended() == 130
        wait_for(lambda: _gone(pids), "the end of the workers")


def test_a_worker_that_hangs_is_killed_and_replaced(world: tuple[Exchange, Path], short: Path) -> None:
    """Newcomers wait there for as long."""
    with working(short, *world) as workers:
        before = workers.pids()[1]
        os.kill(before, signal.SIGSTOP)
        wait_for(lambda: workers.pids().get(1, before) != before, "a new worker", PATIENCE_S + WATCHDOG_S)
        workers.all_ready()


def test_a_worker_that_cannot_start_is_the_status_of_all(world: tuple[Exchange, Path], short: Path) -> None:
    """Its own line says why."""
    (short / "k.1.sock").write_text("somebody's")
    command = komas("serve", "--workers", "2", "--bind", f"unix:{short}/k.sock", "--data-dir", str(short / "data"))
    with running(command, {"KOMAS_BACKPLANE": f"unix://{world[1]}"}) as process:
        assert process.ended() == 2
    assert any("a file that is no socket is there" in line for line in process.output)
    assert any("worker 1 cannot start, so none does" in line for line in process.output)


def test_a_rolling_restart_behind_nginx_loses_no_trade(world: tuple[Exchange, Path], short: Path) -> None:
    """Readers come back to another worker with what they had last; nginx finds one at any moment."""
    with working(short, *world, "--unix-socket-mode", "666") as workers:
        block = "\n".join(workers.process.output).partition("deploy/nginx.conf:\n")[2].partition("\n}")[0] + "\n}"
        with proxying(nginx_of_workers(block), short / "proxy", 0) as port:
            readers = [_Reader(f"http://127.0.0.1:{port}/api/ws/sse/trades?symbol=BTCUSDT") for _ in range(4)]
            wait_for(lambda: all(len(reader.numbers) > 5 for reader in readers), "trades")
            before = workers.pids()
            workers.process.signal(signal.SIGUSR2)
            wait_for(lambda: _events(workers, "all workers are restarted"), "the restart of all", 2 * PATIENCE_S)
            after = workers.pids()
            assert before.keys() == after.keys()
            assert not before.items() & after.items()
            seen = [len(reader.numbers) for reader in readers]
            wait_for(lambda: all(len(r.numbers) > n + 5 for r, n in zip(readers, seen, strict=True)), "more trades")
            for reader in readers:
                reader.close()
            for reader in readers:
                assert reader.connections > 1, "it was restarted under nobody"
                assert reader.numbers == list(range(reader.numbers[0], reader.numbers[-1] + 1))
                assert reader.declared == []
        workers.process.signal(signal.SIGTERM)
        assert workers.process.ended() == 0


def test_systemd_hears_of_the_supervisor_alone_and_not_before_all_listen(
    world: tuple[Exchange, Path], short: Path
) -> None:
    """A start that is over too early lets others come who would be refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"{short}/notify")
        notify.settimeout(PATIENCE_S)
        with working(short, *world, NOTIFY_SOCKET=f"{short}/notify") as workers:
            assert notify.recv(4096) == b"READY=1\nSTATUS=serving"
            workers.process.signal(signal.SIGTERM)
            assert notify.recv(4096) == b"STOPPING=1\nSTATUS=draining"
            assert workers.process.ended() == 0
            notify.setblocking(False)
            with pytest.raises(BlockingIOError):
                notify.recv(4096)


def test_nginx_takes_the_file_of_the_cluster(tmp_path: Path) -> None:
    """Only the names are others, which the engine's network has."""
    folder = tmp_path / "proxy"
    with proxying(nginx_of_cluster, folder, 9) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/ws/sse/prices?symbols=BTCUSDT")
        assert answer.status_code == HTTPStatus.OK
        assert "event: busy" in answer.text


def test_a_restart_with_a_wrong_setting_is_refused(world: tuple[Exchange, Path], short: Path, tmp_path: Path) -> None:
    """Who serves goes on; the log says what is wrong."""
    file = tmp_path / "token"
    file.write_text("a" * 32)
    with working(short, *world, KOMAS_ADMIN_TOKEN_FILE=str(file)) as workers:
        before = workers.pids()
        file.write_text("short")
        workers.process.signal(signal.SIGUSR2)
        wait_for(lambda: _events(workers, "not restarted, for no worker could start: KOMAS_ADMIN_TOKEN"), "a refusal")
        assert workers.pids() == before
        workers.all_ready()


def _events(workers: Workers, words: str) -> list[dict[str, object]]:
    return [each for each in workers.records() if words in str(each["event"])]


class _Reader:
    """An EventSource in a thread: it comes back with the last id, and keeps the numbers of all trades."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_closed = threading.Event()
        self.numbers: list[int] = []
        self.declared: list[str] = []
        self.connections = 0
        self._last = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._is_closed.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._read()
            except httpx.TransportError:
                time.sleep(0.1)

    def _read(self) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        with (
            httpx.Client(timeout=httpx.Timeout(10, read=30)) as http,
            http.stream("GET", self._url, headers=headers) as response,
        ):
            response.raise_for_status()
            self.connections += 1
            name, data = "message", ""
            for line in response.iter_lines():
                key, _, value = line.partition(": ")
                if key == "id":
                    self._last = value
                elif key == "event":
                    name = value
                elif key == "data":
                    data = value
                elif not line:
                    if name == "message" and data:
                        self.numbers += map(int, re.findall(r'"trade_id":(\d+)', data))
                    elif name in ("gap", "lagged", "busy"):
                        self.declared.append(data)
                    name, data = "message", ""
                    if self._is_closed.is_set():
                        return
