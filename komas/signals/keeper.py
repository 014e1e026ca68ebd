"""One task that looks after all sessions: who is to be pinged, whose token ends, who has been silent for too long.

A task for each, which sleeps for most of a minute, was a tenth of what a socket costs.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import Final, Protocol

import trio

LOOKS_AT_ONCE: Final = 32  # then others may run


class Kept(Protocol):
    """One session."""

    def look(self) -> float:
        """Do what is due, without waiting; returns when to look again, on trio's clock."""


class Keeper:
    """Looks at each session when it is due; sooner after ``look_soon()``."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Kept]] = []  # a heap; what is not in ``_at`` as it stands here is void
        self._at: dict[Kept, float] = {}
        self._numbers = count()
        self._news = trio.Event()

    def __len__(self) -> int:
        return len(self._at)

    def keep(self, session: Kept) -> None:
        """Look after a session, from now on until ``let_go()``."""
        self._at[session] = math.inf
        self.look_soon(session)

    def let_go(self, session: Kept) -> None:
        """Look after it no more."""
        del self._at[session]

    def look_soon(self, session: Kept) -> None:
        """Look at a session that is kept as soon as others let us."""
        if session in self._at:
            self._put(session, -math.inf)
            self._news.set()

    def look_at_all(self) -> None:
        """The same for all sessions."""
        for session in tuple(self._at):
            self.look_soon(session)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            self._news = trio.Event()
            looks = 0
            while self._due and self._due[0][0] <= trio.current_time():
                at, _, session = heappop(self._due)
                if self._at.get(session) != at:
                    continue
                self._put(session, session.look())
                looks += 1
                if looks % LOOKS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._news.wait()

    def _put(self, session: Kept, at: float) -> None:
        self._at[session] = at
        heappush(self._due, (at, next(self._numbers), session))
