"""Ask a venue over HTTP: this and ``rest_body`` are the only files that know the HTTP client (httpx).

One client in the process, one weight budget: after 429 or 418 nothing is asked until the time that the venue named,
because asking on turns the first into the second, and the second into a ban of days.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import trio

from komas.errors import Cause, VenueError, words_of
from komas.histogram import Histogram
from komas.venues.core import trust
from komas.venues.core.json_array import NoArray, elements
from komas.venues.core.proxies import note_ignored_proxies
from komas.venues.core.retry import RETRY_AFTER_MAX_S
from komas.venues.core.statistics import RestStatistics
from komas.venues.core.websocket import asked_wait_s
from komas.venues.core.words import cut

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 10.0
# Of what the venue allows; the rest is for other programs behind the same address.
WEIGHT_SHARE: Final = 0.8
ROOM_SHARE: Final = 0.5  # of that, what is not urgent may use
RESERVE_SHARE: Final = 0.75
WEIGHT_WINDOW_S: Final = 60.0
BANNED_FOR_S: Final = 60.0  # when a 429 or 418 does not say how long

# Unpacked, of one answer: a thousand candles are 200 KB, and more than twice that would take 20 ms to read.
MOST_BYTES: Final = 2**19
MOST_BYTES_OF_A_LIST: Final = 2**24  # three times what spot says of its symbols (2026); read in pieces

# RecursionError: nesting without end.
_BROKEN: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_TOO_MANY: Final = 429
_BANNED: Final = 418
_TIMED_OUT: Final = 408
_SERVER_ERRORS: Final = 500

T = TypeVar("T")


class _ErrorBody(msgspec.Struct):
    """``{"code":-1121,"msg":"Invalid symbol."}``."""

    code: int | None = None
    msg: str = ""


class Rest:
    """One venue's REST host, made by ``open_rest()``."""

    def __init__(
        self,
        base_url: str,
        weight_header: str,
        weight_per_minute: int,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._url = base_url
        self._host = urlsplit(base_url).hostname or ""
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._opening = trio.Lock()
        self._weight_header = weight_header
        self._weight_limit = weight_per_minute * WEIGHT_SHARE
        self._not_before = -1.0
        self._weighed_at = 0.0
        self._latency = Histogram()
        self._failures: Counter[Cause] = Counter()
        self.used_weight = 0

    @property
    def has_room(self) -> bool:
        """Whether most of the minute's weight is left: for what is not urgent."""
        return self._is_below(ROOM_SHARE)

    @property
    def has_reserve(self) -> bool:
        """Whether that part is left, too, which is kept for those who would wait for others' requests."""
        return self._is_below(RESERVE_SHARE)

    def _is_below(self, share: float) -> bool:
        return trio.current_time() >= self._not_before and self._used_now() <= self._weight_limit * share

    def _used_now(self) -> int:
        return self.used_weight if trio.current_time() - self._weighed_at < WEIGHT_WINDOW_S else 0

    def statistics(self) -> RestStatistics:
        """Counts, for metrics."""
        held_off_s = max(0.0, self._not_before - trio.current_time())
        return RestStatistics(self._used_now(), self._weight_limit, held_off_s, self._latency, self._failures)

    async def get(
        self, path: str, result: type[T], params: Mapping[str, str] | None = None, *, most_bytes: int = MOST_BYTES
    ) -> T:
        """GET one resource and decode it; ``VenueError`` for every way in which that can fail."""
        body = await self._body(path, params, most_bytes)
        try:
            return msgspec.json.decode(body, type=result)
        except _BROKEN as error:
            raise _unreadable(path, error) from error

    async def get_each(
        self, path: str, key: str, result: type[T], params: Mapping[str, str] | None = None, *, most: int
    ) -> list[T]:
        """GET one large resource, and decode only the objects of its array ``key``, of which there may be ``most``.

        Other tasks run in between. ``VenueError`` as of ``get()``.
        """
        body = await self._body(path, params, MOST_BYTES_OF_A_LIST)
        decode, found = msgspec.json.Decoder(result).decode, list[T]()
        try:
            for element in elements(body, key):
                if not element:
                    await trio.lowlevel.checkpoint()
                elif len(found) == most:
                    raise VenueError(f"{path} answered more than {most:,} {key}", cause=Cause.PROTOCOL)
                else:
                    found.append(decode(element))
        except (*_BROKEN, NoArray) as error:
            raise _unreadable(path, error) from error
        return found

    async def fetch(
        self, path: str, params: Mapping[str, str], *, headers: Mapping[str, str], most_bytes: int
    ) -> bytes:
        """GET one resource as it comes, undecoded; ``VenueError`` as of ``get()``, with the venue's own ``words``."""
        return await self._body(path, params, most_bytes, headers)

    async def _body(
        self, path: str, params: Mapping[str, str] | None, most_bytes: int, headers: Mapping[str, str] | None = None
    ) -> bytes:
        self._check_budget()
        asked_at = trio.current_time()
        try:
            body = await self._asked(path, params, most_bytes, headers)
        except VenueError as error:
            self._failures[error.cause] += 1
            raise
        self._latency.observe(trio.current_time() - asked_at)
        return body

    async def _asked(
        self, path: str, params: Mapping[str, str] | None, most_bytes: int, headers: Mapping[str, str] | None
    ) -> bytes:
        heads: list[httpx.Response] = []
        try:
            response = await self._answer(path, params, most_bytes, headers, heads.append)
        except VenueError as error:
            # A refusal is one, and asks to wait, whatever becomes of its body: too long, broken, too slow.
            for head in heads:
                self._note_weight(head)
                if head.status_code != HTTPStatus.OK:
                    raise self._failed(head, b"") from error
            raise
        self._note_weight(response)
        if response.status_code != HTTPStatus.OK:
            raise self._failed(response, response.content)
        return response.content

    async def _answer(
        self,
        path: str,
        params: Mapping[str, str] | None,
        most_bytes: int,
        headers: Mapping[str, str] | None,
        note_head: Callable[[httpx.Response], None],
    ) -> httpx.Response:
        """The answer with its body; ``note_head`` has it before that has come."""
        # The client's own time-out is for each read: a body that drips would hold us for days.
        failure: VenueError | None = None
        with trio.move_on_after(TIMEOUT_S) as scope:
            client = await self._opened()
            import httpx  # noqa: PLC0415 - loaded by now, in a thread

            from komas.venues.core.rest_body import LIMIT, BodyLimit  # noqa: PLC0415 - likewise

            limit = BodyLimit(most_bytes, scope.cancel, note_head)
            try:
                response = await client.get(path, params=params, headers=headers, extensions={LIMIT: limit})
            # The last two are of a redirect to what is no address: httpx reads it, though it does not follow it.
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                words = cut(words_of(error))
                raise VenueError(f"{self._host} cannot be asked: {words}", cause=Cause.NETWORK) from error
            finally:
                failure = limit.failure
            if failure is None:
                return response
        raise failure or VenueError(f"{self._host} did not answer within {TIMEOUT_S:g} s", cause=Cause.NETWORK)

    async def _opened(self) -> httpx.AsyncClient:
        """The client, made at the first question: reading whom to trust takes longer than a start may wait for it."""
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await self._make()
                except (OSError, ValueError) as error:  # what the environment says of trust
                    raise VenueError(f"{self._host} cannot be asked: {words_of(error)}", cause=Cause.NETWORK) from error
        return self._client

    async def _make(self) -> httpx.AsyncClient:
        if self._transport is None:
            note_ignored_proxies(self._host)
        # Waited for, cancelled or not: a process that ends while a thread is inside OpenSSL ends by a signal.
        trusted = True if self._transport is not None else await trio.to_thread.run_sync(_prepare)
        import httpx  # noqa: PLC0415 - loaded by now, in that thread

        from komas.venues.core import rest_body  # noqa: PLC0415 - likewise

        # Without the environment's proxies, and without passwords for the exchange from ~/.netrc.
        return httpx.AsyncClient(
            base_url=self._url,
            timeout=TIMEOUT_S,
            headers={"Accept-Encoding": rest_body.ACCEPTED},
            verify=trusted,
            trust_env=False,
            transport=self._transport,
            event_hooks={"response": [rest_body.bound]},
        )

    async def aclose(self) -> None:
        """Close the client's connections; its callers must have been cancelled before."""
        if self._client is not None:
            await self._client.aclose()

    def _check_budget(self) -> None:
        wait_s = self._not_before - trio.current_time()
        if wait_s > 0:
            raise VenueError(
                f"the exchange asked to wait {wait_s:.0f} s more", cause=Cause.REFUSED, retry_after_s=wait_s
            )

    def _note_weight(self, response: httpx.Response) -> None:
        used = response.headers.get(self._weight_header, "")
        if used.isascii() and used.isdigit():
            self.used_weight, self._weighed_at = int(used[:9]), trio.current_time()
            if self.used_weight >= self._weight_limit:
                self._wait(WEIGHT_WINDOW_S)

    def _wait(self, seconds: float) -> None:
        """Ask nothing for so long; an answer that was under way does not shorten a longer wait."""
        self._not_before = max(self._not_before, trio.current_time() + seconds)

    def _failed(self, response: httpx.Response, content: bytes) -> VenueError:
        status = response.status_code
        try:
            body = msgspec.json.decode(content, type=_ErrorBody)
        except _BROKEN:
            body = _ErrorBody()
        wait_s = asked_wait_s(response.headers.get("retry-after", ""), body.msg)
        if wait_s is not None:
            wait_s = min(wait_s, RETRY_AFTER_MAX_S)
        if status in (_TOO_MANY, _BANNED):
            wait_s = BANNED_FOR_S if wait_s is None else wait_s
            self._wait(wait_s)
        return VenueError(
            f"the exchange answered HTTP {status}{f': {cut(body.msg)}' if body.msg else ''}",
            cause=Cause.NETWORK if status >= _SERVER_ERRORS or status == _TIMED_OUT else Cause.REFUSED,
            status=status,
            retry_after_s=wait_s,
            code=body.code,
            words=cut(body.msg),
        )


def _unreadable(path: str, error: Exception) -> VenueError:
    return VenueError(f"{path} answered what komas cannot read: {cut(str(error))}", cause=Cause.PROTOCOL)


@cache
def read_trust_store() -> ssl.SSLContext:
    """Whom to trust, read once for every host."""
    return trust.read_trust_store()


def _prepare() -> ssl.SSLContext:
    """Load the HTTP client, which takes a third of a start, and whom it trusts: prices wait for neither."""
    import_module("httpx")
    import_module("httpcore")  # which httpx loads with its first client
    import_module("komas.venues.core.rest_body")
    return read_trust_store()


@asynccontextmanager
async def open_rest(
    base_url: str,
    *,
    weight_header: str,
    weight_per_minute: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Rest]:
    """Open the REST host of a venue; ``transport`` is for tests that answer in its place."""
    rest = Rest(base_url, weight_header, weight_per_minute, transport)
    try:
        yield rest
    finally:
        await rest.aclose()
