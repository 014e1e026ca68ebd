"""What the leader says of a market once a second, for processes that are not connected to the exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.kinds import Kind, Venue
from komas.model.market import Event, FeedState, FeedStatus, Health
from komas.model.streams import Stream
from komas.venues.core.health import Condition
from komas.venues.core.market import BookKeeper, GapCounter, OwnFeed, SymbolFollower
from komas.venues.core.statistics import (
    FeedStatistics,
    GapCounts,
    GapFillStatistics,
    OrderBookStatistics,
)


class _Health(Protocol):
    def of(self, stream: Stream) -> Condition:
        """The health of a stream now."""


class LedMarket(Protocol):
    """A market that is connected to the exchange, at the leader."""

    @property
    def venue(self) -> Venue:
        """Which one."""

    @property
    def feed(self) -> OwnFeed:
        """Its connections."""

    @property
    def symbol_tracker(self) -> SymbolFollower:
        """Subscriptions to all of its symbols."""

    @property
    def order_books(self) -> BookKeeper:
        """Its order books."""

    @property
    def gap_filler(self) -> GapCounter:
        """What was missed there."""

    @property
    def health(self) -> _Health:
        """How its streams are."""

    def start_beside_reference(self, nursery: trio.Nursery) -> None:
        """Start what runs behind, but for its listings, which somebody else runs."""

    def resume(self, latest: Iterable[tuple[Stream, Event]], told: Mapping[Stream, Health]) -> None:
        """Go on after the newest events that another process published; readers know which streams are doubtful."""

    async def go_on(self, covered_until: float) -> None:
        """Stand by no more: publish what was kept and what comes; the other process was heard until that moment."""


class Failure(msgspec.Struct, frozen=True):
    """A ``VenueError``."""

    words: str
    cause: Cause

    @classmethod
    def of(cls, error: VenueError | None) -> Failure | None:
        """What is said of an error."""
        return None if error is None else cls(str(error), error.cause)

    def error(self) -> VenueError:
        """The error, at another process."""
        return VenueError(self.words, cause=self.cause)


class MarketReport(msgspec.Struct, frozen=True):
    """One market's state and counts, since its leader began to lead; ``gaps`` are found, filled and declared ones."""

    url: str
    status: FeedStatus
    failure: Failure | None
    final_failure: Failure | None
    feed: FeedStatistics
    books: OrderBookStatistics
    gaps: Mapping[Kind, tuple[int, int, int]]
    repeated: int
    recovering: int

    def gap_statistics(self) -> GapFillStatistics:
        """The counts of gaps, as the leader has them."""
        counts: dict[Kind, GapCounts] = {}
        for kind, (found, filled, declared) in self.gaps.items():
            counts[kind] = each = GapCounts()
            each.gaps, each.filled, each.declared = found, filled, declared
        return GapFillStatistics(self.repeated, self.recovering, counts)


NOTHING: Final = MarketReport(
    url="",
    status=FeedStatus(state=FeedState.DISCONNECTED),
    failure=None,
    final_failure=None,
    feed=FeedStatistics(0, 0, 0, 0, {}, 0, None, ()),
    books=OrderBookStatistics(0, 0, 0),
    gaps={},
    repeated=0,
    recovering=0,
)

_encode: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(MarketReport)


def of(market: LedMarket) -> bytes:
    """What the leader says of a market now."""
    gaps, feed = market.gap_filler.statistics(), market.feed
    report = MarketReport(
        feed.url,
        feed.status,
        Failure.of(feed.failure),
        Failure.of(feed.final_failure),
        feed.statistics(),
        market.order_books.statistics(),
        {kind: (each.gaps, each.filled, each.declared) for kind, each in gaps.of_kind.items()},
        gaps.repeated,
        gaps.recovering,
    )
    return _encode(report)


def read(body: bytes) -> MarketReport:
    """Read it; raises ``msgspec.MsgspecError`` for what is none."""
    return _decoder.decode(body)
