"""Recent events of one stream, for subscribers that resume from a position. Sans-I/O.

A position is ``(epoch, offset)``: the epoch names one unbroken sequence of the stream in this process, the offset is
the exchange's own number of an event (trade id; a closed candle's open time). So a resume can say exactly what is
missing. "Too old" is an answer; silence is not.

Nobody gets a copy of a history: who resumes holds a ``Cursor``, and takes as much at a time as it can use. What the
history lets go meanwhile is told there, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final, cast

import msgspec

from komas.hub.overflow import Item
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import KINDS
from komas.model.market import Gap
from komas.model.streams import Stream, next_number, previous_number

# Over two minutes of the busiest captured pair (9,757 trades in 346 s); a browser retries after three seconds.
HISTORY_LENGTH = 4096
NOT_OPEN: Final = "the stream was not open all the time since"
TOO_SLOW: Final = "read more slowly than komas keeps events"  # why a gap is in the middle of a replay
_TRIMMED: Final = 64  # places at least, and one in so many, that are empty before the others are moved up
_PART: Final = 8


class History:
    """The recent events of one epoch of one stream, and the gaps between them, by indices that never change."""

    __slots__ = (
        "_base",
        "_begun_at",
        "_empty",
        "_epoch",
        "_gaps",
        "_items",
        "_last",
        "_length",
        "_lost",
        "_lost_publication",
        "event_bytes",
        "stream",
    )

    def __init__(self, stream: Stream, epoch: str, length: int = HISTORY_LENGTH, begun_at: int = 0) -> None:
        """``begun_at`` is the publication of the newest event of any stream that came before."""
        self.stream = stream
        self._begun_at = begun_at
        self.event_bytes = KINDS[stream.kind].kept_bytes
        self._epoch = epoch
        self._length = length
        self._items: list[Item | None] = []  # empty places first
        self._empty = 0
        self._base = 0  # index of the first place
        self._gaps: deque[int] = deque()  # indices of those that are gaps
        self._lost: int | None = None  # number of the newest event that was let go
        self._lost_publication = begun_at  # of the newest event that was let go, or came before
        self._last: int | None = None  # number of the newest event that there was

    def __len__(self) -> int:
        return len(self._items) - self._empty

    @property
    def first(self) -> int:
        """Index of the oldest item that is here."""
        return self._base + self._empty

    @property
    def end(self) -> int:
        """Index of the next item to come."""
        return self._base + len(self._items)

    @property
    def newest(self) -> int | None:
        """Number of the newest event that is or was here, or is known to be missing."""
        last = self._items[-1] if len(self) else None
        return self._lost if last is None else _number(last)

    def has(self, number: int) -> bool:
        """Whether an event is here."""
        index = bisect_right(self._items, number, self._empty, key=_number) - 1
        item = self._items[index] if index >= self._empty else None
        return isinstance(item, Envelope) and item.sequence == number

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever remembered here."""
        return not self._items and not self._base and self._last is None

    def publication_before(self, index: int) -> int:
        """After which publication nothing is missing of the items from an index on."""
        return self._lost_publication if index <= self.first else _publication(self._items[index - 1 - self._base])

    def name_epoch(self, epoch: str, begun_at: int) -> None:
        """Give the epoch the name that all processes know it by; nothing was remembered yet."""
        self._epoch = epoch
        self._begun_at = self._lost_publication = begun_at

    def append(self, *events: Envelope) -> int:
        """Remember events; returns how many items more there are."""
        items, more = self._items, len(events)
        items += events
        self._last = events[-1].sequence
        count = len(items) - self._empty - self._length
        if count > 0:
            self._forget(count)
            return more - count
        return more

    def append_gap(self, notice: NoticeEnvelope) -> int:
        """Remember that events are missing here; returns how many items more there are."""
        self._gaps.append(self.end)
        self._items.append(notice)
        return 1 - self.let_go(len(self) - self._length)

    def let_go(self, most: int) -> int:
        """Forget the oldest items, so many at most; returns how many."""
        count = max(min(most, len(self)), 0)
        if count:
            self._forget(count)
        return count

    def recover(self, after: StreamPosition) -> tuple[Gap | None, Cursor]:
        """What came after a position: a way through all of it, or the gap before what is left of it."""
        index = self._base + bisect_right(self._items, after.offset, self._empty, key=_number)
        gap = None
        if not self._is_ours(after) or after.offset < self._floor():
            gap = self._gap(after.offset, index)
        offset = after.offset if gap is None or gap.last is None or gap.filled else gap.last
        return gap, Cursor(self, index, offset)

    def recover_publication(self, after: int) -> tuple[Gap | None, Cursor]:
        """The same from a place among the events of all streams; -1 is a place before everything of this process.

        Nothing tells which of this stream's events came last before it: a gap has no beginning.
        """
        index = self._base + bisect_right(self._items, after, self._empty, key=_publication)
        before = self._items[index - self._base - 1] if index > self.first else None
        oldest = self._oldest()
        if before is not None:
            offset = _number(before)
        elif self._lost is not None:
            offset = self._lost
        else:
            offset = -1 if oldest is None else previous_number(self.stream, oldest)
        gap = None
        if after < self._lost_publication:
            last = self._lost if self._lost is not None else None if oldest is None else offset
            gap = Gap(stream=self.stream.name, first=None, last=last)
            if after < self._begun_at:
                gap = msgspec.structs.replace(gap, reason=NOT_OPEN)
        return gap, Cursor(self, index, offset)

    def now(self) -> Cursor:
        """A place after everything that is here."""
        return Cursor(self, self.end, -1 if self.newest is None else self.newest)

    def between(self, first: int, end: int) -> list[Item]:
        """Items by their indices, as far as there are any; ``first`` is still here."""
        return cast("list[Item]", self._items[first - self._base : end - self._base])

    def lost_after(self, offset: int) -> Gap | None:
        """What a reader that has an event, but none after it, has missed of what was let go."""
        if self._lost is None or self._lost <= offset:
            return None
        first = next_number(self.stream, offset)
        return Gap(stream=self.stream.name, first=first, last=self._lost, reason=TOO_SLOW)

    def _forget(self, count: int) -> None:
        """Forget the oldest items; for each event of a full history, so every step counts here."""
        items, start = self._items, self._empty
        empty = self._empty = start + count
        newest = items[empty - 1]
        if isinstance(newest, Envelope):
            self._lost = newest.sequence
        elif (number := _number(newest)) >= 0:
            self._lost = number  # what was missing is as gone as what was there
        self._lost_publication = _publication(newest)
        if count == 1:
            items[start] = None
        else:
            items[start:empty] = [None] * count
        if self._gaps:
            self._forget_gaps()
        if (empty >= _TRIMMED and empty * _PART >= len(items)) or empty == len(items):
            del items[:empty]
            self._base += empty
            self._empty = 0

    def _forget_gaps(self) -> None:
        while self._gaps and self._gaps[0] < self.first:
            self._gaps.popleft()

    def _is_ours(self, position: StreamPosition) -> bool:
        return position.epoch == self._epoch and self._last is not None and position.offset <= self._last

    def _floor(self) -> int:
        """The oldest position from which everything after it is here."""
        if self._lost is not None:
            return self._lost
        oldest = self._oldest()
        return 0 if oldest is None else previous_number(self.stream, oldest)

    def _oldest(self) -> int | None:
        """Number of the oldest event that is here, or is known to be missing here."""
        for item in self._items[self._empty : self._empty + 2]:  # only a new count's beginning has no number
            if isinstance(item, Envelope):
                return item.sequence
            if item is not None and isinstance(item.notice, Gap) and item.notice.last is not None:
                return item.notice.first
        return None

    def _gap(self, offset: int, index: int) -> Gap | None:
        """What is missing after an offset, the next item being at ``index``; ``None`` if the numbers prove: nothing."""
        first, name = next_number(self.stream, offset), self.stream.name
        if self._last is None or offset > self._last:
            return Gap(stream=name, first=first, last=None)
        oldest = self._oldest()
        if oldest is None or oldest > first:
            lost = self._lost if oldest is None else previous_number(self.stream, oldest)
            return None if lost is None or lost < first else Gap(stream=name, first=first, last=lost)
        # Another epoch, but the numbers prove that nothing is missing up to the next known gap.
        last = self._last
        known = next((gap for gap in self._gaps if gap >= index), None)
        if known is not None:
            last = previous_number(self.stream, _first_of(self.between(known, known + 1)[0], last))
        return None if last < first else Gap(stream=name, first=first, last=last, filled=True)


class Cursor:
    """A subscriber's place in a history; ``offset`` is the number of the newest event that it has, or was told of."""

    __slots__ = ("_history", "_index", "offset")

    def __init__(self, history: History, index: int, offset: int) -> None:
        self._history = history
        self._index = index
        self.offset = offset

    def __len__(self) -> int:
        """How many items are left."""
        return self._history.end - max(self._index, self._history.first)

    @property
    def publication(self) -> int:
        """Of the next item; there is one."""
        index = max(self._index, self._history.first)
        return self._history.between(index, index + 1)[0].publication

    def take(self, most: int) -> list[Item]:
        """The next items, so many at most, behind a gap where the history did not keep them until now."""
        history, items = self._history, list[Item]()
        if self._index < history.first:
            self._index = history.first
            if (gap := history.lost_after(self.offset)) is not None:
                items.append(NoticeEnvelope(gap, history.stream))
        items += history.between(self._index, self._index + most)
        self._index = min(self._index + most, history.end)
        if items:
            self.offset = max(self.offset, _number(items[-1]))
        return items

    def give_up(self) -> Gap | None:
        """What is left, as a gap: the history comes to its end; ``None`` for nothing."""
        history, newest = self._history, self._history.newest
        self._index = history.end
        if newest is None or newest <= self.offset:
            return None
        first, self.offset = next_number(history.stream, self.offset), newest
        return Gap(stream=history.stream.name, first=first, last=newest, reason=TOO_SLOW)


def _number(item: Item | None) -> int:
    """Up to where the numbers of a stream are accounted for by an item; rises from item to item."""
    if isinstance(item, Envelope):
        assert item.sequence is not None  # only such events are kept
        return item.sequence
    if item is not None and isinstance(item.notice, Gap) and item.notice.last is not None:
        return item.notice.last
    return -1  # a new count begins, which is the first item of its history


def _publication(item: Item | None) -> int:
    """Of an item; rises from item to item."""
    return -1 if item is None else item.publication


def _first_of(item: Item, default: int) -> int:
    if isinstance(item, NoticeEnvelope) and isinstance(item.notice, Gap) and item.notice.first is not None:
        return item.notice.first
    return default
