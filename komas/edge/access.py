"""Who is calling, who may change something, and which web pages may read."""

from __future__ import annotations

import hmac
import ipaddress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers

from komas.edge.bearer import bearer_of
from komas.edge.problems import ProblemError
from komas.settings import Settings

_FORWARDED: Final = (
    "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via", "Cf-Connecting-Ip",
)  # fmt: skip


class Caller:
    """What is known of a caller before it proved anything: the peer's address, and the request's headers."""

    __slots__ = ("headers", "peer")

    def __init__(self, peer: str | None, headers: Headers) -> None:
        self.peer = _plain(peer or "")
        self.headers = headers

    def address(self, settings: Settings) -> str:
        """The address to count by: the peer's, or what a trusted proxy says it forwards for."""
        forwarded = ",".join(self.headers.getlist("X-Forwarded-For"))  # some proxies add a line of their own
        if self.peer in settings.trusted_proxies and forwarded:
            return forwarded.rsplit(",", 1)[-1].strip()[:64]
        return self.peer


def check_control(caller: Caller, settings: Settings) -> None:
    """Raise a problem unless the caller may change something, or see the logs.

    With an admin token set, it must be sent. Without one, only a program on this machine is believed: a loopback peer,
    with nothing forwarded, that calls us by a loopback name (a web page that was rebound to 127.0.0.1 does not) and
    does not speak for a web page of somebody else's.
    """
    if settings.admin_token:
        _check_token(caller, settings.admin_token)
        return
    is_local = _is_loopback(caller.peer) and not any(name in caller.headers for name in _FORWARDED)
    if not is_local or not _is_ours(caller, settings):
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "without an admin token, only programs on the server's own machine may do this;"
            " set KOMAS_ADMIN_TOKEN and send it as 'Authorization: Bearer ...'",
        )


def cors(caller: Caller, settings: Settings, *, reads: bool) -> dict[str, str]:
    """Headers that let a web page read the answer: every listed page, and with ``*`` any page, where it only reads."""
    origin = caller.headers.get("Origin", "").lower()
    if origin and origin in settings.cors_origins:
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    if "*" in settings.cors_origins and reads:
        return {"Access-Control-Allow-Origin": "*"} if origin else {}
    return {"Vary": "Origin"}


def _check_token(caller: Caller, expected: str) -> None:
    if hmac.compare_digest(bearer_of(caller.headers).encode(), expected.encode()):
        return
    raise ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "this call needs 'Authorization: Bearer <admin token>'",
        headers={"WWW-Authenticate": 'Bearer realm="komas"'},
    )


def is_same_origin(caller: Caller, settings: Settings) -> bool:
    """Whether the web page that calls, if it is one, is our own or a listed one; ``*`` lists nobody here."""
    host = caller.headers.get("Host", "").lower()
    origin = caller.headers.get("Origin")
    if origin is None:
        return True
    return origin.lower() in (f"http://{host}", f"https://{host}", *(set(settings.cors_origins) - {"*"}))


def _is_ours(caller: Caller, settings: Settings) -> bool:
    return _is_loopback_name(_name_of(caller.headers.get("Host", ""))) and is_same_origin(caller, settings)


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None  # broken brackets


def _is_loopback_name(name: str | None) -> bool:
    return name is not None and (name == "localhost" or name.endswith(".localhost") or _is_loopback(name))


def _plain(address: str) -> str:
    """An address as people write it: a socket for IPv4 and IPv6 has ``::ffff:192.0.2.1`` for ``192.0.2.1``."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return address if mapped is None else str(mapped)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(_plain(address.partition("%")[0])).is_loopback
    except ValueError:
        return False
