"""Start processes beside this one, and stop every one of them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, ParamSpec

from benchmarks.machine import pin

START_S: Final = 20.0
STOP_S: Final = 10.0

P = ParamSpec("P")


class Child:
    """A process of ours; ``tell`` and ``hear`` speak with it over a pipe."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid = pid
        self._pipe = pipe

    def tell(self, message: object) -> None:
        """Send a message."""
        self._pipe.send(message)

    def hear(self, within_s: float = START_S) -> object:
        """The next message; ``TimeoutError`` when none comes in time, ``EOFError`` when the child died."""
        if not self._pipe.poll(within_s):
            raise TimeoutError(f"process {self.pid} said nothing for {within_s:g} s")
        return self._pipe.recv()


@contextmanager
def child(core: int | None, run: Callable[..., None], *arguments: object) -> Iterator[Child]:
    """Run ``run(pipe, *arguments)`` in a fresh interpreter on one core, until the block is left."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(core, run, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Child(process.pid or 0, ours)
    finally:
        ours.close()
        process.terminate()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()


def _begin(core: int | None, run: Callable[..., None], *arguments: object) -> None:
    pin(0, core)
    run(*arguments)


class Komas:
    """A ``komas`` command that listens; ``log`` is what it writes to stderr."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.log = log


@contextmanager
def komas(core: int | None, verb: str, *options: str, open_files: int | None = None) -> Iterator[Komas]:
    """Run ``komas VERB`` on one core and a free port, with none of the user's settings, until the block is left.

    ``open_files`` is its ``ulimit -n``.
    """
    limited = () if open_files is None else ("sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh")
    with TemporaryDirectory(prefix="komas-bench-") as name:
        folder = Path(name)
        own = ("--data-dir", name) if verb == "serve" else ()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*limited, sys.executable, "-m", "komas", verb, "--bind", "127.0.0.1:0", *own, *options],
                cwd=folder,
                env={key: value for key, value in os.environ.items() if not key.startswith("KOMAS_")},
                stdout=out,
                stderr=err,
            )
        try:
            pin(process.pid, core)
            yield Komas(process.pid, _port(process, folder), folder / "err")
        finally:
            stop(process)


def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        said = (folder / "out").read_text()
        if "\n" in said:
            return int(said.split("127.0.0.1:")[1].split()[0])
        time.sleep(0.02)
    raise RuntimeError(f"komas did not start: {(folder / 'err').read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, kindly first."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
