"""What a server costs while something goes on: memory, processor time, and how long it takes to stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks import machine
from benchmarks.report import Row

SAMPLE_S: Final = 0.02


class Memory(threading.Thread):
    """Resident memory of a process, again and again: at the beginning, and at its highest."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._is_over = threading.Event()
        self.idle_mb = self.peak_mb = machine.resident_kb(pid) / 1024

    def begin(self) -> None:
        """The attack begins now: what comes on top of this is its doing."""
        self.idle_mb = machine.resident_kb(self._pid) / 1024

    def run(self) -> None:
        """Look, until the end."""
        while not self._is_over.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, machine.resident_kb(self._pid) / 1024)

    def end(self) -> None:
        """Look no more."""
        self._is_over.set()
        self.join()


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """The memory of a process while the block lasts."""
    memory = Memory(pid)
    memory.start()
    try:
        yield memory
    finally:
        memory.end()


class Costs:
    """Processor time from now on: of the server, which is the first, and of what is none of ours."""

    def __init__(self, *ours: int) -> None:
        self._ours = ours
        self._began = time.monotonic()
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        used = [machine.cpu_s(pid) for pid in self._ours]
        return used[0], machine.busy_s() - sum(used)

    def row(self) -> Row:
        """Both in percent of a core."""
        percents = [
            100 * (after - before) / (time.monotonic() - self._began)
            for after, before in zip(self._now(), self._before, strict=True)
        ]
        return {"server CPU %": percents[0], "foreign CPU %": max(0.0, percents[1])}


class Stopwatch:
    """``took_s`` is NaN until it was stopped."""

    def __init__(self) -> None:
        self._began = math.nan
        self.took_s = math.nan

    def start(self) -> None:
        """From now."""
        self._began = time.monotonic()

    def stop(self) -> None:
        """Until now."""
        self.took_s = time.monotonic() - self._began


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Takes the time from ``start()`` to the end of the block."""
    taken = Stopwatch()
    try:
        yield taken
    finally:
        taken.stop()
