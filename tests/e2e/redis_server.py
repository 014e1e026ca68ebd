"""Real Redis servers, which are killed, frozen, wiped and replaced."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import wait_for

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
CLI = shutil.which("redis-cli") or shutil.which("valkey-cli")


class RedisServer:
    """One server, on a Unix socket and, where ``port`` is given, on 127.0.0.1; what it was told to save outlives it."""

    def __init__(self, folder: Path, *options: str, port: int = 0, kind: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.port = port
        self._options = ("--port", str(port), *options)
        self._kind = kind
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it; returns when it answers."""
        assert REDIS is not None
        common = ["--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        if "--sentinel" not in self._kind:
            common += ["--repl-diskless-sync-delay", "0"]  # a replica is served at once
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen((REDIS, *self._kind, *common, *self._options), stdout=log, stderr=log)
        wait_for(lambda: "PONG" in self.ask("PING") or "NOAUTH" in self.ask("PING"), f"redis: {self.log}")

    def ask(self, *command: str) -> str:
        """What it answers to a command, over its socket."""
        assert CLI is not None
        done = subprocess.run((CLI, "-s", str(self.socket), *command), capture_output=True, text=True, check=False)
        return done.stdout.strip()

    @property
    def log(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text("utf-8", "replace")[-500:]

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop it, with its sockets open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def redis_folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket; skips where there is no Redis."""
    if REDIS is None or CLI is None:
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        yield Path(folder)


@contextmanager
def redis_server(*options: str, port: int = 0, kind: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A server while the block lasts."""
    with redis_folder() as folder:
        server = RedisServer(folder, *options, port=port, kind=kind)
        try:
            yield server
        finally:
            server.kill()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has: Redis cannot be told to choose."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
