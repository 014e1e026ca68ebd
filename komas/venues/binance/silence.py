"""How long a connection may be silent before it is taken for dead (thinks; times in seconds).

By its own recent rhythm: a connection that had something every second is dead after ten without; one with a single
quiet pair may be silent for minutes. The rhythm outlives the connection, for the streams are the same on the next one.
Age is measured by arrival, never by the exchange's clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHORTEST_S: Final = 10.0
LONGEST_S: Final = 600.0
UNKNOWN_S: Final = 60.0  # much was heard, but not yet for long enough to tell a burst from a rhythm
SPAN_S: Final = 10.0  # how long a rhythm must have been heard to be believed
FRAMES: Final = 20  # and how many frames: a quiet pair's first trades say nothing yet
REMEMBERED_S: Final = 1200.0
_TIMES_THE_LONGEST_PAUSE: Final = 4.0
_PAUSE_S: Final = 1.0  # shorter pauses change nothing: SHORTEST_S covers them


class Rhythm:
    """The pauses between the frames of one set of streams."""

    def __init__(self) -> None:
        self._heard_s = 0.0  # how long it has been listened to, outages left out
        self._frames = 0
        self._last: float | None = None
        self._pauses: deque[tuple[float, float]] = deque()  # (when it ended, how long it was)

    def begin(self, now: float) -> None:
        """A connection is up: silence counts from here, and the outage before it is no pause."""
        self._last = now

    def heard(self, now: float) -> None:
        """Note the arrival of one data frame."""
        pause = 0.0 if self._last is None else now - self._last
        if self._frames and pause > _PAUSE_S:
            self._pauses.append((now, pause))
        self._heard_s += pause if self._frames else 0.0
        self._frames += 1
        self._last = now

    def patience_s(self, now: float) -> float:
        """How long this connection may be silent."""
        if self._frames < FRAMES:
            return LONGEST_S
        if self._heard_s < SPAN_S:
            return UNKNOWN_S
        while self._pauses and self._pauses[0][0] < now - REMEMBERED_S:
            self._pauses.popleft()
        longest = max((pause for _, pause in self._pauses), default=0.0)
        return min(LONGEST_S, max(SHORTEST_S, _TIMES_THE_LONGEST_PAUSE * longest))

    def silent_s(self, now: float) -> float:
        """Seconds since the last data frame, or since the connection came up."""
        return 0.0 if self._last is None else now - self._last
