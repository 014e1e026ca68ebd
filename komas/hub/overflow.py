"""What happens to one listener's post while it is not looking (thinks: no trio, no clock).

Three policies, by what may be lost:

* **merge**: a ticker, a book ticker, an open candle replaces the one before it, at the newer one's place in the queue.
* **drop oldest**: trades and closed candles keep their order up to ``capacity``; then the oldest goes and is counted.
  What was told in its place (a gap, a refusal) is not lost with it: gaps of a stream become one, for what was between
  them is gone, too.
* **dismiss**: nothing may be lost; when ``capacity`` is passed, the listener is let go and comes back with a position.

Invariants: no more than ``capacity`` kept items and one merged item for each key wait at any time; what is taken comes
in the order of publication; an open candle never follows the closing of the same candle.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, Protocol, TypeVar

import msgspec

from komas.model.codec import Envelope, NoticeEnvelope
from komas.model.market import Gap, Kline, StreamHealth

Item = Envelope | NoticeEnvelope

_STATUS = "status"  # one place for all feed notices: only the newest is true


class Overflow(Enum):
    """What a full post does with one more item that must be kept."""

    DROP_OLDEST = "drop_oldest"
    DISMISS = "dismiss"


T_contra = TypeVar("T_contra", contravariant=True)
B = TypeVar("B")
T = TypeVar("T")


class Waiting(Protocol[T_contra, B]):
    """What waits for somebody."""

    dropped_in_all: int

    def __len__(self) -> int:
        """How many items."""

    def put(self, *items: T_contra) -> bool:
        """Add some; ``False`` where one cannot wait, and none may be lost."""

    def give_back(self, batch: B) -> bool:
        """Add what somebody else has not delivered, likewise."""

    def peek(self) -> B:
        """Look at all."""

    def take(self) -> B:
        """Take all."""


class Batch(msgspec.Struct, frozen=True):
    """Everything that waited, in order; ``dropped`` counts what had to go before the first of it."""

    items: list[Item]
    dropped: int


class Line(Generic[T]):
    """A listener's waiting items, of which none may be lost, and none replaces another."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: list[T] = []
        self.dropped_in_all = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, *items: T) -> bool:
        """Add items; ``False`` means that there is no room for all, and the listener must be dismissed."""
        room = self._capacity - len(self._items)
        self._items += items[:room]
        return len(items) <= room

    def give_back(self, batch: list[T]) -> bool:
        """Add what somebody else has not delivered, behind what waits."""
        return self.put(*batch)

    def peek(self) -> list[T]:
        """Everything that waits."""
        return self._items.copy()

    def take(self) -> list[T]:
        """Everything that waits; nothing does afterwards."""
        taken, self._items = self._items, []
        return taken


class Post:
    """One listener's waiting items."""

    __slots__ = ("_capacity", "_dropped", "_first_key", "_items", "_next_key", "_overflow", "_told", "dropped_in_all")

    def __init__(self, capacity: int, overflow: Overflow = Overflow.DROP_OLDEST) -> None:
        self._capacity = capacity
        self._overflow = overflow
        self._items: dict[object, Item] = {}  # insertion order is delivery order
        self._first_key = self._next_key = 0  # kept items have numbers for keys: these, and what is between
        self._dropped = 0
        # Of those that had to go, what must be told all the same; few listeners ever have any.
        self._told: dict[object, NoticeEnvelope] | None = None
        self.dropped_in_all = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, *items: Item) -> bool:
        """Add items; ``False`` means that there was no room for one of them, and the listener must be dismissed."""
        waiting = self._items
        for item in items:
            if not isinstance(item, Envelope):
                key = _merge_key(item)
            elif item.sequence is None:
                key = item.stream
            else:
                key = None
                if waiting and isinstance(item.event, Kline):
                    waiting.pop(item.stream, None)  # an open candle that waits is older than this closing
            if key is not None:
                waiting.pop(key, None)
                waiting[key] = item
                continue
            if self._next_key - self._first_key >= self._capacity:
                if self._overflow is Overflow.DISMISS:
                    return False
                self._drop_oldest()
            waiting[self._next_key] = item
            self._next_key += 1
        return True

    def peek(self) -> Batch:
        """Everything that waits."""
        told = () if self._told is None else self._told.values()
        return Batch([*told, *self._items.values()], self._dropped)

    def take(self) -> Batch:
        """Everything that waits; the post is empty afterwards."""
        batch = self.peek()
        self._items.clear()
        self._first_key = self._next_key
        self._dropped, self._told = 0, None
        return batch

    def give_back(self, batch: Batch) -> bool:
        """Add what somebody else has not delivered, behind what waits."""
        self._dropped += batch.dropped
        return self.put(*batch.items)

    def _drop_oldest(self) -> None:
        oldest = self._items.pop(self._first_key)
        self._first_key += 1
        if isinstance(oldest, NoticeEnvelope):
            told = self._told = {} if self._told is None else self._told
            key = type(oldest.notice), oldest.stream
            told[key] = _both(told[key], oldest) if key in told else oldest
        else:
            self._dropped += 1
            self.dropped_in_all += 1


def _both(before: NoticeEnvelope, after: NoticeEnvelope) -> NoticeEnvelope:
    """One notice for two; of two gaps, one from the beginning of the first to the end of the second."""
    if not isinstance(before.notice, Gap) or not isinstance(after.notice, Gap):
        return after
    return NoticeEnvelope(msgspec.structs.replace(after.notice, first=before.notice.first), after.stream)


def _merge_key(item: NoticeEnvelope) -> object | None:
    """What a notice replaces, ``None`` for one that must be kept."""
    if isinstance(item.notice, StreamHealth):
        return StreamHealth, item.stream
    return None if isinstance(item.notice, Gap) or item.stream is not None else _STATUS
