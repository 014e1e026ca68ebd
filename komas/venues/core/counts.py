"""What the feed counts, and how it shows it (sans-I/O)."""

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
    """Counts of the feed since it was made; ``connections`` has one row for each socket that is up."""

    messages_received: int
    unreadable: int
    unknown: int
    reconnects: int
    rotations: int
    last_message_ms: int | None
    connections: tuple[ConnectionStatistics, ...]


class Counts:
    """What the feed counts; plain numbers, read by ``statistics()``."""

    def __init__(self) -> None:
        self.messages = 0
        self.unreadable = 0
        self.unknown = 0
        self.reconnects = 0
        self.rotations = 0
        self.last_message_ms: int | None = None
