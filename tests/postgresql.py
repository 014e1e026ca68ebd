"""A PostgreSQL server of our own, on a socket in a temporary folder; tests are skipped where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from benchmarks.cluster.database import database_command


class PostgreSQL:
    """A server that can be stopped, started again, and frozen."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        self._as_nobody: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        self.url = f"postgresql+psycopg://komas@/postgres?host={folder}"

    def initialise(self) -> None:
        """Make its files."""
        self._data.mkdir()
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # the server refuses to run as root
            for path in (self._folder, self._data):
                shutil.chown(path, "nobody")
            self._as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups"]
        command = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", "komas", "-A", "trust", "--no-sync"]
        done = subprocess.run(
            [*self._as_nobody, *command], capture_output=True, text=True, check=False, cwd=self._folder
        )
        if done.returncode:
            pytest.skip(f"initdb failed: {done.stderr.strip()[-200:]}")

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        options = ["-D", str(self._data), "-k", str(self._folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [*self._as_nobody, str(self._binaries / "postgres"), *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self._folder)
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            if "ready to accept connections" in line:
                break
        else:
            raise AssertionError(f"it did not start: {said}")
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()

    def stop(self) -> None:
        """Stop it; whoever is connected is cut off."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stderr is not None
        assert self._drain is not None
        self._drain.join(30)
        process.stderr.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have none of its processes do anything; those that connect wait."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        server.suspend()  # first: it starts no other one
        processes = [server, *server.children(recursive=True)]
        try:
            for process in processes[1:]:
                process.suspend()
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def empty(self) -> None:
        """Remove all that is in it."""
        self.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    def execute(self, *statements: str) -> None:
        """Execute statements in one transaction."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A server while the block lasts."""
    found = database_command()
    if found is None:
        pytest.skip("needs PostgreSQL's server and the `postgresql` extra")
    with tempfile.TemporaryDirectory(prefix="komas-pg-") as folder:
        server = PostgreSQL(found.parent, Path(folder))
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
