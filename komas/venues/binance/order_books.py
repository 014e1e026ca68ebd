"""Order books: what changed goes in, the best levels come out; a torn book is mended before it is shown again.

It takes what the feed brings of streams that are kept as books.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import msgspec
import trio

from komas.errors import VenueError
from komas.model.kinds import KINDS
from komas.model.market import BOOK_LEVELS_PUBLISHED, Depth, DepthUpdate, Health, Incoming
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.wire import check_levels
from komas.venues.core.health import Cause, Condition, StreamHealth
from komas.venues.core.order_book import Levels, OrderBook, Snapshot
from komas.venues.core.ports import MarketSink, Unreadable
from komas.venues.core.rest import Rest
from komas.venues.core.statistics import OrderBookStatistics

log = logging.getLogger(__name__)

LATE_S: Final = 0.5  # an update that is only late comes by itself: two connections are some tenths of a second apart
DOUBT_S: Final = 1.0  # so long a book that was cut may take to show, by its next change, that nothing is missing
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
SNAPSHOTS: Final = 3  # so many that do not fit what is known of a book: what is known is dropped
_NEW: Final = Condition(Health.PENDING, "the order book has no snapshot yet")
_TORN: Final = Condition(
    Health.RECOVERING, "something may be missing in the order book; it is taken anew", is_doubtful=True
)
_TRUE: Final = "the order book is true"


class _DepthSnapshot(msgspec.Struct):
    """``{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}``."""

    lastUpdateId: int  # noqa: N815 - the exchange's key
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]


class _Shelf:
    """One book, and what is being done about it."""

    def __init__(self) -> None:
        self.book = OrderBook()
        self.due_at: float | None = None  # when to ask for a snapshot, unless the book mends itself
        self.failures = 0
        self.is_doubtful = False  # something may have been missed
        self.doubts = 0
        self.was_whole = False  # at some time
        self.is_reported = False  # that it is not whole

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return self.book.is_true and not self.is_doubtful

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
        self._shelves: dict[Stream, _Shelf] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._snapshots = 0

    def statistics(self) -> OrderBookStatistics:
        """Counts, for metrics."""
        untrue = sum(not self._is_true(stream, shelf) for stream, shelf in self._shelves.items())
        return OrderBookStatistics(len(self._shelves), untrue, self._snapshots)

    # What is asked of the books

    def depth(self, stream: Stream, levels: int) -> Depth | None:
        """The best levels of a book; ``None`` while it is not known to be true."""
        shelf = self._shelves.get(stream)
        if shelf is None or not self._is_true(stream, shelf):
            return None
        return _depth(stream, shelf.book, shelf.book.top(levels))

    def _is_true(self, stream: Stream, shelf: _Shelf) -> bool:
        """Whether a book may be shown: no snapshot tells what is missed while its stream is silent."""
        return shelf.is_whole and self._health.of(stream).health is not Health.STALE

    async def known(self, stream: Stream, levels: int) -> Depth:
        """Wait until a book is true; returns its best levels."""
        while (depth := self.depth(stream, levels)) is None:
            await self._news.park()
        return depth

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Enter what changed in a book, and show it."""
        shelf = self._shelves.get(stream)
        if shelf is None:
            shelf = self._shelves[stream] = _Shelf()
        for event in events:
            assert isinstance(event, DepthUpdate)  # of such a stream there is nothing else
            self._enter(stream, shelf, event, received_ms)

    def _enter(self, stream: Stream, shelf: _Shelf, event: DepthUpdate, received_ms: int) -> None:
        has_changed = shelf.book.take(event)
        if has_changed or event.last == shelf.book.update_id:
            shelf.is_doubtful = False  # it joins on: nothing is missing
        if has_changed:
            self._show(stream, shelf, received_ms)
        self._look_after(stream, shelf)

    def on_suspect(self, stream: Stream) -> None:
        """Show a book no more until its next change joins on, or a snapshot has come."""
        shelf = self._shelves.get(stream)
        if shelf is not None:
            shelf.is_doubtful = True
            shelf.doubts += 1
            self._look_after(stream, shelf)

    def on_reset(self, stream: Stream) -> None:
        """Close a book that is no longer wanted."""
        self._close(stream)

    def on_refused(self, stream: Stream, reason: str) -> None:
        """Close the book of a stream that the exchange refuses."""
        self._close(stream)
        self._sink.reject(stream, reason)

    def close_all(self) -> None:
        """Close every book: the feed was let go, and they are things of the past."""
        for stream in tuple(self._shelves):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        if self._shelves.pop(stream, None) is not None:
            self._health.clear(stream, Cause.ORDER_BOOK)

    def _show(self, stream: Stream, shelf: _Shelf, received_ms: int) -> None:
        book = shelf.book
        if book.is_crossed:
            log.error("order book crossed", extra={"stream": stream.name, "update_id": book.update_id})
            book.tear()
        if self._is_true(stream, shelf):
            self._sink.publish(stream, _depth(stream, book, book.top(BOOK_LEVELS_PUBLISHED)), received_ms)
            self._news.unpark_all()

    def _look_after(self, stream: Stream, shelf: _Shelf) -> None:
        """See to it that a book which is not true, or worn, gets a snapshot; tell who listens."""
        book, now = shelf.book, trio.current_time()
        if shelf.is_whole and not book.is_worn:
            shelf.due_at, shelf.failures = None, 0
        elif shelf.due_at is None:
            shelf.due_at = now + (LATE_S if book.is_torn else DOUBT_S if shelf.is_doubtful else 0.0)
            self._news.unpark_all()
        if shelf.is_whole:
            shelf.was_whole = True
            self._health.clear(stream, Cause.ORDER_BOOK, _TRUE)
            shelf.is_reported = False
        elif not shelf.is_reported:
            self._health.report(stream, Cause.ORDER_BOOK, _TORN if shelf.was_whole else _NEW)
            shelf.is_reported = True

    # What runs behind

    async def run(self) -> None:
        """Take snapshots, one after another, until cancelled: each weighs as much as two pages of trades."""
        while True:
            stream, due_at = self._next()
            if stream is None or due_at > trio.current_time():
                with trio.move_on_at(due_at):
                    await self._news.park()
            else:
                await self._take_snapshot(stream, self._shelves[stream])

    def _next(self) -> tuple[Stream | None, float]:
        due = [(shelf.due_at, stream) for stream, shelf in self._shelves.items() if shelf.due_at is not None]
        if not due:
            return None, float("inf")
        due_at, stream = min(due)
        return stream, due_at

    async def _take_snapshot(self, stream: Stream, shelf: _Shelf) -> None:
        if not self._rest.has_room:
            shelf.due_at = trio.current_time() + RETRY_S  # missing trades go first
            return
        shelf.book.begin_snapshot()
        doubts = shelf.doubts
        try:
            params = {"symbol": stream.symbol, "limit": str(limits.DEPTH_ROWS)}
            answer = await self._rest.get(limits.DEPTH_PATH, _DepthSnapshot, params)
            check_levels(answer.bids, answer.asks)
        except (VenueError, Unreadable) as error:
            self._failed(stream, shelf, error)
            return
        self._snapshots += 1
        if self._shelves.get(stream) is not shelf:
            return
        most = limits.DEPTH_ROWS
        cut = len(answer.bids) >= most, len(answer.asks) >= most
        fits = shelf.book.load(Snapshot(answer.lastUpdateId, answer.bids, answer.asks, *cut))
        if fits:
            shelf.due_at = None
            shelf.is_doubtful &= shelf.doubts != doubts  # it may be older than what was doubted since it was asked for
            self._show(stream, shelf, self._clock_ms())
            self._look_after(stream, shelf)
        if not fits or not shelf.is_whole:
            self._did_not_fit(stream, shelf)

    def _did_not_fit(self, stream: Stream, shelf: _Shelf) -> None:
        """Ask again later: the snapshot is older than what has come since, or what has come is nonsense.

        What comes is kept on: REST may be a moment behind the stream, and its next answer fits.
        """
        shelf.due_at = shelf.retry_at(trio.current_time())
        if shelf.failures >= SNAPSHOTS and not shelf.is_whole:
            log.warning("order book restarted", extra={"stream": stream.name})
            shelf.book = OrderBook()

    def _failed(self, stream: Stream, shelf: _Shelf, error: VenueError | Unreadable) -> None:
        shelf.book.end_snapshot()
        now = trio.current_time()
        shelf.due_at = shelf.retry_at(now)
        if isinstance(error, VenueError) and error.retry_after_s is not None:
            shelf.due_at = max(shelf.due_at, now + error.retry_after_s)
        log.warning(
            "no snapshot",
            extra={"stream": stream.name, "reason": str(error), "retry_in_s": round(shelf.due_at - now, 1)},
        )


def _depth(stream: Stream, book: OrderBook, top: tuple[Levels, Levels]) -> Depth:
    assert KINDS[stream.kind].is_book
    assert book.update_id is not None
    bids, asks = top
    return Depth(symbol=stream.symbol, update_id=book.update_id, bids=bids, asks=asks, timestamp=book.timestamp)
