"""Which address a client is counted by: its own, or what proxies say of it that are trusted. Sans-I/O.

``X-Forwarded-For`` is a list to which each proxy appends the address that called it. The last entry is the word of the
proxy that calls us; the one before it is the word of the proxy in the last entry, and so on. So the list is read from
its right end, past entries that are trusted proxies themselves; what is to the left of the first that is none may be
written by anybody.

``Forwarded`` (RFC 7239) is the same list in other words. A proxy writes one of the two as a rule, and passes on the
other as its client wrote it. So where both are there they must name the same client; those of which they do not are
counted as one, for each proxy. By that a client may join the others that contradict themselves, and can be nobody else.

The peer of a Unix socket has no address. Who may open the socket's file was let in by whoever set the file's mode, and
is believed as a trusted proxy is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from komas.model.forwarded import parse_forwarded

Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# One customer of a provider, as a rule, and so one client: any of its 2**64 addresses is free for the taking.
PREFIX: Final = 64
SHOWN: Final = 64  # characters of what is no address
UNIX_PEER: Final = "unix"  # all peers of Unix sockets of whom no proxy says more
CONTRADICTED: Final = "contradicted by "  # and the proxy
_MAPPED: Final = 96  # bits in front of an IPv4 address that is written as IPv6 (RFC 4291, 2.5.5.2)
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]+):\d+")


class Proxies:
    """The proxies that are trusted."""

    def __init__(self, networks: Iterable[str]) -> None:
        """``networks`` are as ``parse_network()`` returns them."""
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __contains__(self, address: str) -> bool:
        ip = _read(address) if self._networks else None
        return ip is not None and any(ip in network for network in self._networks)

    def trusts(self, peer: str) -> bool:
        """Whether a peer is believed; it is empty for that of a Unix socket."""
        return not peer or peer in self

    def client(self, peer: str, x_forwarded_for: Iterable[str], forwarded: Iterable[str] = ()) -> str:
        """The address to count by; of both headers, the lines in their order."""
        if not self.trusts(peer):
            return counted(peer)
        try:
            lists = _entries(x_forwarded_for), _nodes(forwarded)
        except ValueError:
            return CONTRADICTED + (counted(peer) or UNIX_PEER)
        named = {self._first_other(peer, entries) for entries in lists if entries}
        if len(named) > 1:
            return CONTRADICTED + (counted(peer) or UNIX_PEER)
        return (named.pop() if named else counted(peer)) or UNIX_PEER

    def _first_other(self, peer: str, entries: list[str]) -> str:
        """The last entry that is no trusted proxy; the first proxy, where all of them are."""
        client = peer
        while entries and self.trusts(client):
            client = entries.pop()
        return counted(client)


def _entries(lines: Iterable[str]) -> list[str]:
    """Of ``X-Forwarded-For``; an empty entry says nothing."""
    return [entry for part in ",".join(lines).split(",") if (entry := part.strip())]


def _nodes(lines: Iterable[str]) -> list[str]:
    """Who was forwarded for, as ``Forwarded`` has it, up to the last proxy that does not say it; raises ``ValueError``.

    None where that is the last one: ``proto=https`` alone, behind what a client may have written.
    """
    nodes: list[str] = []
    for element in reversed(parse_forwarded(lines)):
        if not (node := element.get("for", "").strip()):
            break
        nodes.insert(0, node)
    return nodes


def counted(address: str) -> str:
    """How an address is counted: without its port, IPv4 as such, IPv6 by its network; other texts as they are."""
    ip = _read(address)
    if ip is None:
        return address[:SHOWN]
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((int(ip), PREFIX), strict=False))


def parse_network(text: str) -> str:
    """Read an address or a network (``10.0.0.0/8``) of the setting; raises ``ValueError`` for anything else.

    A network of all addresses is none: with it, clients would say themselves who they are.
    """
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = ipaddress.IPv4Network((int(mapped), network.prefixlen - _MAPPED))
    if network.prefixlen == 0:
        raise ValueError(text)
    return str(network.network_address if network.num_addresses == 1 else network)


def _read(text: str) -> Ip | None:
    """An address as proxies write it, with a port or without, as plain as it can be; ``None`` for anything else."""
    if (match := _WITH_PORT.fullmatch(text)) is not None:
        text = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
