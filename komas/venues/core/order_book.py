"""One order book, kept in sync from a snapshot and the changes since (sans-I/O).

binance-spot-api-docs, web-socket-streams.md, "How to manage a local order book correctly", as corrected on 2025-11-12:
what changes is buffered; a snapshot is asked for; what it holds already is dropped; what follows must join on, each
update's first id at most one past the last. A real capture has a first kept update that begins exactly one past the
snapshot, so joining on is ``first <= last + 1``, not "contains".

    empty ──update──▶ syncing ──load()──▶ synced ──update that joins on──▶ synced
                         ▲                   └──update beyond the next──▶ gapped (kept: the missing one may be late)
                         └──────────────────────load() of a newer snapshot, or discard() ◀──┘

A snapshot is the best thousand levels a side. Beyond its worst price nothing is known but what has changed since, so
levels there are not shown; when the price has wandered near that edge, ``needs_refresh`` asks for another one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec

from komas.model.market import DepthUpdate

Levels = tuple[tuple[Decimal, Decimal], ...]

BUFFERED: Final = 5_000  # updates: eight minutes at ten a second; the snapshot is newer than what is dropped
RESTART_MS: Final = 10_000  # an old id that is so much younger than the newest one is no repetition
EDGE: Final = 200  # so few known levels a side mean that the price has wandered off


class Snapshot(msgspec.Struct, frozen=True):
    """The best levels of both sides at one update id; ``is_cut`` tells which side has more that is not there."""

    update_id: int
    bids: Levels
    asks: Levels
    bids_cut: bool = False
    asks_cut: bool = False


class _Side:
    """Levels by price, and the prices in order; ``sign`` is 1 where the lowest is the best."""

    def __init__(self, levels: Levels, sign: int, *, is_cut: bool) -> None:
        self._sign = sign
        self._levels = {sign * price: (price, quantity) for price, quantity in levels if quantity}
        self._keys = sorted(self._levels)
        self._edge = self._keys[-1] if is_cut and self._keys else None

    def put(self, levels: Levels) -> None:
        for price, quantity in levels:
            key = self._sign * price
            if not quantity:
                if self._levels.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            elif key in self._levels:
                self._levels[key] = (price, quantity)
            else:
                self._levels[key] = (price, quantity)
                insort(self._keys, key)

    @property
    def known(self) -> int:
        """How many levels are within the snapshot's reach."""
        return len(self._keys) if self._edge is None else bisect_right(self._keys, self._edge)

    @property
    def needs_refresh(self) -> bool:
        return self._edge is not None and self.known < EDGE

    @property
    def is_lost(self) -> bool:
        """Whether the price has left the snapshot's reach: what is best now is not known."""
        return self._edge is not None and not self.known

    @property
    def best(self) -> Decimal | None:
        return self._levels[self._keys[0]][0] if self._keys else None

    def top(self, count: int) -> Levels:
        return tuple(self._levels[key] for key in self._keys[: min(count, self.known)])


class OrderBook:
    """One symbol's book; feed it with ``take()``, and with ``load()`` while it is not synced, or needs a refresh."""

    def __init__(self) -> None:
        self._bids = _Side((), -1, is_cut=False)
        self._asks = _Side((), 1, is_cut=False)
        self._pending: deque[DepthUpdate] = deque(maxlen=BUFFERED)  # not in the book yet
        self._recent: deque[DepthUpdate] | None = None  # since a snapshot was asked for, while the book is synced
        self.update_id: int | None = None
        self.timestamp = 0
        self._heard_ms: int | None = None  # the exchange's clock at the newest update; a snapshot does not tell

    @property
    def is_synced(self) -> bool:
        """Whether the book is what the exchange has, as far as it was heard."""
        return self.update_id is not None and not self._pending and not (self._bids.is_lost or self._asks.is_lost)

    @property
    def is_gapped(self) -> bool:
        """Whether an update is missing between the book and what came since."""
        return self.update_id is not None and bool(self._pending)

    @property
    def needs_refresh(self) -> bool:
        """Whether the price has wandered so far that too few levels are known on one side."""
        return self.update_id is not None and (self._bids.needs_refresh or self._asks.needs_refresh)

    @property
    def is_crossed(self) -> bool:
        """Whether a bid is not below every ask: no book is like that."""
        bid, ask = self._bids.best, self._asks.best
        return bid is not None and ask is not None and bid >= ask

    def take(self, update: DepthUpdate) -> bool:
        """Take one update in; whether the book has changed."""
        if self._recent is not None:
            self._recent.append(update)
        if self.update_id is not None and update.last <= self.update_id:
            if self._heard_ms is None:
                self._heard_ms = update.timestamp
            if update.timestamp - self._heard_ms < RESTART_MS:
                return False
            self.discard()  # the ids have started again: a testnet was wiped
        self._pending.append(update)
        return self._join()

    def discard(self) -> None:
        """Empty the book: it waits for a snapshot."""
        self.update_id = None
        self._recent = None
        self._pending.clear()

    def end_snapshot(self) -> None:
        """No snapshot will come: nothing needs to be kept for it."""
        self._recent = None

    def begin_snapshot(self) -> None:
        """A snapshot is being asked for: keep what comes from now on, or from the first time that it was."""
        if self._recent is None:
            self._recent = self._pending.copy()

    def load(self, snapshot: Snapshot) -> bool:
        """Begin from a snapshot; false when it is older than the first update that is known, and another is needed.

        Likewise where it would not lead as far as the book has come.
        """
        known = sorted(self._pending if self._recent is None else self._recent, key=lambda update: update.first)
        later = [update for update in known if update.last > snapshot.update_id]
        if later and later[0].first > snapshot.update_id + 1:
            return False
        if self.update_id is not None and _reached(snapshot.update_id, later) < self.update_id:
            return False
        self._bids = _Side(snapshot.bids, -1, is_cut=snapshot.bids_cut)
        self._asks = _Side(snapshot.asks, 1, is_cut=snapshot.asks_cut)
        self.update_id = snapshot.update_id
        # A snapshot brings no time of its own: it is about as old as what was heard around it.
        self._heard_ms = max((update.timestamp for update in known), default=None)
        self.timestamp = self.timestamp if self._heard_ms is None else self._heard_ms
        self._recent = None
        self._pending = deque(later, maxlen=BUFFERED)
        self._join()
        return True

    def top(self, count: int) -> tuple[Levels, Levels]:
        """The best bids and asks, best first, at most so many of each."""
        return self._bids.top(count), self._asks.top(count)

    def _join(self) -> bool:
        """Enter every update that joins on; whether there was one."""
        if self.update_id is None:
            return False
        before = self.update_id
        for update in sorted(self._pending, key=lambda update: update.first):
            if update.first > self.update_id + 1:
                break
            self._enter(update)
        if self.update_id != before or any(update.last <= self.update_id for update in self._pending):
            self._pending = deque(self._after(self.update_id), maxlen=BUFFERED)
        return self.update_id != before

    def _enter(self, update: DepthUpdate) -> None:
        assert self.update_id is not None
        if update.last > self.update_id:
            self._bids.put(update.bids)
            self._asks.put(update.asks)
            self.update_id, self.timestamp = update.last, update.timestamp
            self._heard_ms = update.timestamp

    def _after(self, update_id: int) -> Iterable[DepthUpdate]:
        return (update for update in self._pending if update.last > update_id)


def _reached(update_id: int, later: Iterable[DepthUpdate]) -> int:
    """How far updates, in order, lead from an id without a hole."""
    for update in later:
        if update.first > update_id + 1:
            break
        update_id = max(update_id, update.last)
    return update_id
