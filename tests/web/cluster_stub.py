"""A cluster as the web layer sees it, which says what a test wants."""

from __future__ import annotations

from collections.abc import Callable

import trio

from komas.errors import Cause, VenueError
from komas.model.codec import StreamPosition
from komas.model.streams import Stream
from komas.web.cluster import ClusterBody, ClusterStatistics, NodeBody


class StubCluster:
    """Two nodes, of which ours leads unless it is told otherwise."""

    def __init__(self, *, is_leader: bool = True, reason: str | None = None, has_passed: bool = True) -> None:
        self.is_leader = is_leader
        self._reason = reason
        self._has_passed = has_passed
        self.answers: dict[str, Callable[[bytes], bytes | None]] = {}
        self.answers_itself = True
        self.is_away = False
        self.inquiries: list[str] = []
        self.asked: list[tuple[StreamPosition | None, Stream | None]] = []

    def statistics(self) -> ClusterStatistics:
        """Counts."""
        return ClusterStatistics(2, self.is_leader, True, 0.5, 7, 1, 2, 3, 4, 5)

    def why_not_ready(self) -> str | None:
        """What the test wants."""
        return self._reason

    async def passed(self, place: StreamPosition | None, stream: Stream | None) -> bool:
        """What the test wants."""
        await trio.lowlevel.checkpoint()
        self.asked.append((place, stream))
        return self._has_passed

    async def inquire(self, topic: str, body: bytes) -> bytes | None:
        """Ask the other process, which is this one, too."""
        await trio.lowlevel.checkpoint()
        self.inquiries.append(topic)
        return self.answers[topic](body) if self.answers_itself else None

    async def inquire_all(self, topic: str, body: bytes) -> tuple[list[bytes], bool]:
        """Ask both processes, which are this one."""
        await trio.lowlevel.checkpoint()
        self.inquiries.append(topic)
        if self.is_away:
            raise VenueError("the backplane does not answer", cause=Cause.NETWORK)
        found = [answer for _ in range(2) if (answer := self.answers[topic](body)) is not None]
        return (found, True) if self.answers_itself else (found[:1], False)

    def answer(self, topic: str, answer: Callable[[bytes], bytes | None]) -> None:
        """Remember it."""
        self.answers[topic] = answer

    def body(self) -> ClusterBody:
        """Two nodes."""
        rows = (NodeBody("a", "auto", "1", self.is_leader, 3, 0.1), NodeBody("b", "edge", "1", False, 0, 0.2))
        return ClusterBody("a", "a" if self.is_leader else None, rows)
