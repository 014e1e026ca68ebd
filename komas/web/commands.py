"""What an administrator changes of the market: pins, every symbol of a kind, other connections.

Where one process is alone, it does so itself; of many the leader does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from komas.hub.interest import Interest
from komas.model.kinds import KINDS, Kind, Venue
from komas.model.streams import Stream
from komas.venues.core.market import OwnFeed, SymbolFollower


class Commands(Protocol):
    """Raises ``VenueError`` where nobody takes a command."""

    async def pin(self, streams: Sequence[Stream]) -> None:
        """Keep streams open until they are unpinned."""

    async def unpin(self, streams: Sequence[Stream]) -> None:
        """Let pinned streams go; one that has subscribers stays open for them."""

    async def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Pin every trading symbol from now on; returns the streams of this moment."""

    async def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Let all symbols of a kind go; returns the streams that were pinned."""

    async def rotate(self) -> int:
        """Replace every connection without a gap; returns how many."""

    async def disconnect(self) -> None:
        """Let the connections of all markets go."""


class OwnMarket(Protocol):
    """A market that this process is connected to."""

    @property
    def venue(self) -> Venue:
        """Which one."""

    @property
    def feed(self) -> OwnFeed:
        """Its connections."""

    @property
    def symbol_tracker(self) -> SymbolFollower:
        """Subscriptions to all of its symbols."""


class OwnCommands:
    """Commands of a process that is alone."""

    def __init__(self, interest: Interest, markets: Iterable[OwnMarket]) -> None:
        self._interest = interest
        self._markets = {market.venue: market for market in markets}

    async def pin(self, streams: Sequence[Stream]) -> None:
        """Keep streams open until they are unpinned."""
        self._interest.pin(streams)

    async def unpin(self, streams: Sequence[Stream]) -> None:
        """Let pinned streams go."""
        self._interest.unpin(streams)

    async def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Pin every trading symbol from now on."""
        return self._tracker(kind).follow(kind)

    async def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Let all symbols of a kind go."""
        return self._tracker(kind).unfollow(kind)

    async def rotate(self) -> int:
        """Replace every connection without a gap."""
        return sum(market.feed.rotate() for market in self._markets.values())

    async def disconnect(self) -> None:
        """Let the connections of all markets go."""
        for market in self._markets.values():
            market.feed.disconnect()

    def _tracker(self, kind: Kind) -> SymbolFollower:
        return self._markets[KINDS[kind].venues[0]].symbol_tracker
