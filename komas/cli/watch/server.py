"""The server that is watched: its address, its refusals, and what it was told when it was not there."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable
from typing import Final, TypeAlias

import httpx
import msgspec
import trio

from komas.cli.watch.bounds import bound
from komas.cli.watch.link_state import CONNECTED, LOST
from komas.cli.watch.records import CONNECTION, Record, own_record
from komas.cli.watch.retries import Retries
from komas.cli.watch.safe_text import shown
from komas.errors import CallerError, words_of
from komas.model.clock import wall_ms
from komas.venues.core.proxies import LOOPBACK_DIRECT

TIMEOUT_S: Final = 10.0
HIDDEN: Final = "[token]"
_MS: Final = 1000
_UNKNOWN: Final = re.compile(r"(\w{1,40}) is not a symbol of the exchange")
_ALIKE: Final = 3  # letters by which names are looked for, and names that are suggested

Put: TypeAlias = Callable[[Record], None]


def check_address(server: str) -> None:
    """Raise ``CallerError`` for what is no address of a server."""
    try:
        url = httpx.URL(server)
        is_known = url.scheme in ("http", "https") and url.host and (url.port or 1) < 2**16 and not url.query
    except (httpx.InvalidURL, ValueError):
        is_known = False
    if not is_known:
        raise CallerError(f"--server: got {shown(server)!r}; accepted: http://host:port or https://host:port")


def shown_address(server: str) -> str:
    """The address without a password that may be in it."""
    return shown(str(httpx.URL(server).copy_with(username=None, password=None)))


def open_client(server: str, *, read_timeout_s: float = TIMEOUT_S) -> httpx.AsyncClient:
    """A client for a server, which the caller closes; no answer is read without bound."""
    check_address(server)
    return httpx.AsyncClient(
        base_url=server,
        timeout=httpx.Timeout(TIMEOUT_S, read=read_timeout_s),
        mounts=LOOPBACK_DIRECT,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [bound]},
    )


class Link:
    """Tells whether a server is there, and waits before it is tried again; ``secret`` is in nothing that is told."""

    def __init__(self, server: str, put: Put, secret: str = "") -> None:
        self.address = shown_address(server)
        self.retries = Retries(random.random)
        self._put = put
        self._secret = secret

    def connected(self) -> None:
        """The server has answered."""
        self._put(own_record(CONNECTION, {"server": self.address, "state": CONNECTED}, wall_ms()))

    async def lost(self, reason: str) -> None:
        """Say why there is no connection, and wait."""
        wait_s = self.retries.failed()
        fields = {
            "server": self.address,
            "state": LOST,
            "reason": self.without_secret(reason),
            "retry_in_s": round(wait_s, 3),
        }
        self._put(own_record(CONNECTION, fields, wall_ms()))
        await trio.sleep(wait_s)

    def without_secret(self, text: str) -> str:
        """The text, in which the token is not to be read."""
        return text.replace(self._secret, HIDDEN) if self._secret else text


class _FieldError(msgspec.Struct):
    message: str = ""


class _Problem(msgspec.Struct):
    detail: str
    errors: list[_FieldError] = msgspec.field(default_factory=list)


class _Symbol(msgspec.Struct):
    symbol: str


class _Symbols(msgspec.Struct):
    symbols: list[_Symbol]


async def refusal(client: httpx.AsyncClient, response: httpx.Response) -> CallerError:
    """What to tell of an answer that is an error of the caller's making, with names that may have been meant."""
    try:
        await response.aread()
        problem = msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.MsgspecError, UnicodeError, httpx.HTTPError):
        return CallerError(f"the server answered HTTP {response.status_code}; is it a komas server?")
    unknown = _UNKNOWN.findall(problem.detail)
    alike = dict.fromkeys([name for symbol in unknown[:_ALIKE] for name in await _alike(client, symbol)])
    hint = f"; did you mean {' or '.join(map(shown, alike))}?" if alike else ""
    return CallerError(f"the server says: {shown(problem.detail)}{hint}")


async def _alike(client: httpx.AsyncClient, symbol: str) -> list[str]:
    try:
        response = await client.get("/api/ws/symbols", params={"query": symbol[:_ALIKE], "limit": 100})
        found = msgspec.json.decode(response.content, type=_Symbols).symbols
    except (msgspec.MsgspecError, httpx.HTTPError):
        return []
    return difflib.get_close_matches(symbol.upper(), [row.symbol for row in found], n=_ALIKE)


def failure_words(error: BaseException) -> str:
    """Why a request failed, fit for a terminal."""
    hint = "; is komas serve running there?" if isinstance(error, httpx.ConnectError) else ""
    return f"{shown(words_of(error))}{hint}"
