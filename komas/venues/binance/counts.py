"""What the feed counts, and how it shows it (thinks)."""

from __future__ import annotations

import msgspec


class ConnectionStatistics(msgspec.Struct, frozen=True):
    """One upstream socket."""

    url: str
    streams: int
    connected_at_ms: int
    uptime_s: float
    messages_received: int


class FeedStatistics(msgspec.Struct, frozen=True):
    """Counts of the feed since it was made; ``connections`` has one row for each socket that is up."""

    messages_received: int
    unreadable: int
    unknown: int
    repeated: int
    gaps: int
    reconnects: int
    last_message_ms: int | None
    connections: tuple[ConnectionStatistics, ...]


class Counts:
    """What the feed counts; plain numbers, read by ``statistics()``."""

    def __init__(self) -> None:
        self.messages = 0
        self.unreadable = 0
        self.unknown = 0
        self.repeated = 0
        self.gaps = 0
        self.connections = 0
        self.last_message_ms: int | None = None
