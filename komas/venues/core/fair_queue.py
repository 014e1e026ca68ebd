"""Whose turn it is, where many wait for something that is scarce: owners take turns, however much each wants. Sans-I/O.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): an owner's items are numbered from the present number on,
the smallest number is served first, and becomes the present one. Who asks for one thing waits for one turn of each
other owner at most, and not behind all that another one asked for before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from heapq import heappop, heappush, nlargest
from itertools import count, islice
from operator import itemgetter
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

OWNERS_LOOKED_AT: Final = 64  # of one item: what so many want is served soon enough
REMEMBERED: Final = 1024  # owners: those that are ahead by most


class FairQueue(Generic[T]):
    """Items that wait, each on behalf of those of its owners whose turn comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T, str]] = []  # number, order of arrival, item, owner
        self._numbers: dict[T, float] = {}  # of those that wait
        self._next: dict[str, float] = {}  # by owner, where it is ahead of the present number
        self._present = 0.0
        self._order = count()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, item: T) -> bool:
        return item in self._numbers

    def put(self, item: T, owners: Iterable[str]) -> None:
        """Have an item wait; or, where it does, let it be served in another owner's turn, if that comes before."""
        starts = ((self._start_of(owner), owner) for owner in islice(owners, OWNERS_LOOKED_AT))
        number, owner = min(starts, default=(self._start_of(""), ""))
        if item in self._numbers and self._numbers[item] <= number:
            return
        self._numbers[item] = number
        self._next[owner] = number + 1
        heappush(self._heap, (number, next(self._order), item, owner))
        if len(self._next) > 2 * REMEMBERED:
            self._next = dict(nlargest(REMEMBERED, self._next.items(), key=itemgetter(1)))

    def first(self) -> tuple[T, str] | None:
        """The item that is to be served next, and in whose turn; it waits on."""
        while self._heap:
            number, _, item, owner = self._heap[0]
            if self._numbers.get(item) == number:
                return item, owner
            heappop(self._heap)  # it was served in another turn, or does not wait any more
        self._next.clear()
        return None

    def take(self) -> T:
        """Serve the next item; there is one."""
        first = self.first()
        assert first is not None
        self.serve(first[0])
        return first[0]

    def serve(self, item: T) -> None:
        """It is served now."""
        self._present = max(self._present, self._numbers[item])
        self.discard(item)

    def discard(self, item: T) -> None:
        """It need not be served any more."""
        self._numbers.pop(item, None)

    def _start_of(self, owner: str) -> float:
        return max(self._present, self._next.get(owner, 0.0))
