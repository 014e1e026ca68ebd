"""Who may ask the exchange next, where its budget is short: those who want something take turns.

For requests that somebody waits for and that are not urgent to the market's own truth. Missing trades and order books
do not stand in this queue: they look at the same budget.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import trio

from komas.errors import Cause, VenueError
from komas.venues.core.fair_queue import FairQueue

AT_ONCE: Final = 4  # requests under way
WAITING: Final = 64  # requests that wait for their turn; one more is refused
LOOK_EVERY_S: Final = 0.25  # while there is no budget, it is looked for so often


class Budget(Protocol):
    """How much may still be asked."""

    @property
    def has_room(self) -> bool:
        """Whether there is room for what is not urgent."""


class RequestTurns:
    """A queue of readers before a budget."""

    def __init__(self, budget: Budget, *, at_once: int = AT_ONCE, most_waiting: int = WAITING) -> None:
        self._budget = budget
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._waiting: FairQueue[object] = FairQueue()
        self._moved = trio.lowlevel.ParkingLot()
        self._under_way = 0

    @asynccontextmanager
    async def turn(self, reader: str) -> AsyncIterator[None]:
        """Wait for the turn of a reader; ask while the block lasts. Raises ``VenueError`` where too many wait."""
        if len(self._waiting) >= self._most_waiting:
            raise VenueError("too many requests wait for the exchange's budget", cause=Cause.SILENT)
        ticket = object()
        self._waiting.put(ticket, (reader,))
        try:
            while not self._is_next(ticket):
                with trio.move_on_after(LOOK_EVERY_S):
                    await self._moved.park()
        except BaseException:
            self._waiting.discard(ticket)
            self._moved.unpark_all()
            raise
        self._waiting.serve(ticket)
        self._under_way += 1
        self._moved.unpark_all()
        try:
            yield
        finally:
            self._under_way -= 1
            self._moved.unpark_all()

    def _is_next(self, ticket: object) -> bool:
        first = self._waiting.first()
        return first is not None and first[0] is ticket and self._under_way < self._at_once and self._budget.has_room
