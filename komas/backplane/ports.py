"""What the backplane needs of the store behind it: a log with one writer at a time, nodes' facts, wishes to the leader.

The log is what every process reads and in which order; its writer holds a lease. An entry's id is ``(term, sequence)``:
terms rise with every leader, sequences by one within a term. ``append`` takes an entry only behind the one that its
writer believes to be the newest. That is the fence: a leader that was paused, and whose lease somebody else holds, is
refused; and a store that forgot its newest entries is noticed.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import msgspec

from komas.errors import KomasError

VERSION: Final = 1  # of the entries that are written
READABLE: Final = (1,)  # those that can be read: of rolling deploys, the version before, too


class BackplaneError(KomasError):
    """The store behind the backplane could not be reached, or did not answer in time; whether it did it, is unknown."""


class Fenced(BackplaneError):
    """The log is not where its writer left it: ``newest`` is its newest entry, ``None`` where it has none."""

    def __init__(self, message: str, *, newest: EntryId | None) -> None:
        super().__init__(message)
        self.newest = newest


class EntryId(NamedTuple):
    """The place of an entry; orders them."""

    term: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.term}-{self.sequence}"


class Entry(msgspec.Struct, frozen=True):
    """One entry of the log.

    The first of a term (sequence 0) has the leader's ``node`` and ``previous``: the newest entry that the store knew at
    that moment, ``None`` for none; any other has a ``header`` and ``data``, as ``wire`` reads them. One that
    ``is_whole`` needs none of those before it.
    """

    id: EntryId
    version: int
    header: bytes = b""
    data: bytes = b""
    is_whole: bool = False
    node: str = ""
    previous: EntryId | None = None


class Acquired(msgspec.Struct, frozen=True):
    """The lease is held: the first entry of ``term`` is in the log, behind ``previous`` (``None``: it was empty)."""

    term: int
    previous: EntryId | None


class Held(msgspec.Struct, frozen=True):
    """Somebody else holds the lease, for ``left_s`` seconds more unless it is renewed."""

    node: str
    left_s: float


class Log(Protocol):
    """The log. Every method raises ``BackplaneError`` where the store cannot be reached within bounds."""

    async def acquire(self, node: str, lease_s: float, *, seen: EntryId | None = None) -> Acquired | Held:
        """Take the lease if it is free, or is this node's: a new term begins, with an entry that says so.

        Terms are milliseconds of the store's own clock, or one more than the newest entry's where that is more: a store
        that forgot everything does not hand out small ones again. The term is beyond that of ``seen``, too, the newest
        entry that the node has read: where a store forgot it and its clock is behind, mirrors would read on after it.
        """

    async def renew(self, node: str, term: int, lease_s: float) -> bool:
        """Hold the lease for so long from now; ``False`` when it is not this node's of this term any more."""

    async def release(self, node: str, term: int) -> None:
        """Let the lease go, where it is held; somebody else may take it at once."""

    async def append(
        self,
        previous: EntryId,
        entry: EntryId,
        header: bytes,
        data: bytes,
        *,
        is_whole: bool = False,
        starts_anew: bool = False,
    ) -> None:
        """Append an entry behind ``previous``; with ``starts_anew`` everything before it is deleted.

        Raises ``Fenced`` where ``previous`` is not the newest: nothing was appended then. The log keeps what is newer
        than some minutes, within a bound in bytes; older entries are deleted.
        """

    async def newest(self) -> EntryId | None:
        """Id of the newest entry; ``None`` where nothing was ever appended, or the store forgot all of it."""

    async def read(self, after: EntryId | None, *, most: int, wait_s: float) -> list[Entry]:
        """Up to so many entries after one, oldest first (``None``: from the oldest on).

        Waits for the first one, ``wait_s`` at most, and returns nothing then. It is called in a loop: each node has one
        reader. An entry whose version cannot be read is returned with its version and nothing else.
        """


class Facts(Protocol):
    """Small things that nodes say of themselves, each for a while: who is there, and what it wants. As ``Log``."""

    async def keep(self, name: str, node: str, value: bytes, ttl_s: float) -> None:
        """Keep a node's value under a name for so long, in place of the one before."""

    async def drop(self, name: str, node: str) -> None:
        """Keep it no longer."""

    async def kept(self, name: str) -> dict[str, bytes]:
        """What all nodes keep under a name, by node."""


class Wishes(Protocol):
    """What nodes ask of the leader, in the order in which it came. As ``Log``.

    Wishes are kept for some minutes: a new leader goes on after the one that the last leader heard.
    """

    async def wish(self, value: bytes) -> None:
        """Add a wish."""

    async def wishes(self, after: str, *, most: int, wait_s: float) -> list[tuple[str, bytes]]:
        """Up to so many after a place, oldest first, each with its own (``""``: from the oldest on); waits as ``read``.

        A place that the store does not know (it forgot everything) must not hide what comes: then from the oldest on.
        """

    async def answer(self, question: str, value: bytes) -> None:
        """Answer a question, whose name only the one who asked knows."""

    async def answer_to(self, question: str, wait_s: float) -> bytes | None:
        """Wait for an answer; ``None`` when none has come in time. An answer that nobody takes is gone in a minute."""


class Backplane(Log, Facts, Wishes, Protocol):
    """All of it: one store."""
