"""How often each address asks. Sans-I/O.

A token bucket for each address, kept as one number: the time at which its bucket is full again (GCRA, ITU-T I.371). An
address is forgotten when too many others have asked since: so long ago, its bucket is full as a rule.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ADDRESSES: Final = 20_000  # that are remembered: 5 MB


class RequestRates:
    """So many requests at once, so many a second after that, for each address; times are in seconds."""

    def __init__(self, rate: float, burst: int, addresses: int = ADDRESSES) -> None:
        """A ``rate`` of 0 is no limit."""
        self._every_s = 1 / rate if rate else 0.0
        self._burst_s = burst * self._every_s
        self._addresses = addresses
        self._full_at: OrderedDict[str, float] = OrderedDict()  # the one that asked longest ago is the first
        self.refused = 0

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, address: str, at: float, count: int = 1) -> float:
        """Count one request, or so many, where within the rate; returns how long to wait, 0 where it is not to."""
        full_at = max(self._full_at.get(address, at), at) + count * self._every_s
        wait_s = full_at - at - self._burst_s
        is_refused = wait_s > self._every_s / 1000  # times are not that exact
        if not is_refused:
            self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        if is_refused:
            self.refused += 1
            return wait_s
        if len(self._full_at) > self._addresses:
            self._full_at.popitem(last=False)
        return 0.0

    def give_back(self, address: str) -> None:
        """Count one request less: who asked is known."""
        if address in self._full_at:
            self._full_at[address] -= self._every_s
