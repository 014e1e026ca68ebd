"""How many connections there are, in all and from each address, and which of them are idle. Sans-I/O.

A connection that finds no place takes that of an idle one: of its own address where that has too many, else of the one
that has been idle longest. So keep-alive lasts as long as there is room, and ends first for those who need it least. A
connection that waits for its TLS handshake, or for its first request, is idle, too.

Each address may have so many. Proxies that are trusted may have more, for their clients share one address; peers of a
Unix socket have none. A loopback address is counted as any other: a proxy on this machine that is not trusted is one
client here as everywhere else (``max_sse_per_address``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import msgspec

from komas.model.addresses import Proxies, counted


class Connection(Protocol):
    """One client's connection."""

    def give_way(self) -> None:
        """Close at once."""


C = TypeVar("C", bound=Connection)


class PlaceStatistics(msgspec.Struct, frozen=True):
    """Connections now, and since the start those that were refused, and those that were closed to make room."""

    present: int
    refused: int
    gave_way: int


class _Address(Generic[C]):
    """The connections of one address; ``idle`` are those that wait for a request, the longest first."""

    __slots__ = ("count", "idle", "most", "name")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.count = 0
        self.idle: dict[C, None] | None = None  # most of what stays for long is not idle


class Places(Generic[C]):
    """The places for connections; ``most`` may be lowered before the first one comes."""

    def __init__(self, most: int, most_per_address: int, trusted: Iterable[str]) -> None:
        """``trusted`` are networks of proxies, as ``parse_network()`` returns them."""
        self.most = most
        self._most_per_address = most_per_address
        self._proxies = Proxies(trusted)
        self._addresses: dict[str, _Address[C]] = {}
        self._present: dict[C, _Address[C]] = {}
        self._idle: dict[C, None] = {}  # those of all addresses, the longest first
        self._refused = 0
        self._gave_way = 0

    def __iter__(self) -> Iterator[C]:
        return iter(self._present)

    @property
    def left(self) -> int:
        """How many more may enter before one has to make room."""
        return max(0, self.most - len(self._present))

    def enter(self, connection: C, peer: str) -> str | None:
        """Count a connection, which is idle, until it leaves; ``peer`` is empty where it has no address.

        Returns why it has no place, where it has none.
        """
        address = self._address_of(peer)
        if address.count >= address.most and not self._make_room(address.idle):
            return self._refuse(f"{address.count} connections of {address.name} are open")
        if len(self._present) >= self.most and not self._make_room(self._idle):
            return self._refuse(f"{len(self._present)} connections are open")
        address.count += 1
        self._addresses[address.name] = address
        self._present[connection] = address
        self.note_idle(connection)
        return None

    def leave(self, connection: C) -> None:
        """Count a connection no more; does nothing for one that is not counted."""
        self.note_busy(connection)
        address = self._present.pop(connection, None)
        if address is None:
            return
        address.count -= 1
        if not address.count:
            del self._addresses[address.name]

    def hand_over(self, connection: C, successor: C) -> None:
        """Count another one in place of a connection, which is not idle; does nothing for one that is not counted."""
        if (address := self._present.pop(connection, None)) is not None:
            self._present[successor] = address

    def note_idle(self, connection: C) -> None:
        """It waits for a request."""
        if (address := self._present.get(connection)) is not None:
            self._idle[connection] = None
            address.idle = address.idle or {}
            address.idle[connection] = None

    def note_busy(self, connection: C) -> None:
        """It has one."""
        if connection not in self._idle:
            return
        del self._idle[connection]
        address = self._present[connection]
        if address.idle is not None:
            del address.idle[connection]
            address.idle = address.idle or None

    def make_room(self, count: int) -> int:
        """Close so many idle connections, the longest idle first; returns how many there were."""
        closed = 0
        while closed < count and self._make_room(self._idle):
            closed += 1
        return closed

    def statistics(self) -> PlaceStatistics:
        """Counts, for metrics."""
        return PlaceStatistics(len(self._present), self._refused, self._gave_way)

    def _address_of(self, peer: str) -> _Address[C]:
        is_limited = peer != "" and peer not in self._proxies
        name = counted(peer) if is_limited else peer
        return self._addresses.get(name) or _Address[C](name, self._most_per_address if is_limited else sys.maxsize)

    def _make_room(self, idle: dict[C, None] | None) -> bool:
        if not idle:
            return False
        connection = next(iter(idle))
        self.leave(connection)
        self._gave_way += 1
        connection.give_way()
        return True

    def _refuse(self, reason: str) -> str:
        self._refused += 1
        return reason
