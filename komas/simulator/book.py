"""An order book: levels on both sides, one id for each change, and what changed since anybody asked."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest, nsmallest
from typing import NamedTuple

Levels = list[tuple[int, int]]


class Top(NamedTuple):
    """The best level of each side; zeros where a side is empty."""

    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


class Diff(NamedTuple):
    """Levels that changed, with what is there now, and the first and last update that did it."""

    first: int
    last: int
    bids: Levels
    asks: Levels


class Recorder:
    """What changed since a given update: one for each speed at which diffs are sent."""

    def __init__(self, update_id: int) -> None:
        self.first = update_id + 1
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def diff(self, update_id: int) -> Diff | None:
        """The changes up to ``update_id``; ``None`` where there were none."""
        if not self.bids and not self.asks:
            return None
        return Diff(self.first, update_id, sorted(self.bids.items(), reverse=True), sorted(self.asks.items()))


class Book:
    """Both sides of one symbol, price to quantity, in 1e-8."""

    def __init__(self, update_id: int = 0) -> None:
        self.update_id = update_id
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.fast = Recorder(update_id)
        self.slow = Recorder(update_id)

    def put(self, side: dict[int, int], price: int, quantity: int) -> None:
        """Set one level; a quantity of zero removes it."""
        if quantity:
            side[price] = quantity
        else:
            side.pop(price, None)
        self.update_id += 1
        for recorder in (self.fast, self.slow):
            (recorder.bids if side is self.bids else recorder.asks)[price] = quantity

    def taken(self, *, fast: bool) -> Diff | None:
        """What changed since this was last asked at this speed."""
        diff = (self.fast if fast else self.slow).diff(self.update_id)
        if diff is not None and fast:
            self.fast = Recorder(self.update_id)
        elif diff is not None:
            self.slow = Recorder(self.update_id)
        return diff

    def replace(self, update_id: int, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> None:
        """Become a snapshot."""
        self.update_id = update_id
        self.bids, self.asks = dict(bids), dict(asks)
        self.fast, self.slow = Recorder(update_id), Recorder(update_id)

    def skip(self, *, fast: bool) -> None:
        """Nobody asks what changed."""
        if fast and (self.fast.bids or self.fast.asks):
            self.fast = Recorder(self.update_id)
        elif not fast and (self.slow.bids or self.slow.asks):
            self.slow = Recorder(self.update_id)

    def apply(self, diff: Diff) -> None:
        """Follow a diff of somebody else's book; one that is older than this book changes nothing."""
        if diff.last <= self.update_id:
            return
        for recorder in (self.fast, self.slow):
            recorder.bids.update(diff.bids)
            recorder.asks.update(diff.asks)
        for side, levels in ((self.bids, diff.bids), (self.asks, diff.asks)):
            for price, quantity in levels:
                if quantity:
                    side[price] = quantity
                else:
                    side.pop(price, None)
        self.update_id = diff.last

    def top(self) -> Top:
        """The best bid and the best ask."""
        bid = max(self.bids, default=0)
        ask = min(self.asks, default=0)
        return Top(bid, self.bids.get(bid, 0), ask, self.asks.get(ask, 0))

    def best(self, levels: int) -> tuple[Levels, Levels]:
        """The best ``levels`` of each side, best first."""
        return nlargest(levels, self.bids.items()), nsmallest(levels, self.asks.items())
