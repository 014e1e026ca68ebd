"""One limit in bytes for all histories together: those that are read least give first. Sans-I/O.

A stream that nobody reads now gives before any that somebody reads; of the former, the one that was left longest ago.
Those that are read give in turn, and who holds less than its share is passed over: one busy stream, or one client with
hundreds of them, does not take the history of a quiet one.

What an event takes is counted by its kind, with its bytes for SSE clients, whether it has been encoded or not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from komas.hub.history import History

HISTORY_BYTES: Final = 2**29
AT_ONCE: Final = 64  # events that one history gives: some 20 microseconds
PASSED_OVER: Final = 16  # histories, for one that gives


class HistoryLimit:
    """The events, and their bytes, that histories hold; they are forgotten from here as soon as there are too many."""

    def __init__(self, most_bytes: int = HISTORY_BYTES) -> None:
        self._most_bytes = most_bytes
        # Those that hold something. The first is the next to give.
        self._read: OrderedDict[History, None] = OrderedDict()
        self._unread: OrderedDict[History, None] = OrderedDict()
        self._order_of: dict[History, OrderedDict[History, None]] = {}
        self.held_bytes = self.held_events = 0
        self.evicted = 0  # events, since the start

    def opened(self, history: History, *, is_read: bool) -> None:
        """Count a new history."""
        self._order_of[history] = self._read if is_read else self._unread

    def closed(self, history: History) -> None:
        """Count a history no more."""
        self._order_of.pop(history).pop(history, None)
        self._count(history, -len(history))

    def read(self, history: History) -> None:
        """Somebody reads a history's stream now."""
        self._move(history, self._read)

    def left(self, history: History) -> None:
        """Nobody reads a history's stream any more."""
        self._move(history, self._unread)

    def _move(self, history: History, order: OrderedDict[History, None]) -> None:
        self._order_of[history].pop(history, None)
        self._order_of[history] = order
        if len(history):
            order[history] = None

    def grew(self, history: History, items: int) -> None:
        """Count what was added to a history; what is too much is let go, of this one or of others."""
        self._count(history, items)
        order = self._order_of[history]
        if history not in order:
            order[history] = None
            if history.first:
                order.move_to_end(history, last=False)  # it gave all it had, and is the next to give
        while self.held_bytes > self._most_bytes:
            self._evict()

    def _evict(self) -> None:
        order = self._unread or self._read
        history = next(iter(order))
        if order is self._read:
            history = self._with_its_share()
        count = history.let_go(AT_ONCE)
        if not len(history):
            del order[history]
        self._count(history, -count)
        self.evicted += count

    def _count(self, history: History, more: int) -> None:
        self.held_events += more
        self.held_bytes += more * history.event_bytes

    def _with_its_share(self) -> History:
        share = self.held_bytes / len(self._read)
        for _ in range(PASSED_OVER):
            history = next(iter(self._read))
            if len(history) * history.event_bytes >= share:
                break
            self._read.move_to_end(history)
        return next(iter(self._read))
