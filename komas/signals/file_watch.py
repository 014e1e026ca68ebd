"""Whether a database that is a file may have changed: its files' times are asked, which costs next to nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

SETTLED_NS: Final = 10**9  # a file that was written to so recently may be written to once more at the same time
SURE_S: Final = 5.0  # a clock of another machine, which a file may be on, is not trusted for longer

_Seen: TypeAlias = tuple[int, int, int] | None


class FileWatch:
    """One SQLite database: the file, and its write-ahead log, which a commit goes to first.

    ``clock_s`` is a monotonic clock, ``time_ns`` the one that files' times are by.
    """

    def __init__(
        self, path: Path, clock_s: Callable[[], float] = time.monotonic, time_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._paths = path, path.with_name(f"{path.name}-wal")
        self._clock_s = clock_s
        self._time_ns = time_ns
        self._seen: tuple[_Seen, ...] = ()
        self._said_at = 0.0

    def has_changed(self) -> bool:
        """Whether anything may have been committed since this was asked last; ``True`` where that is not certain."""
        now_ns, now_s = self._time_ns(), self._clock_s()
        seen = tuple(_look(path) for path in self._paths)
        is_recent = any(file is not None and abs(now_ns - file[0]) < SETTLED_NS for file in seen)
        has_changed = seen != self._seen or is_recent or now_s >= self._said_at + SURE_S
        self._seen = seen
        if has_changed:
            self._said_at = now_s
        return has_changed


def _look(path: Path) -> _Seen:
    try:
        found = os.stat(path)  # noqa: PTH116 - a tenth of the time that Path.stat() takes, each time
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
