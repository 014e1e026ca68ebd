"""Who may misuse the exchange: programs, and not web pages that a browser shows meanwhile (sans-I/O).

A page of anywhere can send requests to an address of this machine, which its browser marks as another origin's, or
under a name of its own that it has turned to that address (DNS rebinding), which ``Host`` gives away.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

_HOST: Final = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OWN_PAGE_OR_NONE: Final = ("", "none", "same-origin")  # Sec-Fetch-Site
_HTTP_PORT: Final = ":80"  # which an Origin leaves out
SHOWN: Final = 100  # characters of a header in an answer


def why_refused(headers: Mapping[str, str], bound_host: str) -> str | None:
    """Why the caller may not control the exchange, in words; ``None`` where it may. ``headers`` are in lower case."""
    host = headers.get("host", "").lower()
    if not _is_ours(host, bound_host.lower()):
        return f"/sim/ is not for callers that call this machine {host[:SHOWN]!r}; call it by its address, or localhost"
    origin = headers.get("origin", "").lower()
    is_own = origin.removesuffix(_HTTP_PORT) in ("", f"http://{host.removesuffix(_HTTP_PORT)}")
    if not is_own or headers.get("sec-fetch-site", "").lower() not in _OWN_PAGE_OR_NONE:
        return f"/sim/ is not for web pages of other origins{f', such as {origin[:SHOWN]!r}' if origin else ''}"
    return None


def _is_ours(host: str, bound_host: str) -> bool:
    """Whether no page can have turned the name to this machine: only what has a dot is anybody's to buy."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]")
    if _is_loopback(name) or name == bound_host:
        return True
    return not _is_loopback(bound_host) and ("." not in name or _address(name) is not None)


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
