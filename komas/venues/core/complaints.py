"""Log lines that an exchange, or what stands in between, can cause as often as it likes.

Of each kind the first ones are written at once; then they are counted, and once a minute one is written that says how
many were left out. The metrics count them all.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec
import trio

from komas.event_log import EventLogger

EVERY_S: Final = 60.0
EACH: Final = 20  # lines in a minute of what is said once of a stream: an operator wants to know which


class _Kind(msgspec.Struct):
    """Since when lines of a kind are counted, how many were written since, and how many were not."""

    since_s: float
    written: int = 0
    left_out: int = 0


class Complaints:
    """What one component writes to a log; ``lines`` is how many of each kind in a minute.

    A kind is its text; what differs between two lines of a kind is in their keys.
    """

    def __init__(self, log: EventLogger, *, lines: int = 1) -> None:
        self._log = log
        self._lines = lines
        self._kinds: dict[str, _Kind] = {}

    def info(self, text: str, **extra: object) -> None:
        """Note what is usual, unless enough of its kind was noted in this minute."""
        self.write(logging.INFO, text, **extra)

    def warning(self, text: str, **extra: object) -> None:
        """Warn, likewise."""
        self.write(logging.WARNING, text, **extra)

    def error(self, text: str, **extra: object) -> None:
        """Tell an error, likewise."""
        self.write(logging.ERROR, text, **extra)

    def write(self, level: int, text: str, **extra: object) -> None:
        """Write at a level; ``left_out`` is how many of the kind were not written before this one."""
        now = trio.current_time()
        kind = self._kinds.get(text)
        if kind is None:
            kind = self._kinds[text] = _Kind(now)
        elif now - kind.since_s >= EVERY_S:
            kind.since_s, kind.written = now, 0
        if kind.written >= self._lines:
            kind.left_out += 1
            return
        kind.written += 1
        if kind.left_out:
            extra["left_out"], kind.left_out = kind.left_out, 0
        self._log.log(level, text, extra=extra)
