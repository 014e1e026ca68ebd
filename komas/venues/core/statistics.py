"""What the components of a market count, and how it is shown (sans-I/O)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from komas.errors import Cause
from komas.histogram import Histogram
from komas.model.kinds import Kind, kinds

_FILLED: Final = kinds(is_filled=True)


class ConnectionStatistics(msgspec.Struct, frozen=True):
    """One upstream socket; ``message_room`` is how many messages it may send at once."""

    url: str
    shard: int
    streams: int
    connected_at_ms: int
    uptime_s: float
    messages_received: int
    message_room: int


class FeedStatistics(msgspec.Struct, frozen=True):
    """Counts of a feed since it was made; ``connections`` has one row for each socket that is up.

    ``reconnect_causes`` says of how many reconnects which failure was the reason.
    """

    messages_received: int
    unreadable: int
    unknown: int
    reconnects: int
    reconnect_causes: Mapping[Cause, int]
    rotations: int
    last_message_ms: int | None
    connections: tuple[ConnectionStatistics, ...]


class GapFillStatistics(msgspec.Struct, frozen=True):
    """Counts since the start: events that came again, and of each kind; ``recovering`` streams wait now."""

    repeated: int
    recovering: int
    of_kind: Mapping[Kind, GapCounts]

    @property
    def gaps(self) -> int:
        """Runs of missing events that were found."""
        return sum(each.gaps for each in self.of_kind.values())

    @property
    def filled(self) -> int:
        """Missing events that were asked for and sent."""
        return sum(each.filled for each in self.of_kind.values())

    @property
    def declared(self) -> int:
        """Gaps, or parts of them, that could not be filled."""
        return sum(each.declared for each in self.of_kind.values())


class GapCounts:
    """What is counted of the gaps of one kind of stream since the start."""

    def __init__(self) -> None:
        self.gaps = 0
        self.filled = 0
        self.declared = 0


class GapTally:
    """What is counted of all gaps since the start."""

    def __init__(self) -> None:
        self.repeated = 0
        self.of_kind = {kind: GapCounts() for kind in Kind}

    def shown(self, queues: int) -> GapFillStatistics:
        """All counts, with how many streams wait now; of the kinds that are ever filled."""
        return GapFillStatistics(self.repeated, queues, {kind: self.of_kind[kind] for kind in _FILLED})


class RestStatistics(msgspec.Struct, frozen=True):
    """What was asked over REST since the start, and what the exchange's budget is used for now.

    ``latency`` has every answer, in seconds; ``failures`` are by cause. ``weight_limit`` is the part of a minute's
    weight that komas takes; for ``held_off_s`` seconds nothing is asked.
    """

    used_weight: int
    weight_limit: float
    held_off_s: float
    latency: Histogram
    failures: Mapping[Cause, int]


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
        self.reconnects: Counter[Cause] = Counter()
        self.rotations = 0
        self.last_message_ms: int | None = None

    def shown(self, connections: tuple[ConnectionStatistics, ...]) -> FeedStatistics:
        """All counts, with the connections that are up."""
        return FeedStatistics(
            messages_received=self.messages,
            unreadable=self.unreadable,
            unknown=self.unknown,
            reconnects=self.reconnects.total(),
            reconnect_causes=self.reconnects,
            rotations=self.rotations,
            last_message_ms=self.last_message_ms,
            connections=connections,
        )
