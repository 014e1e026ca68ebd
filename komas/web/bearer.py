"""Where a caller puts its token: header, subprotocol or query. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from werkzeug.datastructures import Headers

from komas.errors import Unauthorized

SUBPROTOCOL: Final = "komas.signals"
_BEARER: Final = "bearer."


def bearer_of(headers: Headers) -> str:
    """The token of ``Authorization: Bearer``; empty where there is none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def token_of(headers: Headers, subprotocols: Sequence[str], query: str | None) -> str:
    """The one token of a handshake; raises ``Unauthorized`` for none, and for several that differ."""
    offered = [name.removeprefix(_BEARER) for name in subprotocols if name.startswith(_BEARER)]
    found = {token for token in (bearer_of(headers), query or "", *offered) if token}
    if len(found) != 1:
        raise Unauthorized("no token, or more than one")
    return found.pop()
