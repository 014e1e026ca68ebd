"""Requests that two readers may understand in two ways, and so are refused. Sans-I/O.

A proxy that reads such a request otherwise than komas does lets one request pass as another, or as two. h11 takes them,
as RFC 9112 allows.
"""

from __future__ import annotations

import re
from collections import Counter
from http import HTTPStatus
from typing import Final

import h11
import msgspec

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\n[ \t]")
_LENGTH: Final = re.compile(rb"^content-length[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
# RFC 3986, 3.2: a name or an address, and a port; no userinfo, no blank, nothing beyond ASCII. It may be empty.
_HOST: Final = re.compile(rb"(?:\[[\w:.%~-]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_AUTHORITY: Final = re.compile(rb"([a-z][a-z0-9+.-]*)://([^/?#]*)", re.IGNORECASE)
_PORTS: Final = {b"http": b":80", b"https": b":443"}
_ONCE: Final = frozenset(
    {b"authorization", b"idempotency-key", b"origin", b"sec-websocket-key", b"sec-websocket-version"}
)


class Refusal(msgspec.Struct, frozen=True):
    """What a request is answered, and why; its connection is closed, for what follows in it cannot be trusted."""

    status: int
    detail: str


def refusal_of(head: bytes, request: h11.Request, longest: int) -> Refusal | None:
    """Why a request is refused, and ``None`` where it is not.

    ``head`` is how it was written, with whatever came behind it; ``longest`` is the most bytes that it may have.
    """
    end = _BLANK_LINE.search(head)
    head = head if end is None else head[: end.start()]
    if len(head) > longest:
        return too_long(head, longest)
    reason = _framing(head, request) or _hosts(request) or _repeated(request)
    return Refusal(HTTPStatus.BAD_REQUEST, reason) if reason else None


def too_long(head: bytes, longest: int) -> Refusal:
    """What a head is answered that is longer than it may be, whole or not: it may be its first line."""
    if len(head.partition(b"\n")[0]) > longest:
        return Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request's target is longer than {longest} bytes")
    detail = f"the head of the request is longer than {longest} bytes"
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def _framing(head: bytes, request: h11.Request) -> str:
    """What is wrong with how the request says where it ends (RFC 9112, 5.2, 6.1 and 6.3)."""
    if _FOLD.search(head) is not None:
        return "a header field goes on in a second line"
    lengths = _LENGTH.findall(head)
    if len(lengths) > 1 or any(b"," in length for length in lengths):
        return "there is more than one Content-Length"
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        if lengths:
            return "there are both Content-Length and Transfer-Encoding"
        if request.http_version < b"1.1":
            return "there is no Transfer-Encoding in HTTP/1.0"
    return ""


def _hosts(request: h11.Request) -> str:
    """What is wrong with the host that is asked (RFC 9112, 3.2)."""
    host = next((value for name, value in request.headers if name == b"host"), None)
    if host is not None and _HOST.fullmatch(host) is None:
        return "the Host header is no name or address with a port"
    absolute = _AUTHORITY.match(request.target)
    if absolute is None or host is None:
        return ""
    scheme, authority = absolute[1].lower(), absolute[2]
    port = _PORTS.get(scheme)
    if port is None or _without(authority, port) != _without(host, port):
        return "the request's target names another host than its Host header"
    return ""


def _without(host: bytes, port: bytes) -> bytes:
    return host.lower().removesuffix(port)


def _repeated(request: h11.Request) -> str:
    """Which header field there is twice, where only one of them would be read."""
    counts = Counter(name for name, _ in request.headers if name in _ONCE)
    twice = [name.decode() for name, count in counts.items() if count > 1]
    return f"there is more than one {twice[0]} header" if twice else ""
