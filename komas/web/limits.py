"""How many SSE clients are inside, in all and from each address (sans-I/O)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from komas.model.streams import Stream
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
        self._streams: dict[str, Counter[Stream]] = {}  # by address: how many of its clients read each stream
        self._present = 0
        self._admitted = 0
        self._refused = 0

    def why_full(self, address: str, streams: Collection[Stream]) -> str | None:
        """Why one more client from an address cannot come in, counted; ``None`` when it can."""
        if self._present >= self._settings.max_sse:
            reason = "too many clients"
        elif self._addresses[address] >= self._settings.max_sse_per_address:
            reason = "too many clients from this address"
        elif len(self._streams.get(address, {}).keys() | set(streams)) > self._settings.max_streams_per_address:
            reason = "too many different streams from this address"
        else:
            return None
        self._refused += 1
        return reason

    def enter(self, address: str, streams: Collection[Stream]) -> None:
        """Count one client, until it leaves."""
        self._present += 1
        self._admitted += 1
        self._addresses[address] += 1
        self._streams.setdefault(address, Counter()).update(streams)

    def leave(self, address: str, streams: Collection[Stream]) -> None:
        """Count one client no more."""
        self._present -= 1
        self._addresses -= Counter([address])  # a count of none is no entry
        self._streams[address] -= Counter(streams)
        if not self._streams[address]:
            del self._streams[address]

    @contextmanager
    def present(self, address: str, streams: Collection[Stream]) -> Iterator[None]:
        """Count one client while the block lasts."""
        self.enter(address, streams)
        try:
            yield
        finally:
            self.leave(address, streams)

    def statistics(self) -> LimitStatistics:
        """Counts, for metrics."""
        return LimitStatistics(self._present, self._admitted, self._refused)
