"""Which address a client is counted by: its own, or what proxies say of it that are trusted. Sans-I/O.

``X-Forwarded-For`` is a list to which each proxy appends the address that called it. The last entry is the word of the
proxy that calls us; the one before it is the word of the proxy in the last entry, and so on. So the list is read from
its right end, past entries that are trusted proxies themselves; what is to the left of the first that is none may be
written by anybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# One customer of a provider, as a rule, and so one client: any of its 2**64 addresses is free for the taking.
PREFIX: Final = 64
SHOWN: Final = 64  # characters of what is no address
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

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address to count by; ``forwarded`` are the lines of ``X-Forwarded-For``, in their order."""
        client = peer
        entries = [entry.strip() for entry in ",".join(forwarded).split(",")]
        while entries and client in self:
            # An empty entry says nothing: the proxy behind it is all that is known.
            client = entries.pop() or client
        return counted(client)


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
