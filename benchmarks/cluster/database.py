"""A PostgreSQL server that is killed and frozen with all of its processes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import trio

from benchmarks.cluster.programs import Program, wait_until


def database_command() -> Path | None:
    """PostgreSQL's server, if there is one, and what speaks with it."""
    found = [shutil.which("postgres"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")))]
    command = next((Path(path).resolve() for path in found if path), None)
    return command if importlib.util.find_spec("psycopg") is not None else None


class Database(Program):
    """One PostgreSQL on a Unix socket in a folder of its own, which does not wait for the disk."""

    def __init__(self, folder: Path, own: Path, command: Path) -> None:
        self._own = own
        self._binaries = command.parent
        self._user = (
            ("setpriv", "--reuid=nobody", "--clear-groups") if os.geteuid() == 0 else ()
        )  # it refuses to be root
        self._children: list[psutil.Process] = []
        where = ("-D", str(own / "data"), "-k", str(own), "-c", "listen_addresses=", "-c", "fsync=off")
        super().__init__((*self._user, str(command), *where), folder, "database", cwd=own)
        self.url = f"postgresql+psycopg://komas@/postgres?host={own}"

    async def initialise(self) -> None:
        """Make its files."""
        data = self._own / "data"
        data.mkdir()
        if self._user:
            for path in (self._own, data):
                shutil.chown(path, "nobody")
        options = ("-D", str(data), "-U", "komas", "-A", "trust", "--no-sync")
        command = [*self._user, str(self._binaries / "initdb"), *options]
        with self.log.open("ab") as log:
            await trio.run_process(command, stdout=log, stderr=subprocess.STDOUT, cwd=self._own)

    async def is_ready(self) -> bool:
        """Whether it takes connections."""
        return await trio.to_thread.run_sync(self._takes_connections)

    def _takes_connections(self) -> bool:
        import psycopg  # noqa: PLC0415 - an extra

        with suppress(psycopg.OperationalError):
            psycopg.connect(host=str(self._own), user="komas", dbname="postgres", connect_timeout=2).close()
            return True
        return False

    async def ready(self) -> None:
        """Wait until it takes connections."""
        await wait_until(self.is_ready)

    def kill(self) -> None:
        """``kill -9``, all processes: one that is left would keep the next life from its memory."""
        for process in self._stop_all():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        super().kill()

    async def ended(self) -> bool:
        """Whether all of it is gone."""
        return await super().ended() and not any(map(_lives, self._children))

    def freeze(self) -> None:
        """SIGSTOP, all processes: who connects waits."""
        self.is_frozen = True
        self._stop_all()

    def thaw(self) -> None:
        """SIGCONT."""
        super().thaw()
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                child.resume()

    def _stop_all(self) -> list[psutil.Process]:
        """Stop all, the first one first: it starts no other then."""
        if self._process is None or self._process.poll() is not None:
            return []
        server = psutil.Process(self._process.pid)
        server.suspend()
        self._children = server.children(recursive=True)
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                child.suspend()
        return [*self._children, server]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
