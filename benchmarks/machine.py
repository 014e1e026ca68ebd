"""The machine: what it is, which core does what, and what a process costs."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

PACKAGES: Final = (
    "komas trio quart quart-trio hypercorn h11 wsproto trio-websocket msgspec websockets psutil".split()  # noqa: SIM905
)
# Asked for before anything is pinned: whoever is pinned to one core, and whatever it starts, is allowed no other.
_CORES: Final = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
OPEN_FILES: Final = 65_536  # more than the sockets of any crowd here


def describe() -> str:
    """Machine and versions, two lines."""
    memory_gb = psutil.virtual_memory().total / 2**30
    machine = (
        f"{_processor()}, {os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()} {platform.release()}, "
        f"load {psutil.getloadavg()[0]:.1f}"
    )
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{machine}\n{python}, " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a file of ours
            return next(line.partition(": ")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def cores() -> tuple[int | None, int | None]:
    """One core for what is measured, one for what loads it; none where there are not two, or they cannot be chosen."""
    return (_CORES[0], _CORES[1]) if len(_CORES) > 1 else (None, None)


def pin(pid: int, core: int | None) -> None:
    """Keep a process, 0 for this one, on one core; threads that it starts later stay there too."""
    if sys.platform == "linux" and core is not None:
        os.sched_setaffinity(pid, {core})


def go_first(pid: int, priority: int = 1) -> None:
    """Let a process go before everything else on this machine (Linux, root): for machines that others use, too."""
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - numbers, not files
        os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(priority))


def allow_many_sockets() -> None:
    """Raise this process's limit of open files, which children inherit."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not there on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_kb(pid: int) -> float:
    """Resident memory of a process."""
    return float(psutil.Process(pid).memory_info().rss) / 1024


def busy_s() -> float:
    """Seconds of processor time that the whole machine has used, what its host took from it included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def threads_s(pid: int) -> dict[str, float]:
    """Seconds of processor time of the threads of a process, by their names (Linux); the first one's is ``main``."""
    used: dict[str, float] = {}
    for thread in psutil.Process(pid).threads():
        with suppress(OSError):  # it has ended meanwhile
            comm = Path(f"/proc/{pid}/task/{thread.id}/comm").read_text().strip()
            name = "main" if thread.id == pid else comm
            used[name] = used.get(name, 0.0) + thread.user_time + thread.system_time
    return used


def private_mb(pid: int) -> float:
    """Memory that a process shares with no other."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6
