"""How long to wait before the next dial (sans-I/O).

The first retry is at once, then the wait doubles from one second with full jitter. A bad road is tried again within
ten seconds at most; a venue that said no is left alone for longer each time, up to the sixty seconds of the user's
document, and never asked before the time that it named itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from komas.errors import Cause, VenueError
from komas.venues.core.rate_window import RollingWindow

FIRST_DELAY_S: Final = 1.0
NETWORK_MAX_S: Final = 10.0
REFUSED_MAX_S: Final = 60.0

# Six in ten seconds for one link: even when each connection dies right after its first event.
DIALS: Final = 6
DIALS_PERIOD_S: Final = 10.0

# Binance takes 300 dials in 5 min from one address (docs, 2023-02-17); the rest is for other programs behind it.
DIALS_IN_ALL: Final = 240
DIALS_IN_ALL_PERIOD_S: Final = 300.0

# A client told to wait for days by Retry-After is banned; it asks again each hour, so that a lifted ban is noticed.
RETRY_AFTER_MAX_S: Final = 3600.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """The settings of reconnecting; ``attempts`` is how many in a row may fail, ``None`` for any number.

    An attempt fails that makes no connection, or one that brings nothing. The end of one that brought data is none.
    """

    network_max_s: float = NETWORK_MAX_S
    refused_max_s: float = REFUSED_MAX_S
    attempts: int | None = None


class DialBudget:
    """The dials of one address, shared by all of its links: their count, and the waits that the venue asked for."""

    def __init__(self) -> None:
        self._dials = RollingWindow(DIALS_IN_ALL, DIALS_IN_ALL_PERIOD_S)
        self._not_before = 0.0

    def free_at(self, now: float) -> float:
        """When anybody may dial again."""
        return max(self._not_before, self._dials.free_at(now))

    def record(self, now: float) -> None:
        """Count one dial."""
        self._dials.record(now)

    def wait_until(self, moment: float) -> None:
        """Allow no dial before a moment: the venue's limit is on the address."""
        self._not_before = max(self._not_before, moment)


class Backoff:
    """The waits of one link; ``random`` returns a float in [0, 1), ``budget`` is shared with the other links."""

    def __init__(
        self, retry_policy: RetryPolicy, random: Callable[[], float], budget: DialBudget | None = None
    ) -> None:
        self._retry_policy = retry_policy
        self._random = random
        self._dials = RollingWindow(DIALS, DIALS_PERIOD_S)
        self._budget = budget or DialBudget()
        self._not_before = 0.0
        self._has_succeeded = False  # the connection that there is, or was last
        self._failed_attempts = 0
        self.failures = 0

    @property
    def exhausted(self) -> bool:
        """Whether as many attempts in a row have failed as are allowed."""
        return self._retry_policy.attempts is not None and self._failed_attempts >= self._retry_policy.attempts

    def dial_at(self, now: float) -> float:
        """When the next dial may be made: after the wait, and within the exchange's count of dials."""
        return max(self._not_before, self._dials.free_at(now), self._budget.free_at(now))

    def dialled(self, now: float) -> None:
        """Count one dial."""
        self._dials.record(now)
        self._budget.record(now)

    def succeeded(self) -> None:
        """Forget earlier failures; called at the first event of a connection, not at its handshake."""
        self.reset()
        self._has_succeeded = True

    def reset(self) -> None:
        """Begin anew: somebody has asked for a connection again."""
        self.failures = self._failed_attempts = 0
        self._has_succeeded = False

    def failed(self, error: VenueError, now: float) -> float:
        """Count one failure and return the seconds to wait before the next dial."""
        self.failures += 1
        self._failed_attempts += not self._has_succeeded
        self._has_succeeded = False
        wait_s = self._jittered(error.cause)
        if error.retry_after_s is not None:
            wait_s = max(wait_s, min(error.retry_after_s, RETRY_AFTER_MAX_S))
            self._budget.wait_until(now + wait_s)
        self._not_before = now + wait_s
        return max(wait_s, self.dial_at(now) - now)

    def _jittered(self, cause: Cause) -> float:
        if self.failures == 1 and cause is not Cause.REFUSED:
            return 0.0
        longest = self._retry_policy.refused_max_s if cause is Cause.REFUSED else self._retry_policy.network_max_s
        # 2 ** 16 s is past any cap, and an outage of a year must not make the exponent a large number.
        doublings = min(max(self.failures - 2, 0), 16)
        return self._random() * min(longest, math.ldexp(FIRST_DELAY_S, doublings))
