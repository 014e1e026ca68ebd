"""Processes that are started, killed and frozen."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from benchmarks.processes import STOP_S

START_S: Final = 60.0


async def wait_until(is_so: Callable[[], Awaitable[object]], within_s: float = START_S) -> None:
    """Wait until something is so; ``trio.TooSlowError`` if that takes longer."""
    with trio.fail_after(within_s):
        while True:
            if await is_so():
                return
            await trio.sleep(0.05)


class Program:
    """A process that is started, killed and frozen, and writes into one file."""

    def __init__(self, command: Sequence[str], folder: Path, name: str, *, cwd: Path | None = None) -> None:
        self._command = command
        self._cwd = cwd or folder
        self.log = folder / "logs" / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False

    def start(self, *more: str) -> None:
        """Start it (again)."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *more],
                cwd=self._cwd,
                env={key: value for key, value in os.environ.items() if not key.startswith("KOMAS_")},
                stdout=log,
                stderr=log,
            )
        self.is_frozen = False

    @property
    def is_up(self) -> bool:
        """Whether it runs and is not frozen."""
        return self._process is not None and self._process.poll() is None and not self.is_frozen

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> None:
        """The same, and wait for it."""
        self.terminate()
        assert self._process is not None
        self._process.wait(STOP_S)

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open."""
        assert self._process is not None
        self.is_frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self.is_frozen = False
        self._process.send_signal(signal.SIGCONT)

    async def said(self, words: str) -> bool:
        """Whether it wrote this."""
        return words in await trio.Path(self.log).read_text("utf-8", "replace")

    async def ended(self) -> bool:
        """Whether it is gone."""
        return self._process is None or self._process.poll() is not None
