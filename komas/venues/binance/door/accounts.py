"""What each client has used of its minute, counted as the exchange would if it were alone. Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

CLIENTS: Final = 10_000  # that are remembered; the one that was silent for longest is forgotten first
MINUTE_MS: Final = 60_000  # the exchange counts in whole minutes of its clock


class Accounts:
    """The weights of one product, by client."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used: OrderedDict[str, tuple[int, int]] = OrderedDict()  # which minute, and how much of it

    def charge(self, client: str, weight: int, now_ms: int) -> int:
        """Count a call; returns what its client has used of the minute, which may be more than ``limit``."""
        minute = now_ms // MINUTE_MS
        then, used = self._used.pop(client, (minute, 0))
        used = weight + (used if then == minute else 0)
        self._used[client] = (minute, used)
        if len(self._used) > CLIENTS:
            self._used.popitem(last=False)
        return used


def seconds_left(now_ms: int) -> int:
    """Of the minute, rounded up."""
    return -(-(MINUTE_MS - now_ms % MINUTE_MS) // 1_000)
