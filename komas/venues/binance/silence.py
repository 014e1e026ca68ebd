"""How long a connection may be silent before it is taken for dead (thinks; times in seconds).

By its own recent rhythm: a connection that had something every second is dead after ten without; one with a single
quiet pair may be silent for minutes. Age is measured by arrival, never by the exchange's clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHORTEST_S: Final = 10.0
LONGEST_S: Final = 150.0
UNKNOWN_S: Final = 60.0  # before the rhythm is known
SPAN_S: Final = 20.0  # how long a rhythm must have been heard to be believed: one burst is no rhythm
REMEMBERED_S: Final = 300.0
_TIMES_THE_LONGEST_PAUSE: Final = 4.0
_PAUSE_S: Final = 1.0  # shorter pauses change nothing: SHORTEST_S covers them


class Rhythm:
    """The pauses between the frames of one connection."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._pauses: deque[tuple[float, float]] = deque()  # (when it ended, how long it was)

    def heard(self, now: float) -> None:
        """Note the arrival of one data frame."""
        if self._first is None:
            self._first = now
        elif now - self._last > _PAUSE_S:
            self._pauses.append((now, now - self._last))
        self._last = now

    def patience_s(self, now: float) -> float | None:
        """How long this connection may be silent; ``None`` while it has never said anything."""
        if self._first is None:
            return None
        if self._last - self._first < SPAN_S:
            return UNKNOWN_S
        while self._pauses and self._pauses[0][0] < now - REMEMBERED_S:
            self._pauses.popleft()
        longest = max((pause for _, pause in self._pauses), default=0.0)
        return min(LONGEST_S, max(SHORTEST_S, _TIMES_THE_LONGEST_PAUSE * longest))

    def silent_s(self, now: float) -> float:
        """Seconds since the last data frame; 0 before the first."""
        return 0.0 if self._first is None else now - self._last
