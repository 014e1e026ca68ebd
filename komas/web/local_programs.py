"""Whether a loopback connection is a program of this machine that speaks for itself, or one that relays for others.

A loopback peer proves nothing: a reverse proxy, an SSH tunnel or a container's port forward is one, too, and nginx
(``Host: 127.0.0.1:8000``, no ``X-Forwarded-For``) or HAProxy as they come leave no trace in the request. The operating
system knows better: a program that relays holds, at that moment, a connection that came in through a listening port.
``curl`` does not. A connection from this server itself does not count: a program may be a double of the exchange, or
take our webhooks, and still call us.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias

import trio

log = logging.getLogger(__name__)

Endpoint: TypeAlias = tuple[str, int]  # address, port
SpeaksForItself: TypeAlias = Callable[[Endpoint, Endpoint], Awaitable[bool]]  # the peer's end, our end

_LISTENS: Final = "LISTEN"
_CARRIES_DATA: Final = frozenset({"ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"})
# Times as long as a look took, until the next: strangers can cause looks, which so take a fifth of a core at most.
REST: Final = 4.0


class Connection(Protocol):
    """A TCP socket as ``psutil.net_connections("tcp")`` lists it: without a pid where psutil cannot look."""

    @property
    def laddr(self) -> tuple[()] | Endpoint: ...  # noqa: D102
    @property
    def raddr(self) -> tuple[()] | Endpoint: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def pid(self) -> int | None: ...  # noqa: D102


class Sockets:
    """The TCP sockets of this machine at one moment, and the processes that hold them."""

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._holders: dict[tuple[Endpoint, Endpoint], int | None] = {}  # by local and remote end
        self._ends: dict[int | None, list[tuple[Endpoint, Endpoint]]] = defaultdict(list)
        self._listening = set[int]()
        for connection in connections:
            if not connection.laddr:
                continue
            if connection.status == _LISTENS:
                self._listening.add(connection.laddr[1])
            elif connection.raddr and connection.status in _CARRIES_DATA:
                ends = plain(connection.laddr), plain(connection.raddr)
                self._holders[ends] = connection.pid
                self._ends[connection.pid].append(ends)

    def speaks_for_itself(self, peer: Endpoint, ours: Endpoint, own_pid: int) -> bool:
        """Whether the program at the peer's end relays nothing now.

        False for a program that cannot be looked at, as another user's is. True where the system does not even show our
        own end: then nothing can be concluded from what it does not show.
        """
        peer, ours = plain(peer), plain(ours)
        if (ours, peer) not in self._holders:
            return True
        pid = self._holders.get((peer, ours))
        return pid is not None and not any(
            local[1] in self._listening and self._holders.get((remote, local)) != own_pid
            for local, remote in self._ends[pid]
        )


class LocalPrograms:
    """Looks at the sockets of this machine: once for all who ask meanwhile, in a thread, and not too often."""

    def __init__(self, look: Callable[[], Sockets] | None = None) -> None:
        self._look = look or look_at_sockets
        self._lock = trio.Lock()
        self._seen = Sockets(())
        self._began_at = -math.inf
        self._next_at = -math.inf

    async def speaks_for_itself(self, peer: Endpoint, ours: Endpoint) -> bool:
        """Whether the program at the peer's end of a connection speaks for itself; see ``Sockets``."""
        asked_at = trio.current_time()
        async with self._lock:
            if self._began_at < asked_at:
                await trio.sleep_until(self._next_at)
                self._began_at = trio.current_time()
                self._seen = await trio.to_thread.run_sync(self._look)
                ended_at = trio.current_time()
                self._next_at = ended_at + REST * (ended_at - self._began_at)
        return self._seen.speaks_for_itself(peer, ours, os.getpid())


def look_at_sockets() -> Sockets:
    """What the system shows of its sockets; nothing, with a warning, where it refuses to."""
    import psutil  # noqa: PLC0415 - only who is called without a token needs it

    try:
        return Sockets(psutil.net_connections("tcp"))
    except (psutil.Error, OSError) as error:
        log.warning("the programs that call cannot be seen on this system: %r", error)
        return Sockets(())


def plain(end: Endpoint) -> Endpoint:
    """An end as IPv4 where it is: a socket for both kinds of addresses writes ``::ffff:127.0.0.1``."""
    address, port = end[0], end[1]
    if ":" in address:
        ip = ipaddress.IPv6Address(address)
        address = str(ip.ipv4_mapped or ip)
    return address, port
