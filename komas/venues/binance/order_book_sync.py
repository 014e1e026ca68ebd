"""Order books: changes go in, the best levels come out; a book with a gap is synced again before it is shown.

It takes what the feed brings of streams that are kept as books. Nothing here looks at every book, however many there
are: what will be due is in a heap, and a spent budget is one wait for all of them.

Snapshots are the scarcest thing that the exchange gives. Those who read books take turns (``FairQueue``), and who got
few of late is given one from a part of the budget that is kept for that.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count, islice
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.kinds import KINDS
from komas.model.market import BOOK_LEVELS_PUBLISHED, Depth, DepthUpdate, Health, Incoming
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.wire import Level, Number, check_levels, plain_levels
from komas.venues.core.complaints import Complaints
from komas.venues.core.fair_queue import OWNERS_LOOKED_AT, FairQueue
from komas.venues.core.health import Condition, HealthCause, StreamHealth
from komas.venues.core.order_book import Levels, OrderBook, Snapshot
from komas.venues.core.ports import MarketSink, Readers, Unreadable
from komas.venues.core.rest import Rest
from komas.venues.core.statistics import OrderBookStatistics

log = event_logger(__name__)

LATE_S: Final = 0.5  # an update that is only late comes by itself: two connections are some tenths of a second apart
SUSPECT_S: Final = 1.0  # so long a book that was cut may take to show, by its next change, that nothing is missing
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
RECENT_S: Final = 60.0  # as long as the exchange's budget lasts
OF_RESERVE: Final = 4  # snapshots in that time, after which a reader has none of the reserve
MOVED_AT_ONCE: Final = 64  # books that became due together, before others may run
ROOM_EVERY_S: Final = 1.0  # while there is no budget, it is looked for so often
SNAPSHOTS: Final = 3  # so many that do not fit what is known of a book: only what was heard last is believed
AT_ONCE: Final = 4  # snapshots under way: a host that drips holds each for ten seconds
_SWEPT: Final = 64
_NEW: Final = Condition(Health.PENDING, "the order book has no snapshot yet")
_GAPPED: Final = Condition(
    Health.RECOVERING, "something may be missing in the order book; it is taken anew", is_doubtful=True
)
_SYNCED: Final = "the order book is complete again"


class _DepthSnapshot(msgspec.Struct):
    """``{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}``."""

    lastUpdateId: Number  # noqa: N815 - the exchange's key
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class _BookSync:
    """One book, and what is being done about it."""

    def __init__(self) -> None:
        self.book = OrderBook()
        self.due_at: float | None = None  # when to ask for a snapshot, unless the missing update comes by itself
        self.failures = 0
        self.is_asked = False  # a snapshot is under way
        self.is_suspect = False  # something may have been missed
        self.suspicions = 0
        self.was_synced = False  # at some time
        self.is_reported = False  # that it is not synced

    @property
    def is_synced(self) -> bool:
        """Whether nothing is known to be missing."""
        return self.book.is_synced and not self.is_suspect

    def due_in_s(self) -> float:
        """How long what is missing may take to come by itself."""
        if self.book.is_gapped:
            return LATE_S
        return SUSPECT_S if self.is_suspect else 0.0

    def retry_at(self, now: float) -> float:
        """When to ask again after one more failure: the pause grows."""
        self.failures += 1
        return now + min(RETRY_MAX_S, math.ldexp(RETRY_S, min(self.failures - 1, 10)))


class _Due:
    """Which book will be due next: a heap, in which what is no longer due is passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Stream, _BookSync]] = []
        self._most = _SWEPT  # entries, after which it is swept
        self._order = count()  # of books that are due at one moment, the first comes first
        self.news = trio.lowlevel.ParkingLot()

    def put(self, stream: Stream, sync: _BookSync, at: float) -> None:
        """Ask for a book at a moment."""
        sync.due_at = at
        if len(self._heap) >= self._most:
            self._sweep()
        heappush(self._heap, (at, next(self._order), stream, sync))
        if self._heap[0][3] is sync:
            self.news.unpark_all()  # nothing else is due before

    def _sweep(self) -> None:
        """Forget what is no longer due: a book that is gapped and mended all the time is put in each time."""
        self._heap = [entry for entry in self._heap if entry[3].due_at == entry[0]]
        heapify(self._heap)
        self._most = 2 * max(len(self._heap), _SWEPT)

    def next_at(self) -> float:
        """When the next one will be due; ``math.inf`` where there is none."""
        while self._heap:
            at, _, _, sync = self._heap[0]
            if sync.due_at == at and not sync.is_asked:
                return at
            heappop(self._heap)
        return math.inf

    def pop(self) -> Stream:
        """Take the one that is due next out."""
        return heappop(self._heap)[2]


class _Recent:
    """Who got many snapshots of late."""

    def __init__(self) -> None:
        self._served: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def note(self, reader: str, now: float) -> None:
        """One was asked for on behalf of a reader."""
        self._served.append((now, reader))
        self._counts[reader] += 1

    def __contains__(self, reader: str) -> bool:
        now = trio.current_time()
        while self._served and self._served[0][0] + RECENT_S <= now:
            _, other = self._served.popleft()
            self._counts[other] -= 1
            if not self._counts[other]:
                del self._counts[other]
        return self._counts[reader] >= OF_RESERVE


class OrderBooks:
    """A ``FeedSink`` for the streams of order books; ``run()`` it beside the feed."""

    def __init__(
        self, sink: MarketSink, rest: Rest, health: StreamHealth, readers: Readers, clock_ms: Callable[[], int]
    ) -> None:
        self._sink = sink
        self._rest = rest
        self._health = health
        self._readers = readers
        self._clock_ms = clock_ms
        self._complaints = Complaints(log)
        self._syncs: dict[Stream, _BookSync] = {}
        self._unsynced: set[Stream] = set()
        self._awaited: dict[Stream, trio.lowlevel.ParkingLot] = {}  # by those who wait for a book to be shown
        self._due = _Due()
        # For the budget: those that are due; and of them, those for which the reserve may be used.
        self._waiting: FairQueue[Stream] = FairQueue()
        self._newcomers: FairQueue[Stream] = FairQueue()
        self._recent = _Recent()
        self._slots = trio.Semaphore(AT_ONCE)
        self._reading = trio.Lock()
        self._snapshots = 0

    def statistics(self) -> OrderBookStatistics:
        """Counts, for metrics."""
        untrue = self._unsynced | (self._health.stale & self._syncs.keys())
        return OrderBookStatistics(len(self._syncs), len(untrue), self._snapshots)

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
            waiting = self._awaited.setdefault(stream, trio.lowlevel.ParkingLot())
            try:
                await waiting.park()
            finally:
                if not waiting and self._awaited.get(stream) is waiting:
                    del self._awaited[stream]
        return depth

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Enter what changed in a book, and show it once: a newer state replaces an older one."""
        sync = self._sync_of(stream)
        has_changed = False
        for event in events:
            assert isinstance(event, DepthUpdate)  # of such a stream there is nothing else
            has_changed |= self._enter(stream, sync, event)
        if has_changed:
            self._show(stream, sync, received_ms)
        self._look_after(stream, sync)

    def _sync_of(self, stream: Stream) -> _BookSync:
        sync = self._syncs.get(stream)
        if sync is None:
            sync = self._syncs[stream] = _BookSync()
            self._unsynced.add(stream)
        return sync

    def _enter(self, stream: Stream, sync: _BookSync, event: DepthUpdate) -> bool:
        """Enter one change; whether the book is another one now."""
        book = sync.book
        has_changed = book.take(event)
        if has_changed or event.last == book.update_id or book.update_id is None:
            sync.is_suspect = False  # it joins on: nothing is missing; or there is nothing yet that could be wrong
        if has_changed:
            self._check(stream, sync)
        return has_changed

    def _check(self, stream: Stream, sync: _BookSync) -> None:
        """Empty a book that cannot be."""
        if sync.book.is_crossed:
            self._complaints.error("order book crossed", stream=stream.name, update_id=sync.book.update_id)
            sync.book.discard()

    def on_suspect(self, stream: Stream) -> None:
        """Show a book no more until its next change joins on, or a snapshot has come.

        A book of which nothing was heard yet is begun: where nothing changes, a snapshot is all there is.
        """
        sync = self._sync_of(stream)
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
        sync = self._syncs.pop(stream, None)
        if sync is not None:
            sync.due_at = None
            self._unsynced.discard(stream)
            self._health.clear(stream, HealthCause.ORDER_BOOK)

    def _show(self, stream: Stream, sync: _BookSync, received_ms: int) -> None:
        if self._may_be_shown(stream, sync):
            self._sink.publish(stream, _depth(stream, sync.book, sync.book.top(BOOK_LEVELS_PUBLISHED)), received_ms)

    def _look_after(self, stream: Stream, sync: _BookSync) -> None:
        """Ask for a snapshot of a book that is not synced, or needs a refresh; report whether it is synced."""
        if sync.is_synced and not sync.book.needs_refresh:
            sync.due_at, sync.failures = None, 0
        else:
            at = trio.current_time() + sync.due_in_s()
            if sync.due_at is None or (at < sync.due_at and not sync.failures):
                self._due.put(stream, sync, at)
        if sync.is_synced:
            self._unsynced.discard(stream)
            sync.was_synced = True
            self._health.clear(stream, HealthCause.ORDER_BOOK, _SYNCED)
            sync.is_reported = False
            if (waiting := self._awaited.get(stream)) is not None:
                waiting.unpark_all()
        elif not sync.is_reported:
            self._unsynced.add(stream)
            self._health.report(stream, HealthCause.ORDER_BOOK, _GAPPED if sync.was_synced else _NEW)
            sync.is_reported = True

    # What runs behind

    async def run(self) -> None:
        """Take snapshots, some beside each other, until cancelled."""
        self._readers.tell_readers(self._on_reader)
        async with trio.open_nursery() as nursery:
            while True:
                await self._slots.acquire()
                stream, sync = await self._next()
                # No await since it was found: it is not found again while it is asked for.
                sync.is_asked = True
                nursery.start_soon(self._take_snapshot, stream, sync, name="order book snapshot")

    async def _next(self) -> tuple[Stream, _BookSync]:
        """Wait until a book is due and the budget has room; one wait for all books."""
        while True:
            await self._move_due()
            # Missing trades go first: they may use all of the budget.
            if (found := self._turn()) is not None:
                return found
            if len(self._waiting):
                await trio.sleep(ROOM_EVERY_S)
            else:
                with trio.move_on_at(self._due.next_at()):
                    await self._due.news.park()  # another one may be due before

    async def _move_due(self) -> None:
        """Let the books that are due take their turns."""
        moved = 0
        while self._due.next_at() <= trio.current_time():
            stream = self._due.pop()
            self._wait(stream, self._readers.readers(stream))
            moved += 1
            if moved % MOVED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    def _wait(self, stream: Stream, readers: Iterable[str]) -> None:
        """Have a book wait for the turns of some of its readers."""
        some = tuple(islice(readers, OWNERS_LOOKED_AT))
        self._waiting.put(stream, some)
        if newcomers := [reader for reader in some if reader not in self._recent]:
            self._newcomers.put(stream, newcomers)

    def _on_reader(self, stream: Stream, reader: str) -> None:
        """One more reads a book: it is taken in that one's turn, if it waits for another's that comes later."""
        if stream in self._waiting:
            self._wait(stream, (reader,))

    def _turn(self) -> tuple[Stream, _BookSync] | None:
        """Whose turn it is, where the budget has room."""
        queue = self._waiting if self._rest.has_room else self._newcomers if self._rest.has_reserve else None
        while queue is not None and (first := queue.first()) is not None:
            stream, reader = first
            sync = self._syncs.get(stream)
            if sync is None or sync.is_asked or sync.due_at is None or sync.due_at > trio.current_time():
                self._waiting.discard(stream)  # it needs no snapshot any more, or not yet
                self._newcomers.discard(stream)
            elif queue is self._newcomers and reader in self._recent:
                self._newcomers.discard(stream)
            else:
                queue.serve(stream)
                self._waiting.discard(stream)
                self._newcomers.discard(stream)
                self._recent.note(reader, trio.current_time())
                return stream, sync
        return None

    async def _take_snapshot(self, stream: Stream, sync: _BookSync) -> None:
        await self._ask(stream, sync)
        self._slots.release()
        sync.is_asked = False
        if sync.due_at is not None:
            self._due.put(stream, sync, sync.due_at)  # it was passed over meanwhile

    async def _ask(self, stream: Stream, sync: _BookSync) -> None:
        sync.book.begin_snapshot()
        suspicions = sync.suspicions
        try:
            answer = await self._answer(stream)
            async with self._reading:  # some milliseconds for each: where several come together, others run in between
                snapshot = self._read(answer)
        except (VenueError, Unreadable) as error:
            if self._syncs.get(stream) is sync:
                self._failed(stream, sync, error)
            return
        self._take(stream, sync, snapshot, suspicions)

    def _take(self, stream: Stream, sync: _BookSync, snapshot: Snapshot, suspicions: int) -> None:
        """Begin a book from a snapshot; ``suspicions`` is how many there were when it was asked for."""
        self._snapshots += 1
        if self._syncs.get(stream) is not sync:
            return  # it was closed
        fits = sync.book.load(snapshot)
        if fits:
            sync.due_at = None
            # It may be older than what was doubted since it was asked for.
            sync.is_suspect &= sync.suspicions != suspicions
            self._check(stream, sync)
            self._show(stream, sync, self._clock_ms())
            self._look_after(stream, sync)
        if not fits or not sync.is_synced:
            self._did_not_fit(stream, sync)

    async def _answer(self, stream: Stream) -> _DepthSnapshot:
        params = {"symbol": stream.symbol, "limit": str(limits.DEPTH_ROWS)}
        return await self._rest.get(limits.DEPTH_PATH, _DepthSnapshot, params, most_bytes=limits.DEPTH_BYTES)

    def _read(self, answer: _DepthSnapshot) -> Snapshot:
        most = limits.DEPTH_ROWS
        if max(len(answer.bids), len(answer.asks)) > most:
            raise VenueError(f"{limits.DEPTH_PATH} answered more than {most} levels a side", cause=Cause.PROTOCOL)
        bids, asks = plain_levels(answer.bids), plain_levels(answer.asks)
        check_levels(bids, asks)
        cut = len(bids) == most, len(asks) == most
        return Snapshot(answer.lastUpdateId, bids, asks, *cut, timestamp=self._clock_ms())

    def _did_not_fit(self, stream: Stream, sync: _BookSync) -> None:
        """Ask again later: the snapshot is older than what has come since, or what has come is nonsense.

        What comes is kept on: REST may be a moment behind the stream, or a minute, and an answer after that fits.
        """
        self._due.put(stream, sync, sync.retry_at(trio.current_time()))
        if sync.failures >= SNAPSHOTS and not sync.is_synced and sync.book.restart():
            self._complaints.warning("order book restarted", stream=stream.name)

    def _failed(self, stream: Stream, sync: _BookSync, error: VenueError | Unreadable) -> None:
        sync.book.end_snapshot()
        now = trio.current_time()
        sync.due_at = sync.retry_at(now)
        if isinstance(error, VenueError) and error.retry_after_s is not None:
            sync.due_at = max(sync.due_at, now + error.retry_after_s)
        retry_in_s = round(sync.due_at - now, 1)
        self._complaints.warning("no snapshot", stream=stream.name, reason=str(error), retry_in_s=retry_in_s)


def _depth(stream: Stream, book: OrderBook, top: tuple[Levels, Levels]) -> Depth:
    assert KINDS[stream.kind].is_book
    assert book.update_id is not None
    bids, asks = top
    return Depth(symbol=stream.symbol, update_id=book.update_id, bids=bids, asks=asks, timestamp=book.timestamp)
