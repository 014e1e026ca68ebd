"""What the components of a market count, and how it is shown (sans-I/O)."""

from __future__ import annotations

import msgspec


class ConnectionStatistics(msgspec.Struct, frozen=True):
    """One upstream socket."""

    url: str
    shard: int
    streams: int
    connected_at_ms: int
    uptime_s: float
    messages_received: int


class FeedStatistics(msgspec.Struct, frozen=True):
    """Counts of a feed since it was made; ``connections`` has one row for each socket that is up."""

    messages_received: int
    unreadable: int
    unknown: int
    reconnects: int
    rotations: int
    last_message_ms: int | None
    connections: tuple[ConnectionStatistics, ...]


class GapFillStatistics(msgspec.Struct, frozen=True):
    """Counts since the start: events that came again, gaps, events filled in, gaps (or parts) declared; waiting now."""

    repeated: int
    gaps: int
    filled: int
    declared: int
    recovering: int


class OrderBookStatistics(msgspec.Struct, frozen=True):
    """Order books now, those of them that are not true, and the snapshots that were taken since the start."""

    order_books: int
    untrue: int
    snapshots: int


class FrameCounts:
    """What a feed counts; plain numbers, for those who count and for ``shown()``."""

    def __init__(self) -> None:
        self.messages = 0
        self.unreadable = 0
        self.unknown = 0
        self.reconnects = 0
        self.rotations = 0
        self.last_message_ms: int | None = None

    def shown(self, connections: tuple[ConnectionStatistics, ...]) -> FeedStatistics:
        """All counts, with the connections that are up."""
        return FeedStatistics(
            messages_received=self.messages,
            unreadable=self.unreadable,
            unknown=self.unknown,
            reconnects=self.reconnects,
            rotations=self.rotations,
            last_message_ms=self.last_message_ms,
            connections=connections,
        )
