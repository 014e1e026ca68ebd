"""Web origins: what a browser says of the page that calls, and the patterns that a setting lists. Sans-I/O.

A browser sends ``Origin`` as scheme, host and a port that is not the scheme's own (RFC 6454, 7; WHATWG HTML, "ASCII
serialisation of an origin"), in lower case, names in punycode, IPv6 in its shortest form; and ``null`` for a page
without an origin of its own (a file, a sandboxed frame).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

ANY: Final = "*"
OPAQUE: Final = "null"
ACCEPTED: Final = (
    "* or origins with commas: https://example.com, http://localhost:3000, https://*.example.com (one label or more),"
    " capacitor://localhost, chrome-extension://id, null; without a path"
)
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_WILD: Final = "*."


class Origin(msgspec.Struct, frozen=True):
    """One origin; ``port`` is ``None`` for a scheme that has no port of its own and was given none."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{'' if self.port == _PORTS.get(self.scheme) else f':{self.port}'}"


def parse_origin(text: str) -> Origin:
    """Read what a browser may send, or what compares equal to it; raises ``ValueError`` for anything else."""
    if not text.isprintable():
        raise ValueError(text)  # urlsplit() leaves out what it likes least
    parts = urlsplit(text.lower())
    has_more = bool(parts.path or parts.query or parts.fragment or text.endswith(("?", "#")))
    host = parts.hostname or ""
    if (
        has_more
        or parts.username is not None
        or not _SCHEME.fullmatch(parts.scheme)
        or "://" not in text
        or parts.netloc.endswith(":")
    ):
        raise ValueError(text)
    port = parts.port if parts.port is not None else _PORTS.get(parts.scheme)  # .port raises ValueError on nonsense
    if port == 0:
        raise ValueError(text)
    # A page in a WebView that was loaded from a file has an origin without a host.
    return Origin(parts.scheme, "" if parts.scheme == "file" and not parts.netloc else _host(host), port)


def host_and_port(text: str, scheme: str) -> tuple[str, int | None]:
    """A ``Host`` header's name and port, the scheme's own where it names none; ``ValueError`` for nonsense."""
    origin = parse_origin(f"{scheme}://{text}")
    return origin.host, origin.port


class OriginList:
    """The origins of a setting: exact ones, ``https://*.example.com``, ``null`` and ``*``."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """``patterns`` are as ``parse_pattern()`` returns them."""
        kept = frozenset(patterns)
        self.is_any = ANY in kept
        self._exact = kept - {ANY}
        self._wild = tuple(pattern.partition(_WILD)[::2] for pattern in kept if _WILD in pattern)

    def __contains__(self, origin: str) -> bool:
        """Whether an ``Origin`` header is listed by its name; ``*`` lists no name."""
        try:
            name = OPAQUE if origin == OPAQUE else str(parse_origin(origin))
        except ValueError:
            return False
        if name in self._exact:
            return True
        return any(name.startswith(before) and name.endswith(f".{after}") for before, after in self._wild)


def parse_pattern(text: str) -> str:
    """Read one entry of the setting, as browsers write it; raises ``ValueError`` for what could never match."""
    text = text.lower()
    if text in (ANY, OPAQUE):
        return text
    scheme, separator, rest = text.partition("://")
    if rest.startswith(_WILD):
        origin = parse_origin(f"{scheme}://{rest.removeprefix(_WILD)}")
        if not re.search("[a-z]", origin.host) or ":" in origin.host:
            raise ValueError(text)  # an address has no labels below it
        return str(msgspec.structs.replace(origin, host=f"{_WILD}{origin.host}"))
    if not separator:
        raise ValueError(text)
    return str(parse_origin(text))


def _host(host: str) -> str:
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    name = host if host.isascii() else host.encode("idna").decode()
    if not _NAME.fullmatch(name):
        raise ValueError(host)
    return name
