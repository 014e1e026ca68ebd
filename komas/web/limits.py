"""How many SSE clients are inside, in all and from each address (sans-I/O)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from komas.settings import Settings


class LimitStatistics(msgspec.Struct, frozen=True):
    """SSE clients now, since the start, and turned away."""

    present: int
    admitted: int
    refused: int


class ConnectionLimits:
    """The places for SSE clients."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Counter[str] = Counter()
        self._present = 0
        self._admitted = 0
        self._refused = 0

    def why_full(self, address: str) -> str | None:
        """Why one more client from an address cannot come in, counted; ``None`` when it can."""
        if self._present >= self._settings.max_sse:
            reason = "too many clients"
        elif self._addresses[address] >= self._settings.max_sse_per_address:
            reason = "too many clients from this address"
        else:
            return None
        self._refused += 1
        return reason

    @contextmanager
    def present(self, address: str) -> Iterator[None]:
        """Count one client while the block lasts."""
        self._present += 1
        self._admitted += 1
        self._addresses[address] += 1
        try:
            yield
        finally:
            self._present -= 1
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def statistics(self) -> LimitStatistics:
        """Counts, for metrics."""
        return LimitStatistics(self._present, self._admitted, self._refused)
