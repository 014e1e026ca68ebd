"""How many SSE clients are inside, in all and from each address (thinks)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from komas.settings import Settings


class DoorStatistics(msgspec.Struct, frozen=True):
    """SSE clients now, since the start, and turned away."""

    inside: int
    entered: int
    turned_away: int


class Doors:
    """The places for SSE clients."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Counter[str] = Counter()
        self._inside = 0
        self._entered = 0
        self._turned_away = 0

    def why_full(self, address: str) -> str | None:
        """Why one more client from an address cannot come in, counted; ``None`` when it can."""
        if self._inside >= self._settings.max_sse:
            reason = "too many clients"
        elif self._addresses[address] >= self._settings.max_sse_per_address:
            reason = "too many clients from this address"
        else:
            return None
        self._turned_away += 1
        return reason

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Count one client while the block lasts."""
        self._inside += 1
        self._entered += 1
        self._addresses[address] += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def statistics(self) -> DoorStatistics:
        """Counts, for telemetry."""
        return DoorStatistics(self._inside, self._entered, self._turned_away)
