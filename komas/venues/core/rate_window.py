"""A true rolling window: at most so many acts in any period. Sans-I/O (time is an argument, in seconds).

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

    def room(self, now: float) -> int:
        """How many acts there is room for now."""
        self._forget(now)
        return max(0, self._limit - len(self._acts))

    def free_at(self, now: float, beside: int = 0) -> float:
        """When there is room for one more act: ``now``, or the very moment at which the oldest one leaves.

        Room for so many acts ``beside`` is kept, of which it is not known yet when they count; fewer than the limit.

        A moment, not a wait: ``now + (moment - now)`` may round to just before it, and a caller that sleeps so on a
        test clock, which stands still while a task is awake, never arrives.
        """
        self._forget(now)
        if (over := len(self._acts) + beside - self._limit) < 0:
            return now
        return self._acts[over] + self._period_s

    def _forget(self, now: float) -> None:
        while self._acts and self._acts[0] + self._period_s <= now:
            self._acts.popleft()
