"""What waits for one subscriber, and what happens when that is too much. Sans-I/O.

Three policies, by what may be lost:

* **conflate**: a ticker, a book ticker, an open candle replaces the one before it, and goes to the end of the queue.
* **drop oldest**: trades and closed candles keep their order up to ``capacity``; then the oldest is dropped and
  counted. Notices dropped with it (a gap, a refusal) are kept aside: the gaps of a stream become one gap, because what
  was between them is gone, too.
* **disconnect**: nothing may be lost; a subscriber that exceeds ``capacity`` is disconnected, and resumes later.

Invariants: at most ``capacity`` kept items and one conflated item for each key wait at any time; items are drained in
the order of publication; an open candle never follows the closing of the same candle.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, Protocol, TypeVar

import msgspec

from komas.model.codec import Envelope, NoticeEnvelope
from komas.model.market import Gap, HealthNotice, StreamList

Item = Envelope | NoticeEnvelope

_STATUS = "status"  # one key for all feed notices: only the newest is true


class Overflow(Enum):
    """What a full queue does with one more item that must be kept."""

    DROP_OLDEST = "drop_oldest"
    DISCONNECT = "disconnect"


T_contra = TypeVar("T_contra", contravariant=True)
B = TypeVar("B")
T = TypeVar("T")


class QueueCounts:
    """What happened in all queues that share it: items dropped, and items that a newer one replaced."""

    __slots__ = ("conflated", "dropped")

    def __init__(self) -> None:
        self.dropped = 0
        self.conflated = 0


class EventQueue(Protocol[T_contra, B]):
    """Items that wait for a subscriber, or for a group of them."""

    def __len__(self) -> int:
        """How many items wait."""

    def put(self, *items: T_contra) -> bool:
        """Add items; ``False`` when one does not fit and may not be dropped."""

    def put_back(self, batch: B) -> bool:
        """Add what was drained elsewhere and not delivered; ``False`` as for ``put()``."""

    def peek(self) -> B:
        """Return everything that waits, and keep it."""

    def drain(self) -> B:
        """Return everything that waits; the queue is empty afterwards."""


class Batch(msgspec.Struct, frozen=True):
    """Everything that waited, in order; ``dropped`` counts items that were dropped before the first of it."""

    items: list[Item]
    dropped: int


class BoundedQueue(Generic[T]):
    """A queue whose items may neither be dropped nor replaced."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: list[T] = []

    def __len__(self) -> int:
        return len(self._items)

    def put(self, *items: T) -> bool:
        """Add items; ``False`` when they do not all fit: the subscriber must be disconnected."""
        room = self._capacity - len(self._items)
        self._items += items[:room]
        return len(items) <= room

    def put_back(self, batch: list[T]) -> bool:
        """Add undelivered items behind those that wait."""
        return self.put(*batch)

    def peek(self) -> list[T]:
        """Return a copy of everything that waits."""
        return self._items.copy()

    def drain(self) -> list[T]:
        """Return everything that waits; the queue is empty afterwards."""
        drained, self._items = self._items, []
        return drained


class ConflatingQueue:
    """A queue of market events and notices: newer states replace older ones, the rest keeps its order."""

    __slots__ = (
        "_capacity",
        "_counts",
        "_dropped",
        "_first_key",
        "_items",
        "_next_key",
        "_overflow",
        "_pending_notices",
    )

    def __init__(
        self, capacity: int, overflow: Overflow = Overflow.DROP_OLDEST, counts: QueueCounts | None = None
    ) -> None:
        self._capacity = capacity
        self._counts = counts or QueueCounts()
        self._overflow = overflow
        self._items: dict[object, Item] = {}  # insertion order is delivery order
        self._first_key = self._next_key = 0  # kept items have numbers for keys: these, and what is between
        self._dropped = 0
        # Notices among the dropped items, which must be delivered all the same; few subscribers ever have any.
        self._pending_notices: dict[object, NoticeEnvelope] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, *items: Item) -> bool:
        """Add items; ``False`` when one did not fit and may not be dropped: the subscriber must be disconnected."""
        waiting = self._items
        for item in items:
            if not isinstance(item, Envelope):
                key = _conflation_key(item)
            elif item.sequence is None:
                key = item.stream
            else:
                key = None
                if waiting and item.stream.interval is not None:
                    waiting.pop(item.stream, None)  # an open candle that waits is older than this closing
            if key is not None:
                if waiting.pop(key, None) is not None:
                    self._counts.conflated += 1
                waiting[key] = item
                continue
            if self._next_key - self._first_key >= self._capacity:
                if self._overflow is Overflow.DISCONNECT:
                    return False
                self._drop_oldest()
            waiting[self._next_key] = item
            self._next_key += 1
        return True

    def peek(self) -> Batch:
        """Return everything that waits, and keep it."""
        notices = () if self._pending_notices is None else self._pending_notices.values()
        return Batch([*notices, *self._items.values()], self._dropped)

    def drain(self) -> Batch:
        """Return everything that waits; the queue is empty afterwards."""
        batch = self.peek()
        self._items.clear()
        self._first_key = self._next_key
        self._dropped, self._pending_notices = 0, None
        return batch

    def put_back(self, batch: Batch) -> bool:
        """Add undelivered items behind those that wait."""
        self._dropped += batch.dropped
        return self.put(*batch.items)

    def _drop_oldest(self) -> None:
        oldest = self._items.pop(self._first_key)
        self._first_key += 1
        if isinstance(oldest, NoticeEnvelope):
            notices = self._pending_notices = {} if self._pending_notices is None else self._pending_notices
            key = type(oldest.notice), oldest.stream
            notices[key] = _merged(notices[key], oldest) if key in notices else oldest
        else:
            self._dropped += 1
            self._counts.dropped += 1


def _merged(before: NoticeEnvelope, after: NoticeEnvelope) -> NoticeEnvelope:
    """One notice for two; of two gaps, one from the beginning of the first to the end of the second."""
    if not isinstance(before.notice, Gap) or not isinstance(after.notice, Gap):
        return after
    return NoticeEnvelope(msgspec.structs.replace(after.notice, first=before.notice.first), after.stream)


def _conflation_key(item: NoticeEnvelope) -> object | None:
    """The key of a notice that replaces an older one; ``None`` for a notice that must be kept."""
    if isinstance(item.notice, HealthNotice):
        return HealthNotice, item.stream
    if isinstance(item.notice, StreamList):
        return StreamList
    return None if isinstance(item.notice, Gap) or item.stream is not None else _STATUS
