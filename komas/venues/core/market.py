"""What a market shows of itself to those who use it, whichever exchange it is of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from komas.errors import VenueError
from komas.model.kinds import Kind
from komas.model.market import Depth, FeedStatus
from komas.model.streams import Stream
from komas.venues.core.statistics import FeedStatistics, GapFillStatistics, OrderBookStatistics


class MarketFeed(Protocol):
    """The connections of a market."""

    @property
    def url(self) -> str:
        """Where it connects to."""

    @property
    def status(self) -> FeedStatus:
        """Where the conversation with the exchange stands, and why."""

    @property
    def failure(self) -> VenueError | None:
        """Why there is no connection, while there should be one."""

    @property
    def final_failure(self) -> VenueError | None:
        """Why it was given up."""

    def connect(self) -> None:
        """Ask for the connections."""

    async def connected(self) -> None:
        """Wait for the connections; raises ``VenueError`` once they are let go, or given up."""

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Wait until the exchange has acknowledged streams; raises ``VenueError`` when it refuses one."""

    def statistics(self) -> FeedStatistics:
        """Counts since the start."""


class OwnFeed(MarketFeed, Protocol):
    """Those of this process."""

    def disconnect(self) -> None:
        """Let the connections go."""

    def rotate(self) -> int:
        """Replace every connection without a gap; returns how many."""


class AllSymbols(Protocol):
    """Every symbol of a market."""

    def streams(self, kind: Kind) -> tuple[Stream, ...]:
        """Every trading symbol, as streams of a kind."""


class SymbolFollower(AllSymbols, Protocol):
    """Subscriptions to all of them."""

    def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Pin every trading symbol from now on; returns the streams of this moment."""

    def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Let all symbols of a kind go; returns the streams that were pinned."""


class BookKeeper(Protocol):
    """The order books of a market."""

    async def known(self, stream: Stream, levels: int) -> Depth:
        """Wait until a book is true; returns its best levels."""

    def statistics(self) -> OrderBookStatistics:
        """Counts, for metrics."""


class GapCounter(Protocol):
    """What was missed, and what became of it."""

    def statistics(self) -> GapFillStatistics:
        """Counts, for metrics."""
