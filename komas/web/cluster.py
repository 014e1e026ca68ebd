"""What the web layer asks of the other processes, where there are any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from komas.model.codec import StreamPosition
from komas.model.streams import Stream


class NodeBody(msgspec.Struct, frozen=True):
    """One process, as ``GET /api/ws/status`` shows it; ``lag_seconds`` is how long ago it read of the log.

    ``standby`` is how it waits for its turn to lead, ``hot`` or ``cold``; ``null`` where it never will.
    """

    node: str
    role: str
    version: str
    leader: bool
    subscribers: int
    lag_seconds: float
    standby: str | None = None


class ClusterBody(msgspec.Struct, frozen=True):
    """All processes; ``node`` is the one that answers, ``leader`` the one that is connected to the exchange."""

    node: str
    leader: str | None
    nodes: tuple[NodeBody, ...]


class ClusterStatistics(msgspec.Struct, frozen=True):
    """Counts of one process since its start, and how it is now.

    ``age_s`` is how long ago it read an entry of the log. Entries that it missed (``holes``) or could not read, events
    that came again; ``unwritten_bytes`` wait for the store at the leader. One that ``is_prepared`` stands by, and could
    lead without asking for what it missed.
    """

    nodes: int
    is_leader: bool
    is_heard: bool
    age_s: float
    entries: int
    holes: int
    unreadable: int
    repeated: int
    terms: int
    unwritten_bytes: int
    is_prepared: bool = False


class Cluster(Protocol):
    """The processes that share one feed, as one of them knows them."""

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that is connected to the exchange."""

    def statistics(self) -> ClusterStatistics:
        """Counts, for metrics."""

    def why_not_ready(self) -> str | None:
        """Why no balancer should send readers here; ``None`` if there is no reason."""

    async def passed(self, place: StreamPosition | None, stream: Stream | None) -> bool:
        """Wait until nothing that a reader at a place has received is still to come here; ``False`` if it takes long.

        The place is one of a stream, or, without one, among the events of all of them.
        """

    async def inquire(self, topic: str, body: bytes) -> bytes | None:
        """Ask whichever process can answer; ``None`` where none does. Raises ``VenueError``."""

    async def inquire_all(self, topic: str, body: bytes) -> tuple[list[bytes], bool]:
        """Ask every process, also this one; and whether all of them have answered. Raises ``VenueError``."""

    def answer(self, topic: str, answer: Callable[[bytes], bytes | None]) -> None:
        """Answer what any process asks about a topic; ``None`` where it is for another one to answer."""

    def body(self) -> ClusterBody:
        """Who is there."""
