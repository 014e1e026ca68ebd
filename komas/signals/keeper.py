"""One task that looks after all sessions: who is to be pinged, whose token ends, who has been silent for too long.

A task for each, which sleeps for most of a minute, was a tenth of what a socket costs.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final, Protocol

import trio

LOOKS_AT_ONCE: Final = 32  # then others may run


class Kept(Protocol):
    """One session."""

    def look(self) -> float:
        """Do what is due, without waiting; returns when to look again, on trio's clock."""


class _Due:
    """When a session is to be looked at; without one it is void: it is looked at earlier, or has left."""

    __slots__ = ("at", "session")

    def __init__(self, at: float, session: Kept) -> None:
        self.at = at
        self.session: Kept | None = session

    def __lt__(self, other: _Due) -> bool:
        return self.at < other.at


class Keeper:
    """Looks at each session when it is due; sooner after ``look_soon()``."""

    def __init__(self) -> None:
        self._heap: list[_Due] = []
        self._due: dict[Kept, _Due] = {}
        self._news = trio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def keep(self, session: Kept) -> None:
        """Look after a session, from now on until ``let_go()``."""
        self._put(session, -math.inf)
        self._news.set()

    def let_go(self, session: Kept) -> None:
        """Look after it no more."""
        self._due.pop(session).session = None

    def look_soon(self, session: Kept) -> None:
        """Look at a session that is kept as soon as others let us."""
        if session in self._due:
            self._put(session, -math.inf)
            self._news.set()

    def look_at_all(self) -> None:
        """The same for all sessions."""
        for session in tuple(self._due):
            self.look_soon(session)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            self._news = trio.Event()
            looks = 0
            while self._heap and self._heap[0].at <= trio.current_time():
                if (session := heappop(self._heap).session) is None:
                    continue
                self._put(session, session.look())
                looks += 1
                if looks % LOOKS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            with trio.move_on_at(self._heap[0].at if self._heap else math.inf):
                await self._news.wait()

    def _put(self, session: Kept, at: float) -> None:
        if (before := self._due.get(session)) is not None:
            before.session = None
        due = self._due[session] = _Due(at, session)
        heappush(self._heap, due)
