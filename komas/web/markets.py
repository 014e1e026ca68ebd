"""The markets, as the web layer sees them: it knows no exchange by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from komas.model.kinds import KINDS, Kind, Venue
from komas.model.market import Event, FeedState, Health
from komas.model.streams import Stream
from komas.model.symbols import SymbolInfo
from komas.venues.core.connection import Arrival
from komas.venues.core.health import Condition
from komas.venues.core.market import AllSymbols, BookKeeper, GapCounter, MarketFeed
from komas.venues.core.statistics import RestStatistics


class MarketHealth(Protocol):
    """How the streams of a market are."""

    def of(self, stream: Stream) -> Condition:
        """The health of a stream now."""

    def arrival(self, stream: Stream) -> Arrival | None:
        """When the stream's newest event came; ``None`` before its first."""

    @property
    def totals(self) -> Mapping[Health, int]:
        """How many streams were how at the last look."""


class SymbolList(Protocol):
    """The symbols that a market lists."""

    async def answered(self) -> bool:
        """Wait for the exchange's list, within bounds; whether it is known."""

    async def unknown(self, symbols: Iterable[str]) -> list[str]:
        """Those of the symbols that the exchange does not list, as far as it answers."""


class SymbolFinder(Protocol):
    """Search over the symbols of a market."""

    async def find(self, query: str, limit: int) -> list[SymbolInfo]:
        """Up to ``limit`` symbols that ``query`` may mean, best first."""


class Past(Protocol):
    """What happened in a market before now."""

    async def latest(
        self, stream: Stream, limit: int, *, end_ms: int | None = None, reader: str, asked_after: float = -math.inf
    ) -> tuple[Event, ...]:
        """The last candles or trades, oldest first; candles that opened at ``end_ms`` or before.

        ``reader`` is whom the request is counted by; ``asked_after`` is how new an answer must be, on trio's clock.
        Raises ``VenueError``.
        """


class RestHost(Protocol):
    """Where a market is asked over REST."""

    def statistics(self) -> RestStatistics:
        """Counts, for metrics."""


class Market(Protocol):
    """One market of one exchange."""

    @property
    def venue(self) -> Venue:
        """Which one."""

    @property
    def name(self) -> str:
        """What it is called in texts for people."""

    @property
    def code(self) -> str:
        """What it is called by programs."""

    @property
    def feed(self) -> MarketFeed:
        """Its connections."""

    @property
    def health(self) -> MarketHealth:
        """How its streams are."""

    @property
    def listings(self) -> SymbolList:
        """The symbols that it lists."""

    @property
    def symbol_search(self) -> SymbolFinder:
        """Search over them."""

    @property
    def past(self) -> Past:
        """What happened before now."""

    @property
    def symbol_tracker(self) -> AllSymbols:
        """All of them, as streams."""

    @property
    def order_books(self) -> BookKeeper:
        """Its order books."""

    @property
    def gap_filler(self) -> GapCounter:
        """What was missed there."""

    @property
    def rest(self) -> RestHost:
        """Its REST host."""


class Markets:
    """Every market; the first is the primary one, whose state ``GET /api/ws/status`` and ``event: status`` tell."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._markets = tuple(markets)
        self._by_venue = {market.venue: market for market in markets}

    def __iter__(self) -> Iterator[Market]:
        return iter(self._markets)

    @property
    def primary(self) -> Market:
        """The market that is connected whether or not one of its streams is wanted."""
        return self._markets[0]

    @property
    def is_connected(self) -> bool:
        """Whether the primary market is."""
        return self.primary.feed.status.state is FeedState.CONNECTED

    def of(self, stream: Stream) -> Market:
        """The market that a stream belongs to."""
        return self._by_venue[stream.venue]

    def with_kind(self, kind: Kind) -> Market:
        """The market that is meant where a user names a kind alone."""
        return self._by_venue[KINDS[kind].venues[0]]

    def split(self, streams: Iterable[Stream]) -> dict[Market, list[Stream]]:
        """Streams by the market that they belong to."""
        found: dict[Market, list[Stream]] = {}
        for stream in streams:
            found.setdefault(self.of(stream), []).append(stream)
        return found

    def connect(self) -> None:
        """Ask for the connections of all markets."""
        for market in self._markets:
            market.feed.connect()
