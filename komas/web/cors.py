"""What a web page of another origin may do, as browsers ask for it (WHATWG Fetch, "HTTP-CORS protocol"). Sans-I/O.

| Page | Reads | Changes | Cookies of a proxy | Headers that it may send |
|---|---|---|---|---|
| listed by name | yes | yes | yes, but for `null` | `Authorization`, `Content-Type`, `Idempotency-Key`, and these: |
| any other, with `*` | yes | no | no | `Cache-Control`, `Last-Event-ID` |
| any other, without | no | no | no | |

komas has no cookies. ``withCredentials`` means those of what stands in front of it, so a page that anybody may have
written gets none of them, and neither does ``null``, which every sandboxed frame is. What a page may read depends on
its origin, so every answer says ``Vary: Origin``, also to those who name none: a cache may keep it for the others.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from komas.model.origins import OPAQUE

READING: Final = "GET, HEAD, OPTIONS"
CHANGING: Final = "POST, PATCH, DELETE"
PREFLIGHT_S: Final = 600  # how long a browser keeps the answer to its question
# What EventSource polyfills send: a browser asks before it sends them.
_READERS: Final = "Cache-Control, Last-Event-ID"
_CALLERS: Final = "Authorization, Content-Type, Idempotency-Key"


class Page(Enum):
    """What a page is to the setting ``cors_origins``."""

    LISTED = "listed"
    ANY = "any"
    STRANGER = "stranger"


def headers_of(page: Page, origin: str, *, reads: bool) -> dict[str, str]:
    """Headers of every answer to a page; ``reads`` is whether the call is one that any page may make with ``*``."""
    headers = {"Vary": "Origin"}
    if page is Page.LISTED:
        headers["Access-Control-Allow-Origin"] = origin
        if origin != OPAQUE:
            headers["Access-Control-Allow-Credentials"] = "true"
    elif page is Page.ANY and reads:
        headers["Access-Control-Allow-Origin"] = "*"
    if "Access-Control-Allow-Origin" in headers:
        headers["Access-Control-Expose-Headers"] = "Retry-After"
    return headers


def preflight_of(page: Page) -> dict[str, str]:
    """Headers of the answer to a browser that asks before it calls, beside those of every answer."""
    if page is Page.STRANGER:
        return {}
    is_listed = page is Page.LISTED
    return {
        "Access-Control-Allow-Methods": f"{READING}, {CHANGING}" if is_listed else READING,
        "Access-Control-Allow-Headers": f"{_CALLERS}, {_READERS}" if is_listed else _READERS,
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
