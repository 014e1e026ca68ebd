"""The Protocols a venue is handed: where events go, what is wanted, and where missing events are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from komas.model.kinds import Venue
from komas.model.market import Event, FeedStatus, Gap, HealthNotice, Incoming
from komas.model.streams import Stream
from komas.venues.core.words import cut


class Unreadable(ValueError):
    """A frame or an answer of the exchange does not have the promised form; ``stream`` is whose it was, if known.

    The words are cut: what came may be in them.
    """

    def __init__(self, words: str, *, stream: Stream | None = None) -> None:
        super().__init__(cut(words))
        self.stream = stream


class EventHistory(Protocol):
    """Where a venue gives events that were missed."""

    @property
    def has_room(self) -> bool:
        """Whether the rate limit has room for requests that are not urgent."""

    async def page(self, stream: Stream, first: int, last: int | None) -> list[tuple[int, Event]]:
        """Return one page of events from number ``first`` on (see ``numbering``), in order, each with its number.

        A page may hold more or less than was asked for; without ``last`` it holds everything after ``first``. It has
        only events that will not change any more. Raises ``VenueError``, and ``Unreadable`` for a malformed row.
        """


class FeedSink(Protocol):
    """Receives events as they arrive: from any connection, late, or twice. Law: no method waits."""

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Events of one stream, or changes of one order book, that arrived together, in order."""

    def on_suspect(self, stream: Stream) -> None:
        """Events of a stream may be missing: its connection was cut, or it is silent."""

    def on_reset(self, stream: Stream) -> None:
        """A stream is not wanted any more; if it is wanted again, it starts from nothing."""

    def on_refused(self, stream: Stream, reason: str) -> None:
        """The exchange refused a stream; it is not wanted afterwards."""


class MarketSink(Protocol):
    """Receives events and notices in the order of each stream; the hub is one. Law: only ``settled()`` waits."""

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Publish one event; ``backfilled`` marks one that was missed and requested later."""

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        """Publish events of one stream that arrived together, in order."""

    def flush(self) -> None:
        """Write what was published: everything that arrived together is there."""

    async def settled(self) -> None:
        """Wait, briefly, until fast subscribers have received what was published."""

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Publish that events are missing before the next one."""

    def publish_status(self, status: FeedStatus) -> None:
        """Publish the feed's state."""

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """A stream's numbers started again; ``gap`` is what was lost before."""

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Publish a stream's health."""

    def reject(self, stream: Stream, reason: str) -> None:
        """Publish that the exchange refused a stream, which is not wanted afterwards."""


class WantedChanges(Protocol):
    """Which of a venue's streams became wanted, or are not wanted any more, since they were taken."""

    def begin_anew(self) -> None:
        """Count every wanted stream as changed."""

    def take(self, most: int) -> list[Stream]:
        """Up to so many of them, each once, those that changed first at the front; they do not count any more."""


class Wanted(Protocol):
    """Which streams are wanted. Law: ``version`` differs after every change, of any venue's streams."""

    @property
    def version(self) -> int:
        """A number that changes with every change."""

    def __contains__(self, stream: Stream) -> bool:
        """Whether a stream is wanted."""

    def streams(self, venue: Venue | None = None) -> tuple[Stream, ...]:
        """Every wanted stream once, of one venue or of all, oldest first."""

    def changes(self, venue: Venue) -> WantedChanges:
        """What changes from now on, for one who takes it again and again."""

    async def changed(self, seen: int) -> int:
        """Wait until ``version`` is not ``seen``; return it."""


class Pins(Protocol):
    """The pinned streams, for the component that follows the exchange's listings."""

    def streams(self, venue: Venue | None = None) -> tuple[Stream, ...]:
        """Every wanted stream once, of one venue or of all."""

    def pinned(self, stream: Stream) -> bool:
        """Whether a stream is kept open without subscribers."""

    def pin(self, streams: Iterable[Stream]) -> None:
        """Keep streams open until they are unpinned."""

    def unpin(self, streams: Iterable[Stream]) -> None:
        """Let pinned streams go."""


class Readers(Protocol):
    """Who reads the streams: addresses of clients; an empty text for ourselves."""

    def readers(self, stream: Stream) -> Iterable[str]:
        """Who reads a stream now, in the order in which they came."""

    def tell_readers(self, tell: Callable[[Stream, str], None]) -> None:
        """Have ``tell`` called, synchronously, for each reader of a stream that it did not read before."""


class Interest(Pins, Readers, Wanted, Protocol):
    """Which streams are wanted and by whom, to be read and to be changed."""
