"""What is measured: one ``komas serve``, or several around one store, all fed by the same exchange."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import msgspec

from benchmarks import machine
from benchmarks.cluster import exchange
from benchmarks.cluster.servers import free_port, store_command
from benchmarks.crowd import GREETED
from benchmarks.processes import Child, child, komas

READY_S: Final = 20.0
LOADED_S: Final = 1.5  # what a process loads in the background when it has started is not what is measured
MANY: Final = "1000000"
SLICES: Final = Path("/sys/fs/cgroup/cpu")  # Linux, root, control groups of the first version
PERIOD_US: Final = 10_000


class Arrangement(msgspec.Struct, frozen=True):
    """Which processes there are: alone, or a leader and so many edges, with this window."""

    edges: int = 0
    window_ms: float = 2.0
    share: float = 0.0  # of a core, that each process which serves may use; 0: all of it

    @property
    def name(self) -> str:
        """In a table."""
        if not self.edges:
            return "one process"
        edges = "1 edge" if self.edges == 1 else f"{self.edges} edges"
        return f"leader, {edges}" + ("" if self.window_ms else ", no window")


class Store:
    """A redis-server that keeps nothing on the disk, and can be restarted."""

    def __init__(self, folder: str) -> None:
        command = store_command()
        assert command is not None
        self.port = free_port()
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder)
        self._command = (command, *where, "--save", "", "--appendonly", "no", "--daemonize", "no")
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while not _listens(self.port):
            if time.monotonic() > deadline:
                raise RuntimeError("the store did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of its present life."""
        return self._process.pid


@contextmanager
def store() -> Iterator[Store]:
    """A store, until the block is left."""
    with TemporaryDirectory(prefix="komas-bench-") as folder:
        running = Store(folder)
        try:
            yield running
        finally:
            running.kill()


class Nodes(msgspec.Struct):
    """What runs: the first process is the one alone, or the leader; clients are served by the others, if there are."""

    source: Child
    pids: list[int]
    ports: list[int]
    store: Store | None = None
    greeted: bytes = GREETED  # the first words that a client is sent

    @property
    def serving(self) -> list[int]:
        """Ports that clients are sent to."""
        return self.ports[1:] or self.ports


@contextmanager
def running(
    arrangement: Arrangement, symbols: int = 1, *, cores: Sequence[int | None] = (None, None)
) -> Iterator[Nodes]:
    """An arrangement that is ready, every symbol's trades open; the first process on the first core."""
    with ExitStack() as stack:
        source = stack.enter_context(child(cores[1], exchange.feed, symbols))
        nodes = Nodes(source, [], [])
        shared: tuple[str, ...] = ("--upstream", f"ws://127.0.0.1:{source.hear()}", "--max-sse", MANY)
        shared += ("--max-sse-per-address", MANY)
        if arrangement.edges:
            nodes.store = stack.enter_context(store())
            machine.pin(nodes.store.pid, cores[1])
            window = ("--backplane-window-ms", f"{arrangement.window_ms:g}")
            shared += ("--backplane", f"redis://127.0.0.1:{nodes.store.port}/0", *window)
        for number in range(1 + arrangement.edges):
            role = ("--role", "edge") if number else ()
            node = stack.enter_context(komas(cores[bool(number)], "serve", *shared, *role))
            nodes.pids.append(node.pid)
            nodes.ports.append(node.port)
            await_ready(node.port)
            if arrangement.share and (number or not arrangement.edges):
                stack.enter_context(slice_of(node.pid, arrangement.share))
        body = {"symbols": exchange.symbols(symbols), "stream_type": "trade"}
        httpx.post(
            f"http://127.0.0.1:{nodes.ports[-1]}/api/ws/subscribe", json=body, trust_env=False
        ).raise_for_status()
        time.sleep(LOADED_S)
        yield nodes


def await_ready(port: int) -> None:
    """Wait until a balancer would send readers there."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise RuntimeError("a node did not get ready")


def can_slice() -> bool:
    """Whether a process can be given a share of a core."""
    return (SLICES / "cpu.cfs_quota_us").exists() and os.access(SLICES, os.W_OK)


@contextmanager
def slice_of(pid: int, share: float) -> Iterator[None]:
    """Let a process, and what it starts, have so much of a core at most, a hundred times a second."""
    group = SLICES / f"komas-bench-{pid}"
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (group / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (SLICES / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
