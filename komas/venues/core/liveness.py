"""How long a stream, or a whole connection, may be silent. Sans-I/O (times in seconds, on a monotonic clock).

By its own recent rhythm: what had something every second is dead after some seconds without; a single quiet pair may be
silent for minutes. Where the exchange promises a pace, that bounds it, too. Age is measured by arrival, never by the
exchange's clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from komas.model.kinds import KINDS
from komas.model.streams import INTERVALS, Stream

SHORTEST_S: Final = 8.0  # a silence of less is nothing; looked at every second, so that ten are never reached
LONGEST_S: Final = 600.0
UNKNOWN_S: Final = 60.0  # much was heard, but not yet for long enough to tell a burst from a rhythm
SPAN_S: Final = 10.0  # how long a rhythm must have been heard to be believed
FRAMES: Final = 20  # and how many frames: a quiet pair's first trades say nothing yet
REMEMBERED_S: Final = 1200.0
_TIMES_THE_LONGEST_PAUSE: Final = 4.0
_PAUSE_S: Final = 1.0  # shorter pauses change nothing: SHORTEST_S covers them
_CANDLE_LATE_S: Final = 15.0  # a candle closes, traded or not, and the next one opens 2.7 s later (captures, 2023)


def promised_s(stream: Stream) -> float:
    """The longest silence that the exchange's own pace allows, whatever trades; infinite where it promises none."""
    if stream.interval is not None:
        return INTERVALS[stream.interval] / 1000 + _CANDLE_LATE_S
    return KINDS[stream.kind].pace_s


class LivenessTracker:
    """The pauses between the frames of a stream, or of a connection."""

    def __init__(self, promised_s: float = math.inf) -> None:
        self._promised_s = promised_s
        self._heard_s = 0.0  # how long it has been listened to, outages left out
        self._frames = 0
        self._last: float | None = None
        self._pauses: deque[tuple[float, float]] = deque()  # (when it ended, how long it was)
        # Those of them that no later one reaches: the first is the longest, and is there at once when it is asked for.
        self._longest: deque[tuple[float, float]] = deque()
        self.heard_at: float | None = None  # on this connection
        self.armed_at = 0.0

    def successor(self) -> LivenessTracker:
        """The same rhythm, to be listened to on another connection."""
        successor = LivenessTracker(self._promised_s)
        successor._heard_s, successor._frames = self._heard_s, self._frames
        successor._pauses, successor._longest = self._pauses.copy(), self._longest.copy()
        return successor

    def begin(self, now: float) -> None:
        """The exchange has acknowledged: silence counts from here, and the outage before it is no pause."""
        self._last = self.armed_at = now

    def heard(self, now: float, frames: int = 1) -> None:
        """Note the arrival of a data frame, or of several at once."""
        # The time from the acknowledgement to the first frame is a part of a pause, and says nothing of its length.
        pause = 0.0 if self._last is None or self.heard_at is None else now - self._last
        if pause > _PAUSE_S:
            self._remember(now, pause)
        self._heard_s += pause
        self._frames += frames
        self._last = self.heard_at = now

    def silent_s(self, now: float) -> float:
        """Seconds since the last data frame, or since the acknowledgement."""
        return 0.0 if self._last is None else now - self._last

    def allowed_silence_s(self, now: float) -> float:
        """How long a whole connection may be silent."""
        if self._frames < FRAMES:
            return LONGEST_S
        if self._heard_s < SPAN_S:
            return UNKNOWN_S
        return min(LONGEST_S, self._usual_s(now))

    def is_stale(self, now: float) -> bool:
        """Whether a stream is silent for longer than its pace allows; one without a known pace is not."""
        silent_s = self.silent_s(now)
        if silent_s <= SHORTEST_S:
            return False
        if silent_s > self._promised_s:
            return True
        is_known = self._frames >= FRAMES and self._heard_s >= SPAN_S
        return is_known and silent_s > self._usual_s(now)

    def _remember(self, now: float, pause: float) -> None:
        while self._longest and self._longest[-1][1] <= pause:
            self._longest.pop()
        ended = now, pause
        self._pauses.append(ended)
        self._longest.append(ended)
        self._forget_old(now)  # a stream whose pauses are all short is never asked how long they were

    def _forget_old(self, now: float) -> None:
        # The newest few are remembered however old they are: a stream with few frames has few pauses to go by.
        while len(self._pauses) > FRAMES and self._pauses[0][0] < now - REMEMBERED_S:
            if self._pauses.popleft() is self._longest[0]:
                self._longest.popleft()

    def _usual_s(self, now: float) -> float:
        """Four times the longest pause; each of thousands of streams is asked every second."""
        self._forget_old(now)
        longest = self._longest[0][1] if self._longest else 0.0
        return max(SHORTEST_S, _TIMES_THE_LONGEST_PAUSE * longest)
