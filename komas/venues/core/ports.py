"""What a venue's components are handed: where events go, and what is wanted. The hub obeys both laws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from komas.model.market import Event, FeedStatus, Gap, Incoming, StreamHealth
from komas.model.streams import Stream


class Unreadable(ValueError):
    """What the exchange sent is not what it promises."""


class EventHistory(Protocol):
    """Where events that were missed are asked for."""

    @property
    def has_room(self) -> bool:
        """Whether what is not urgent may be asked for now."""

    async def page(self, stream: Stream, first: int, last: int | None) -> list[tuple[int, Event]]:
        """One page of events from a number on (see ``numbering``), in order, each with its number.

        It may hold more than was asked for, or less; without ``last``, all that came after ``first`` is asked for. Only
        events that will not change any more are returned. Raises ``VenueError``, and ``Unreadable`` for a row that is
        none.
        """


class FeedSink(Protocol):
    """Where a feed leaves what came, as it came: from any connection, twice, late. Its law: it never waits."""

    @property
    def status(self) -> FeedStatus:
        """The feed's state, as it was announced last."""

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Take events of one stream, or changes of one order book, that came together, in order."""

    def on_suspect(self, stream: Stream) -> None:
        """Take the news that events of a stream may be missing although it says nothing: it was cut, or is silent."""

    def on_reset(self, stream: Stream) -> None:
        """Take the news that a stream is no longer wanted: it will start anew."""

    def on_status(self, status: FeedStatus) -> None:
        """Take the feed's state."""

    def on_health(self, stream: Stream, health: StreamHealth) -> None:
        """Take the news that a stream is doubtful, or well again."""

    def on_refused(self, stream: Stream, reason: str) -> None:
        """Take the exchange's refusal of a stream; it is no longer wanted afterwards."""


class MarketSink(Protocol):
    """Where events and notices go. Its laws: it never waits, and takes what comes in order of each stream."""

    @property
    def status(self) -> FeedStatus:
        """The feed's state, as it was announced last."""

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Take one event; ``backfilled`` is one that was missed and asked for."""

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        """Take events of one stream that came together, in order."""

    def flush(self) -> None:
        """Take the news that all that came together was published: it may go out."""

    async def settled(self) -> None:
        """Wait, not for long, until those who take at once have taken what was published."""

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Take the news that events are missing before the next one."""

    def publish_status(self, status: FeedStatus) -> None:
        """Take the feed's state."""

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Take the news that a stream's numbers have started again; what was lost before is the gap."""

    def publish_health(self, stream: Stream, health: StreamHealth) -> None:
        """Take the news that a stream is doubtful, or well again."""

    def reject(self, stream: Stream, reason: str) -> None:
        """Take the exchange's refusal of a stream; it is no longer wanted afterwards."""


class Wanted(Protocol):
    """Which streams are wanted. Its law: ``version`` differs after every change."""

    @property
    def version(self) -> int:
        """A number that every change makes another."""

    def __contains__(self, stream: Stream) -> bool:
        """Whether a stream is wanted."""

    def streams(self) -> tuple[Stream, ...]:
        """Every wanted stream once, in the order of the wishes."""

    async def changed(self, seen: int) -> int:
        """Wait until ``version`` is not ``seen``; return it."""


class Pins(Protocol):
    """The wishes themselves, for whoever follows what the exchange lists."""

    def streams(self) -> tuple[Stream, ...]:
        """Every wanted stream once."""

    def pinned(self, stream: Stream) -> bool:
        """Whether a stream is kept open without subscribers."""

    def pin(self, streams: Iterable[Stream]) -> None:
        """Keep streams open until they are unpinned."""

    def unpin(self, streams: Iterable[Stream]) -> None:
        """Let pinned streams go."""
