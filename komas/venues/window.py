"""A true rolling window: at most so many acts in any period (thinks; time is an argument, in seconds).

Not a token bucket: a bucket of five with a refill lets nine acts through within its first second, and the exchange
counts in strict windows (nautilus_trader#5012, 2026-09-17).
"""

from __future__ import annotations

from collections import deque


class RollingWindow:
    """The acts of the last ``period_s`` seconds, of which there may be ``limit``."""

    def __init__(self, limit: int, period_s: float) -> None:
        self._limit = limit
        self._period_s = period_s
        self._acts: deque[float] = deque()

    def record(self, now: float) -> None:
        """Count one act, whether or not there was room for it."""
        self._forget(now)
        self._acts.append(now)

    def wait_s(self, now: float) -> float:
        """Seconds until there is room for one more act; 0 when there is room now."""
        self._forget(now)
        if len(self._acts) < self._limit:
            return 0.0
        return self._acts[len(self._acts) - self._limit] + self._period_s - now

    def _forget(self, now: float) -> None:
        while self._acts and self._acts[0] + self._period_s <= now:
            self._acts.popleft()
