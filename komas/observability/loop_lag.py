"""How late tasks run: what holds up the event loop holds up every client."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from komas.histogram import Histogram

EVERY_S: Final = 0.1
REMEMBERED_S: Final = 60.0
_SLOT_S: Final = 1.0  # the longest of each second is remembered


class LoopLag:
    """``run()`` it beside everything else; it is due each ``EVERY_S``, and notes how late it was, in seconds."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self.last_s = 0.0
        self._longest: deque[tuple[float, float]] = deque()

    def note(self, now: float, lag_s: float) -> None:
        """It was so late."""
        self.last_s = lag_s
        self.histogram.observe(lag_s)
        slot = now // _SLOT_S
        if self._longest and self._longest[-1][0] == slot:
            lag_s = max(lag_s, self._longest.pop()[1])
        self._longest.append((slot, lag_s))
        self._forget(now)

    def longest_s(self, now: float) -> float:
        """The longest of the last minute."""
        self._forget(now)
        return max((lag_s for _, lag_s in self._longest), default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + EVERY_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self.note(now, max(0.0, now - due))

    def _forget(self, now: float) -> None:
        while self._longest and self._longest[0][0] * _SLOT_S < now - REMEMBERED_S - _SLOT_S:
            self._longest.popleft()
