"""Order books: changes go in, the best levels come out; a book with a gap is synced again before it is shown.

It takes what the feed brings of streams that are kept as books.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import msgspec
import trio

from komas.errors import VenueError
from komas.event_log import event_logger
from komas.model.kinds import KINDS
from komas.model.market import BOOK_LEVELS_PUBLISHED, Depth, DepthUpdate, Health, Incoming
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.wire import check_levels
from komas.venues.core.health import Condition, HealthCause, StreamHealth
from komas.venues.core.order_book import Levels, OrderBook, Snapshot
from komas.venues.core.ports import MarketSink, Unreadable
from komas.venues.core.rest import Rest
from komas.venues.core.statistics import OrderBookStatistics

log = event_logger(__name__)

LATE_S: Final = 0.5  # an update that is only late comes by itself: two connections are some tenths of a second apart
SUSPECT_S: Final = 1.0  # so long a book that was cut may take to show, by its next change, that nothing is missing
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
SNAPSHOTS: Final = 3  # so many that do not fit what is known of a book: what is known is dropped
_NEW: Final = Condition(Health.PENDING, "the order book has no snapshot yet")
_GAPPED: Final = Condition(
    Health.RECOVERING, "something may be missing in the order book; it is taken anew", is_doubtful=True
)
_SYNCED: Final = "the order book is complete again"


class _DepthSnapshot(msgspec.Struct):
    """``{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}``."""

    lastUpdateId: int  # noqa: N815 - the exchange's key
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]


class _BookSync:
    """One book, and what is being done about it."""

    def __init__(self) -> None:
        self.book = OrderBook()
        self.due_at: float | None = None  # when to ask for a snapshot, unless the missing update comes by itself
        self.failures = 0
        self.is_suspect = False  # something may have been missed
        self.suspicions = 0
        self.was_synced = False  # at some time
        self.is_reported = False  # that it is not synced

    @property
    def is_synced(self) -> bool:
        """Whether nothing is known to be missing."""
        return self.book.is_synced and not self.is_suspect

    def retry_at(self, now: float) -> float:
        """When to ask again after one more failure: the pause grows."""
        self.failures += 1
        return now + min(RETRY_MAX_S, math.ldexp(RETRY_S, min(self.failures - 1, 10)))


class OrderBooks:
    """A ``FeedSink`` for the streams of order books; ``run()`` it beside the feed."""

    def __init__(self, sink: MarketSink, rest: Rest, health: StreamHealth, clock_ms: Callable[[], int]) -> None:
        self._sink = sink
        self._rest = rest
        self._health = health
        self._clock_ms = clock_ms
        self._syncs: dict[Stream, _BookSync] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._snapshots = 0

    def statistics(self) -> OrderBookStatistics:
        """Counts, for metrics."""
        untrue = sum(not self._may_be_shown(stream, sync) for stream, sync in self._syncs.items())
        return OrderBookStatistics(len(self._syncs), untrue, self._snapshots)

    # What is asked of the books

    def depth(self, stream: Stream, levels: int) -> Depth | None:
        """The best levels of a book; ``None`` while it may not be shown."""
        sync = self._syncs.get(stream)
        if sync is None or not self._may_be_shown(stream, sync):
            return None
        return _depth(stream, sync.book, sync.book.top(levels))

    def _may_be_shown(self, stream: Stream, sync: _BookSync) -> bool:
        """Whether a book may be shown: no snapshot tells what is missed while its stream is silent."""
        return sync.is_synced and self._health.of(stream).health is not Health.STALE

    async def known(self, stream: Stream, levels: int) -> Depth:
        """Wait until a book is synced; returns its best levels."""
        while (depth := self.depth(stream, levels)) is None:
            await self._news.park()
        return depth

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Enter what changed in a book, and show it."""
        sync = self._syncs.get(stream)
        if sync is None:
            sync = self._syncs[stream] = _BookSync()
        for event in events:
            assert isinstance(event, DepthUpdate)  # of such a stream there is nothing else
            self._enter(stream, sync, event, received_ms)

    def _enter(self, stream: Stream, sync: _BookSync, event: DepthUpdate, received_ms: int) -> None:
        has_changed = sync.book.take(event)
        if has_changed or event.last == sync.book.update_id:
            sync.is_suspect = False  # it joins on: nothing is missing
        if has_changed:
            self._show(stream, sync, received_ms)
        self._look_after(stream, sync)

    def on_suspect(self, stream: Stream) -> None:
        """Show a book no more until its next change joins on, or a snapshot has come."""
        sync = self._syncs.get(stream)
        if sync is not None:
            sync.is_suspect = True
            sync.suspicions += 1
            self._look_after(stream, sync)

    def on_reset(self, stream: Stream) -> None:
        """Close a book that is no longer wanted."""
        self._close(stream)

    def on_refused(self, stream: Stream, reason: str) -> None:
        """Close the book of a stream that the exchange refuses."""
        self._close(stream)
        self._sink.reject(stream, reason)

    def close_all(self) -> None:
        """Close every book: the feed was let go, and they are things of the past."""
        for stream in tuple(self._syncs):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        if self._syncs.pop(stream, None) is not None:
            self._health.clear(stream, HealthCause.ORDER_BOOK)

    def _show(self, stream: Stream, sync: _BookSync, received_ms: int) -> None:
        book = sync.book
        if book.is_crossed:
            log.error("order book crossed", extra={"stream": stream.name, "update_id": book.update_id})
            book.discard()
        if self._may_be_shown(stream, sync):
            self._sink.publish(stream, _depth(stream, book, book.top(BOOK_LEVELS_PUBLISHED)), received_ms)
            self._news.unpark_all()

    def _look_after(self, stream: Stream, sync: _BookSync) -> None:
        """Ask for a snapshot of a book that is not synced, or needs a refresh; report whether it is synced."""
        book, now = sync.book, trio.current_time()
        if sync.is_synced and not book.needs_refresh:
            sync.due_at, sync.failures = None, 0
        elif sync.due_at is None:
            sync.due_at = now + (LATE_S if book.is_gapped else SUSPECT_S if sync.is_suspect else 0.0)
            self._news.unpark_all()
        if sync.is_synced:
            sync.was_synced = True
            self._health.clear(stream, HealthCause.ORDER_BOOK, _SYNCED)
            sync.is_reported = False
        elif not sync.is_reported:
            self._health.report(stream, HealthCause.ORDER_BOOK, _GAPPED if sync.was_synced else _NEW)
            sync.is_reported = True

    # What runs behind

    async def run(self) -> None:
        """Take snapshots, one after another, until cancelled: each weighs as much as two pages of trades."""
        while True:
            stream, due_at = self._next()
            if stream is None or due_at > trio.current_time():
                with trio.move_on_at(due_at):
                    await self._news.park()
            else:
                await self._take_snapshot(stream, self._syncs[stream])

    def _next(self) -> tuple[Stream | None, float]:
        due = [(sync.due_at, stream) for stream, sync in self._syncs.items() if sync.due_at is not None]
        if not due:
            return None, float("inf")
        due_at, stream = min(due)
        return stream, due_at

    async def _take_snapshot(self, stream: Stream, sync: _BookSync) -> None:
        if not self._rest.has_room:
            sync.due_at = trio.current_time() + RETRY_S  # missing trades go first
            return
        sync.book.begin_snapshot()
        suspicions = sync.suspicions
        try:
            params = {"symbol": stream.symbol, "limit": str(limits.DEPTH_ROWS)}
            answer = await self._rest.get(limits.DEPTH_PATH, _DepthSnapshot, params)
            check_levels(answer.bids, answer.asks)
        except (VenueError, Unreadable) as error:
            self._failed(stream, sync, error)
            return
        self._snapshots += 1
        if self._syncs.get(stream) is not sync:
            return
        most = limits.DEPTH_ROWS
        cut = len(answer.bids) >= most, len(answer.asks) >= most
        fits = sync.book.load(Snapshot(answer.lastUpdateId, answer.bids, answer.asks, *cut))
        if fits:
            sync.due_at = None
            sync.is_suspect &= (
                sync.suspicions != suspicions
            )  # it may be older than what was doubted since it was asked for
            self._show(stream, sync, self._clock_ms())
            self._look_after(stream, sync)
        if not fits or not sync.is_synced:
            self._did_not_fit(stream, sync)

    def _did_not_fit(self, stream: Stream, sync: _BookSync) -> None:
        """Ask again later: the snapshot is older than what has come since, or what has come is nonsense.

        What comes is kept on: REST may be a moment behind the stream, and its next answer fits.
        """
        sync.due_at = sync.retry_at(trio.current_time())
        if sync.failures >= SNAPSHOTS and not sync.is_synced:
            log.warning("order book restarted", extra={"stream": stream.name})
            sync.book = OrderBook()

    def _failed(self, stream: Stream, sync: _BookSync, error: VenueError | Unreadable) -> None:
        sync.book.end_snapshot()
        now = trio.current_time()
        sync.due_at = sync.retry_at(now)
        if isinstance(error, VenueError) and error.retry_after_s is not None:
            sync.due_at = max(sync.due_at, now + error.retry_after_s)
        log.warning(
            "no snapshot",
            extra={"stream": stream.name, "reason": str(error), "retry_in_s": round(sync.due_at - now, 1)},
        )


def _depth(stream: Stream, book: OrderBook, top: tuple[Levels, Levels]) -> Depth:
    assert KINDS[stream.kind].is_book
    assert book.update_id is not None
    bids, asks = top
    return Depth(symbol=stream.symbol, update_id=book.update_id, bids=bids, asks=asks, timestamp=book.timestamp)
