"""How long ``komas serve`` takes until it listens, beside what it stands on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import machine
from benchmarks.processes import stop
from benchmarks.report import Row, medians
from komas.cli.progress import counted

TITLE: Final = "from the start of the process to its first line"
NOBODY: Final = "ws://127.0.0.1:9"  # there is no network to wait for
SERVER: Final = "import hypercorn.trio, quart_trio"
STACK: Final = f"{SERVER}, httpx, jwt, msgspec, trio_websocket"
SERVE: Final = ("-m", "komas", "serve", "--bind", "127.0.0.1:0", "--upstream", NOBODY, "--data-dir")


def measure(rounds: int) -> list[Row]:
    """A row for Python, for the packages, and for komas: milliseconds from a process's start to its first line."""
    # Modules are compiled once, as everywhere, whatever this shell says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    rows: dict[str, list[Row]] = {}
    for _ in counted(range(rounds), "round"):
        with TemporaryDirectory(prefix="komas-bench-") as folder:
            for what, arguments in (
                ("Python alone", ("-c", "print(1)")),
                ("Trio, Hypercorn and Quart-Trio alone", ("-c", f"{SERVER}; print(1)")),
                ("the packages that it needs", ("-c", f"{STACK}; print(1)")),
                ("komas serve, first start", (*SERVE, folder)),
                ("komas serve, again", (*SERVE, folder)),
            ):
                rows.setdefault(what, []).append(_once(what, arguments, environment))
    return [medians(found) for found in rows.values()]


def _once(what: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Row:
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        took_ms = 1000 * (time.perf_counter() - begun)
        return {"what": what, "start ms": took_ms, "resident MB": machine.resident_kb(process.pid) / 1024}
    finally:
        stop(process)
        process.stdout.close()
