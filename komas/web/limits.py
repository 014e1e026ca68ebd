"""How many clients read the market, in all and from each address (sans-I/O)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec

from komas.settings import Settings

SSE: Final = "sse"
WEBSOCKET: Final = "websocket"
REST: Final = "rest"  # who waits for an order book that is not kept yet
ALL: Final = "clients"
OF_ADDRESS: Final = "clients_per_address"


class LimitStatistics(msgspec.Struct, frozen=True):
    """Readers now, in all and by what they read over; since the start; and those turned away, by reason."""

    present: int
    by_transport: Mapping[str, int]
    admitted: int
    refused: Mapping[str, int]


class ConnectionLimits:
    """The places for clients that read the market, over SSE and over WebSockets together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Counter[str] = Counter()
        self._present = 0
        self._transports: Counter[str] = Counter({SSE: 0, WEBSOCKET: 0, REST: 0})
        self._admitted = 0
        self._refused: Counter[str] = Counter({ALL: 0, OF_ADDRESS: 0})

    def why_full(self, address: str) -> str | None:
        """Why one more client from an address cannot come in, counted; ``None`` when it can."""
        if self._present >= self._settings.max_sse:
            counted, reason = ALL, "too many clients"
        elif self._addresses[address] >= self._settings.max_sse_per_address:
            counted, reason = OF_ADDRESS, "too many clients from this address"
        else:
            return None
        self._refused[counted] += 1
        return reason

    @contextmanager
    def present(self, address: str, transport: str) -> Iterator[None]:
        """Count one client while the block lasts."""
        self.enter(address, transport)
        try:
            yield
        finally:
            self.leave(address, transport)

    def enter(self, address: str, transport: str) -> None:
        """Count one client until ``leave()``; for those who stay for long, a block costs more than they do."""
        self._present += 1
        self._transports[transport] += 1
        self._admitted += 1
        self._addresses[address] += 1

    def leave(self, address: str, transport: str) -> None:
        """Count it no more."""
        self._present -= 1
        self._transports[transport] -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def statistics(self) -> LimitStatistics:
        """Counts, for metrics."""
        return LimitStatistics(self._present, self._transports, self._admitted, self._refused)
