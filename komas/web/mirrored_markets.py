"""A market as a process sees it that may not be connected to the exchange: what the leader says, and REST of its own.

It has the shape of the market that a single process has, so that no route needs to know the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import trio

from komas.backplane.commands import Commands
from komas.backplane.mirror import Mirror
from komas.backplane.node import Node
from komas.backplane.report import MarketReport
from komas.errors import Cause, VenueError
from komas.hub.shared_hub import SharedHub
from komas.model.kinds import Kind, Venue
from komas.model.market import BOOK_LEVELS_PUBLISHED, Depth, FeedState, FeedStatus, Health
from komas.model.streams import Stream
from komas.venues.core.connection import Arrival
from komas.venues.core.health import Condition
from komas.venues.core.statistics import FeedStatistics, GapFillStatistics, OrderBookStatistics
from komas.web.markets import Past, RestHost, SymbolFinder, SymbolList

ASKED_EVERY_S: Final = 1.0  # the leader, for the connections
_PENDING: Final = Condition(Health.PENDING, "asked for")


class Listings(SymbolList, Protocol):
    """The symbols that a market lists, from REST of this process."""

    def trading(self) -> tuple[str, ...]:
        """The symbols that trade now."""


class Reference(Protocol):
    """What REST tells of a market, whoever is connected to it."""

    @property
    def rest(self) -> RestHost:
        """The host."""

    @property
    def listings(self) -> Listings:
        """The symbols that it lists."""

    @property
    def symbol_search(self) -> SymbolFinder:
        """Search over them."""

    @property
    def past(self) -> Past:
        """What happened before now."""


class MirroredMarket:
    """One market of a cluster; ``name`` and ``code`` are as people and programs call it, ``url`` is where it is."""

    def __init__(
        self,
        venue: Venue,
        names: tuple[str, str],
        url: str,
        reference: Reference,
        *,
        node: Node,
        commands: Commands,
        hub: SharedHub,
        clock_ms: Callable[[], int],
    ) -> None:
        self.venue = venue
        self.name, self.code = names
        self.rest = reference.rest
        self.listings = reference.listings
        self.symbol_search = reference.symbol_search
        self.past = reference.past
        self.feed = _Feed(node, commands, venue, url)
        self.health = _Health(node, hub, venue, clock_ms)
        self.order_books = _Books(node.mirror, hub, commands, venue)
        self.gap_filler = _Gaps(node.mirror, venue)
        self.symbol_tracker = _Symbols(venue, reference.listings)


class _Feed:
    """The connections of a market, as the leader reports them."""

    def __init__(self, node: Node, commands: Commands, venue: Venue, url: str) -> None:
        self._node = node
        self._commands = commands
        self._venue = venue
        self._url = url
        self._asked_at = -ASKED_EVERY_S

    @property
    def _report(self) -> MarketReport:
        return self._node.mirror.report(self._venue)

    @property
    def url(self) -> str:
        """Where the leader connects to."""
        return self._report.url or self._url

    @property
    def status(self) -> FeedStatus:
        """Where the conversation with the exchange stands; that of the cluster comes first."""
        if not self._node.mirror.is_heard:
            return FeedStatus(state=FeedState.RECONNECTING, reason=self._node.reason)
        return self._report.status

    @property
    def failure(self) -> VenueError | None:
        """Why there is no connection, while there should be one."""
        if not self._node.mirror.is_heard:
            return VenueError(self._node.reason, cause=Cause.NETWORK)
        failure = self._report.failure
        return None if failure is None else failure.error()

    @property
    def final_failure(self) -> VenueError | None:
        """Why it was given up."""
        failure = self._report.final_failure
        return None if failure is None else failure.error()

    def connect(self) -> None:
        """Ask for the connections, unless that was done: of every reader that comes, so not too often."""
        mirror, now = self._node.mirror, trio.current_time()
        is_given_up = self._report.final_failure is not None
        if (not mirror.known.asked or is_given_up) and now >= self._asked_at + ASKED_EVERY_S:
            self._asked_at = now
            self._commands.connect()

    async def connected(self) -> None:
        """Wait for the connections; raises ``VenueError`` once they are let go, or given up."""

        def is_so() -> bool:
            failure = self._report.final_failure
            if failure is not None and self._node.mirror.known.asked:
                raise failure.error()
            return self._node.mirror.is_heard and self._report.status.state is FeedState.CONNECTED

        await self._wait(is_so)

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Wait until the exchange has acknowledged streams; raises ``VenueError`` when it refuses one, or is let go."""
        waiting, mirror = list(streams), self._node.mirror
        for stream in waiting:
            mirror.refused.pop(stream, None)

        def is_so() -> bool:
            for stream in waiting:
                if (refusal := mirror.refused.get(stream)) is not None:
                    raise VenueError(f"the exchange refused {stream}: {refusal}", cause=Cause.REFUSED)
            return all(stream in mirror.known.acknowledged for stream in waiting)

        await self._wait(is_so)

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; the connections are asked for until the leader has heard it, and then no more."""
        was_heard = False
        while not is_so():
            if self._node.mirror.known.asked:
                was_heard = True
            elif was_heard:
                raise VenueError("the connection was let go", cause=Cause.CLOSED)
            else:
                self.connect()
            with trio.move_on_after(ASKED_EVERY_S):
                await self._node.mirror.moved.park()

    def statistics(self) -> FeedStatistics:
        """The leader's counts."""
        return self._report.feed


class _Health:
    """How the streams of a market are, as the leader says."""

    def __init__(self, node: Node, hub: SharedHub, venue: Venue, clock_ms: Callable[[], int]) -> None:
        self._node = node
        self._hub = hub
        self._venue = venue
        self._clock_ms = clock_ms

    def of(self, stream: Stream) -> Condition:
        """The health of a stream now."""
        if not self._node.mirror.is_heard:
            return Condition(Health.RECOVERING, self._node.reason)
        return self._node.mirror.conditions.get(stream, _PENDING)

    def arrival(self, stream: Stream) -> Arrival | None:
        """When the stream's newest event came; ``None`` before its first."""
        latest = self._hub.latest.get(stream)
        if latest is None:
            return None
        ago_s = (self._clock_ms() - latest.received_ms) / 1000
        return Arrival(trio.current_time() - ago_s, latest.received_ms)

    @property
    def totals(self) -> Mapping[Health, int]:
        """How many streams are how."""
        streams = (stream for stream in self._node.mirror.known.epochs if stream.venue is self._venue)
        return Counter(self.of(stream).health for stream in streams)


class _Books:
    """The order books of a market: the best levels are here, deeper ones at the leader."""

    def __init__(self, mirror: Mirror, hub: SharedHub, commands: Commands, venue: Venue) -> None:
        self._mirror = mirror
        self._hub = hub
        self._commands = commands
        self._venue = venue

    async def known(self, stream: Stream, levels: int) -> Depth:
        """Wait until a book is true; returns its best levels."""
        latest = self._hub.latest.get(stream)  # one that is doubted is forgotten there
        if latest is not None and self._mirror.is_heard and levels <= BOOK_LEVELS_PUBLISHED:
            event = latest.cut(levels).event
            assert isinstance(event, Depth)
            return event
        return await self._commands.book(stream, levels)

    def statistics(self) -> OrderBookStatistics:
        """The leader's counts."""
        return self._mirror.report(self._venue).books


class _Gaps:
    """What was missed in a market, at the leader."""

    def __init__(self, mirror: Mirror, venue: Venue) -> None:
        self._mirror = mirror
        self._venue = venue

    def statistics(self) -> GapFillStatistics:
        """The leader's counts."""
        return self._mirror.report(self._venue).gap_statistics()


class _Symbols:
    """All symbols of a market as streams."""

    def __init__(self, venue: Venue, listings: Listings) -> None:
        self._venue = venue
        self._listings = listings

    def streams(self, kind: Kind) -> tuple[Stream, ...]:
        """Every trading symbol, as streams of a kind."""
        return tuple(Stream(kind, symbol, venue=self._venue) for symbol in self._listings.trading())
