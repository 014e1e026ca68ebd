"""Whether a loopback connection is a program of this machine that speaks for itself, or one that relays for others.

A loopback peer proves nothing: a reverse proxy, an SSH tunnel or a container's port forward is one, too, and nginx
(``Host: 127.0.0.1:8000``, no ``X-Forwarded-For``) or HAProxy as they come leave no trace in the request. The operating
system knows better: a program that relays accepts connections. ``curl`` does not. A connection from this server itself
does not count: a program may be a double of the exchange, or take our webhooks, and still call us.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import msgspec
import trio

from komas.observability.logs import LogLimit

log = logging.getLogger(__name__)

Endpoint: TypeAlias = tuple[str, int]  # address, port
SpeaksForItself: TypeAlias = Callable[[Endpoint, Endpoint], Awaitable[bool]]  # the peer's end, our end

# Times as long as a look took, until the next: strangers can cause looks, which so take a fifth of a core at most.
REST: Final = 4.0
LOOKS: Final = 5  # at a program that closes sockets while it is looked at, before it is refused
ANY_PORT: Final = range(65536)


class TcpSocket(msgspec.Struct, frozen=True, gc=False):
    """A TCP socket that listens or is connected, and the processes that hold it, as far as they may be looked at."""

    local: Endpoint
    remote: Endpoint
    pids: frozenset[int]
    is_listening: bool = False


class Sockets:
    """The TCP sockets of this machine at one moment.

    ``unlisted`` are processes that hold a socket which the system does not list, ``unsure`` those that closed one in
    that moment, ``outgoing_ports`` the ports that the system gives to connections that programs open.
    """

    def __init__(
        self,
        sockets: Iterable[TcpSocket],
        *,
        unlisted: frozenset[int] = frozenset(),
        unsure: frozenset[int] = frozenset(),
        outgoing_ports: range = ANY_PORT,
    ) -> None:
        self._unlisted = unlisted
        self._unsure = unsure
        self._outgoing_ports = outgoing_ports
        self._listening_ports = set[int]()
        self._serving = set[int]()  # processes that listen beyond loopback
        self._holders: dict[tuple[Endpoint, Endpoint], frozenset[int]] = {}  # by local and remote end
        self._ends = defaultdict[int, list[tuple[Endpoint, Endpoint]]](list)
        for one in sockets:
            local = plain(one.local)
            if one.is_listening:
                self._listening_ports.add(local[1])
                if not ipaddress.ip_address(local[0]).is_loopback:
                    self._serving |= one.pids
                continue
            ends = local, plain(one.remote)
            self._holders[ends] = one.pids
            for pid in one.pids:
                self._ends[pid].append(ends)

    def speaks_for_itself(self, peer: Endpoint, ours: Endpoint, own_pid: int) -> bool:
        """Whether the program at the peer's end is there, can be looked at, and accepts no connections.

        It does where one of the processes that hold that end listens beyond loopback, holds a connection that came in,
        or a socket which is not listed: a client's that has left.
        """
        peer, ours = plain(peer), plain(ours)
        pids = self._holders_of(peer, ours)
        return (ours, peer) in self._holders and bool(pids) and not any(self._accepts(pid, own_pid) for pid in pids)

    def is_sure(self, peer: Endpoint, ours: Endpoint) -> bool:
        """Whether the program closed no socket while it was looked at, which may have been a client's."""
        return not self._holders_of(plain(peer), plain(ours)) & self._unsure

    def _holders_of(self, peer: Endpoint, ours: Endpoint) -> frozenset[int]:
        return self._holders.get((peer, ours), frozenset())

    def _accepts(self, pid: int, own_pid: int) -> bool:
        return (
            pid in self._unlisted
            or pid in self._serving
            or any(
                self._came_in(local) and own_pid not in self._holders.get((remote, local), ())
                for local, remote in self._ends[pid]
            )
        )

    def _came_in(self, local: Endpoint) -> bool:
        """Whether a connection with this local end was accepted, perhaps by a listener that is closed by now."""
        return local[1] in self._listening_ports or local[1] not in self._outgoing_ports


class LocalPrograms:
    """Looks at the sockets of this machine: once for all who ask meanwhile, in a thread, and not too often."""

    def __init__(self, look: Callable[[], Sockets] | None = None, *, may_be_blind: bool | None = None) -> None:
        """``may_be_blind``: whether a look that fails proves nothing, instead of keeping everybody out (macOS)."""
        self._look = look or look_at_sockets
        self._may_be_blind = sys.platform == "darwin" if may_be_blind is None else may_be_blind
        self._log_limit = LogLimit()
        self._lock = trio.Lock()
        self._seen: Sockets | None = None
        self._began_at = -math.inf
        self._next_at = -math.inf

    async def speaks_for_itself(self, peer: Endpoint, ours: Endpoint) -> bool:
        """Whether the program at the peer's end of a connection speaks for itself; see ``Sockets``."""
        for _ in range(LOOKS):
            seen = await self._see()
            if seen is None:
                return self._may_be_blind
            if seen.is_sure(peer, ours):
                return seen.speaks_for_itself(peer, ours, os.getpid())
        return False

    async def _see(self) -> Sockets | None:
        """What was seen in a look that began now, or later."""
        asked_at = trio.current_time()
        async with self._lock:
            if self._began_at < asked_at:
                await trio.sleep_until(self._next_at)
                self._began_at = trio.current_time()
                self._seen = await self._try_to_look()
                ended_at = trio.current_time()
                self._next_at = ended_at + REST * (ended_at - self._began_at)
            return self._seen

    async def _try_to_look(self) -> Sockets | None:
        try:
            return await trio.to_thread.run_sync(self._look)
        except (OSError, ValueError) as error:
            if self._log_limit.due(trio.current_time()) is not None:
                log.warning("the programs that call cannot be seen on this system: %r", error)
            return None


def look_at_sockets() -> Sockets:
    """What the system shows of its sockets; raises ``OSError`` where it refuses to."""
    # Only a call without a token needs either.
    if sys.platform == "linux":
        from komas.web.linux_sockets import look_at_linux  # noqa: PLC0415

        return look_at_linux()
    import psutil  # noqa: PLC0415

    try:
        rows = psutil.net_connections("tcp")
    except psutil.Error as error:
        raise OSError(str(error)) from error
    return Sockets(
        TcpSocket(
            tuple(row.laddr),
            tuple(row.raddr) or row.laddr,
            frozenset() if row.pid is None else frozenset({row.pid}),
            is_listening=row.status == psutil.CONN_LISTEN,
        )
        for row in rows
        if row.laddr
    )


def plain(end: Endpoint) -> Endpoint:
    """An end as IPv4 where it is: a socket for both kinds of addresses writes ``::ffff:127.0.0.1``."""
    address, port = end[0], end[1]
    if ":" in address:
        ip = ipaddress.IPv6Address(address)
        address = str(ip.ipv4_mapped or ip)
    return address, port
