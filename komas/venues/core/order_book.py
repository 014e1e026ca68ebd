"""One order book, kept in sync from a snapshot and the changes since (sans-I/O).

binance-spot-api-docs, web-socket-streams.md, "How to manage a local order book correctly", as corrected on 2025-11-12:
what changes is buffered; a snapshot is asked for; what it holds already is dropped; what follows must join on, each
update's first id at most one past the last. A real capture has a first kept update that begins exactly one past the
snapshot, so joining on is ``first <= last + 1``, not "contains".

    empty ──update──▶ syncing ──load()──▶ synced ──update that joins on──▶ synced
                         ▲                   └──update beyond the next──▶ gapped (kept: the missing one may be late)
                         └──────────────────────load() of a newer snapshot, or discard() ◀──┘

A snapshot is the best thousand levels a side. Beyond its worst price nothing is known but what has changed since, so
levels there are not kept; when the price has wandered near that edge, ``needs_refresh`` asks for another one.

Whatever an exchange sends, a book costs a bounded time and memory: each side keeps its best levels, and what waits for
a snapshot is merged as it comes (``ChangeBuffer``), because only the newest quantity of each price counts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection
from decimal import Decimal
from typing import Final

import msgspec

from komas.model.market import DepthUpdate

Level = tuple[Decimal, Decimal]
Levels = tuple[Level, ...]

RESTART_MS: Final = 10_000  # an old id that is so much younger than the newest one is no repetition
EDGE: Final = 200  # so few known levels a side mean that the price has wandered off
KEPT: Final = 2_500  # levels a side when a side is cut: twice what a snapshot brings, and somewhat more
MOST: Final = 2 * KEPT  # levels a side, after which it is cut: not at every update
BULK: Final = 64  # so many new levels at once are sorted in, instead of put in one by one
# Levels that wait for a snapshot, both sides together, each price once. In the busiest minute of BTCUSDT's capture some
# thousand prices change; sorting in twice as many as this would hold up every other stream for 20 ms.
BUFFERED: Final = 20_000
RUNS: Final = 100  # of ids without a hole that wait: late updates close holes within a second or never


class Snapshot(msgspec.Struct, frozen=True):
    """The best levels of both sides at one update id; ``is_cut`` tells which side has more that is not there.

    ``timestamp`` is when it came (milliseconds since the epoch), for a book of which nothing else was heard.
    """

    update_id: int
    bids: Levels
    asks: Levels
    bids_cut: bool = False
    asks_cut: bool = False
    timestamp: int = 0


class _Side:
    """Levels by price, and the prices in order; ``sign`` is 1 where the lowest is the best."""

    def __init__(self, levels: Levels, sign: int, *, is_cut: bool) -> None:
        self._sign = sign
        self._levels = {sign * price: (price, quantity) for price, quantity in levels if quantity}
        self._keys = sorted(self._levels)
        self._edge = self._keys[-1] if is_cut and self._keys else None  # what lies beyond is not known in full

    def put(self, levels: Collection[Level]) -> None:
        """Enter changes; a quantity of zero removes its level."""
        if len(levels) > BULK:
            self._put_many(levels)
        else:
            self._put_few(levels)
        if len(self._keys) > MOST:
            self._cut()

    def _put_few(self, levels: Collection[Level]) -> None:
        edge = self._edge
        for price, quantity in levels:
            key = self._sign * price
            if not quantity:
                if self._levels.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            elif edge is None or key <= edge:
                if key not in self._levels:
                    insort(self._keys, key)
                self._levels[key] = (price, quantity)

    def _put_many(self, levels: Collection[Level]) -> None:
        """As ``_put_few()``, with one sort for all: a thousand insertions move a list's tail a thousand times."""
        edge, before, removed = self._edge, len(self._levels), False
        for price, quantity in levels:
            key = self._sign * price
            if not quantity:
                removed |= self._levels.pop(key, None) is not None
            elif edge is None or key <= edge:
                self._levels[key] = (price, quantity)
        if removed or len(self._levels) != before:
            self._keys = sorted(self._levels)

    def _cut(self) -> None:
        """Forget the worst levels: they are many times what anybody is shown."""
        for key in self._keys[KEPT:]:
            del self._levels[key]
        del self._keys[KEPT:]
        self._edge = self._keys[-1]

    @property
    def needs_refresh(self) -> bool:
        return self._edge is not None and len(self._keys) < EDGE

    @property
    def is_lost(self) -> bool:
        """Whether the price has left the snapshot's reach: what is best now is not known."""
        return self._edge is not None and not self._keys

    @property
    def best(self) -> Decimal | None:
        return self._levels[self._keys[0]][0] if self._keys else None

    def top(self, count: int) -> Levels:
        return tuple([self._levels[key] for key in self._keys[:count]])


class _Run:
    """Updates without a hole between them, merged: of each price the newest quantity, and the id that it came with."""

    def __init__(self, update: DepthUpdate) -> None:
        self.first, self.last = update.first, update.last
        self.timestamp = update.timestamp
        self.bids = {price: (quantity, update.last) for price, quantity in update.bids}
        self.asks = {price: (quantity, update.last) for price, quantity in update.asks}

    def __len__(self) -> int:
        return len(self.bids) + len(self.asks)

    def after(self, update_id: int) -> tuple[list[Level], list[Level]]:
        """The bids and asks that changed after an id."""
        bids, asks = (
            [(price, quantity) for price, (quantity, at) in side.items() if at > update_id]
            for side in (self.bids, self.asks)
        )
        return bids, asks

    def add(self, later: _Run) -> _Run:
        """Both in one, where ``later`` joins on; the smaller one is entered into the bigger one."""
        if len(later) > len(self):
            return later._put_before(self)
        self.bids |= later.bids
        self.asks |= later.asks
        self.last, self.timestamp = later.last, max(self.timestamp, later.timestamp)
        return self

    def _put_before(self, earlier: _Run) -> _Run:
        for ours, theirs in ((self.bids, earlier.bids), (self.asks, earlier.asks)):
            for price, change in theirs.items():
                ours.setdefault(price, change)
        self.first, self.timestamp = earlier.first, max(self.timestamp, earlier.timestamp)
        return self


class ChangeBuffer:
    """Updates that wait for a snapshot, or behind a missing one, as runs in the order of their ids."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []  # none joins on to the next
        self._newest: _Run | None = None  # the one that was added to last

    def __len__(self) -> int:
        """How many levels are kept."""
        return sum(map(len, self._runs))

    @property
    def timestamp(self) -> int | None:
        """The exchange's clock at the newest update; ``None`` where there is none."""
        return max((run.timestamp for run in self._runs), default=None)

    def add(self, update: DepthUpdate) -> bool:
        """Keep an update; whether all others are kept, too.

        Where they are too much, the older runs are forgotten: a snapshot is newer than these.
        """
        begin = bisect_right(self._runs, update.first, key=lambda run: run.first)
        end, run = begin, _Run(update)
        if begin and update.first <= (before := self._runs[begin - 1]).last + 1:
            if update.last <= before.last:
                return True  # it is there
            begin, run = begin - 1, before.add(run)
        while end < len(self._runs) and (later := self._runs[end]).first <= run.last + 1:
            end += 1
            if later.last > run.last:
                run = run.add(later)
        self._runs[begin:end] = [run]
        self._newest = run
        if len(self._runs) <= RUNS and len(self) <= BUFFERED:
            return True
        self.keep_newest()
        if len(self) > BUFFERED:
            self._newest = _Run(update)
            self._runs = [self._newest]
        return False

    def joining(self, update_id: int) -> _Run | None:
        """The run that leads on from an id; ``None`` if there is a hole, or nothing newer."""
        later = next((run for run in self._runs if run.last > update_id), None)
        return None if later is None or later.first > update_id + 1 else later

    def is_beyond(self, update_id: int) -> bool:
        """Whether anything newer than an id is there."""
        return bool(self._runs) and self._runs[-1].last > update_id

    def forget_until(self, update_id: int) -> None:
        """Forget runs that hold nothing newer than an id."""
        while self._runs and self._runs[0].last <= update_id:
            del self._runs[0]

    def keep_newest(self) -> bool:
        """Forget every run but the one that was added to last, if that is still there; whether there was another."""
        newest = [run for run in self._runs if run is self._newest]
        is_more = len(self._runs) > len(newest)
        self._runs = newest
        return is_more

    def clear(self) -> None:
        """Forget everything."""
        self._runs.clear()


class OrderBook:
    """One symbol's book; feed it with ``take()``, and with ``load()`` while it is not synced, or needs a refresh."""

    def __init__(self) -> None:
        self._bids = _Side((), -1, is_cut=False)
        self._asks = _Side((), 1, is_cut=False)
        self._buffer = ChangeBuffer()  # what is not in the book yet, and all that comes while a snapshot is awaited
        self._is_awaited = False
        self.update_id: int | None = None
        self.timestamp = 0
        self._heard_ms: int | None = None  # the exchange's clock at the newest update; a snapshot does not tell

    @property
    def is_synced(self) -> bool:
        """Whether the book is what the exchange has, as far as it was heard."""
        return self.update_id is not None and not self.is_gapped and not (self._bids.is_lost or self._asks.is_lost)

    @property
    def is_gapped(self) -> bool:
        """Whether an update is missing between the book and what came since."""
        return self.update_id is not None and self._buffer.is_beyond(self.update_id)

    @property
    def needs_refresh(self) -> bool:
        """Whether the price has wandered so far that too few levels are known on one side."""
        return self.update_id is not None and (self._bids.needs_refresh or self._asks.needs_refresh)

    @property
    def is_crossed(self) -> bool:
        """Whether a bid is not below every ask: no book is like that."""
        bid, ask = self._bids.best, self._asks.best
        return bid is not None and ask is not None and bid >= ask

    @property
    def buffered(self) -> int:
        """How many levels wait, or are kept for a snapshot that is awaited."""
        return len(self._buffer)

    def take(self, update: DepthUpdate) -> bool:
        """Take one update in; whether the book has changed."""
        if self.update_id is not None and update.last <= self.update_id:
            if self._heard_ms is None:
                self._heard_ms = update.timestamp
            if update.timestamp - self._heard_ms < RESTART_MS:
                return False
            self.discard()  # the ids have started again: a testnet was wiped
        if self.update_id is None or self._is_awaited or update.first > self.update_id + 1:
            was_gapped = self.is_gapped
            if not self._buffer.add(update) and was_gapped:
                self.update_id = None  # what lies beyond the hole may be forgotten, and the book would pass for synced
        before = self.update_id
        if self.update_id is not None and update.first <= self.update_id + 1:
            self._enter(update.bids, update.asks, update.last, update.timestamp)
            self._join()
        return self.update_id != before

    def discard(self) -> None:
        """Empty the book: it waits for a snapshot."""
        self.update_id = None
        self._is_awaited = False
        self._buffer.clear()

    def restart(self) -> bool:
        """Empty the book and forget what no snapshot led to, but not what was heard last; whether there was any.

        An update whose id is garbage has none behind it, and would wait for ever.
        """
        was_there = self.update_id is not None
        self.update_id = None
        return self._buffer.keep_newest() or was_there

    def end_snapshot(self) -> None:
        """No snapshot will come: nothing needs to be kept for it."""
        self._is_awaited = False
        if self.update_id is not None:
            self._buffer.forget_until(self.update_id)

    def begin_snapshot(self) -> None:
        """A snapshot is being asked for: keep what comes from now on, or from the first time that it was."""
        self._is_awaited = True

    def load(self, snapshot: Snapshot) -> bool:
        """Begin from a snapshot; false when it is older than the first update that is known, and another is needed.

        Likewise where it would not lead as far as the book has come. What is kept stays, for the next one.
        """
        later = self._buffer.joining(snapshot.update_id)
        if later is None and self._buffer.is_beyond(snapshot.update_id):
            return False
        reached = snapshot.update_id if later is None else later.last
        if self.update_id is not None and reached < self.update_id:
            return False
        self._bids = _Side(snapshot.bids, -1, is_cut=snapshot.bids_cut)
        self._asks = _Side(snapshot.asks, 1, is_cut=snapshot.asks_cut)
        self.update_id = snapshot.update_id
        # A snapshot brings no time of its own: it is about as old as what was heard around it.
        self._heard_ms = self._buffer.timestamp
        self.timestamp = (self.timestamp or snapshot.timestamp) if self._heard_ms is None else self._heard_ms
        self._is_awaited = False
        self._join()
        return True

    def top(self, count: int) -> tuple[Levels, Levels]:
        """The best bids and asks, best first, at most so many of each."""
        return self._bids.top(count), self._asks.top(count)

    def _join(self) -> None:
        """Enter what waits and joins on."""
        assert self.update_id is not None
        if (run := self._buffer.joining(self.update_id)) is not None:
            self._enter(*run.after(self.update_id), run.last, run.timestamp)
        if not self._is_awaited:
            self._buffer.forget_until(self.update_id)

    def _enter(self, bids: Collection[Level], asks: Collection[Level], last: int, timestamp: int) -> None:
        self._bids.put(bids)
        self._asks.put(asks)
        self.update_id, self.timestamp, self._heard_ms = last, timestamp, timestamp
