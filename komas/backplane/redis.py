"""Connections to Redis or Valkey: the only file that knows coredis, loaded only where one is configured.

One request is in flight on a connection, and a request that fails or is cancelled takes its connection with it: nothing
is ever read by the call after. So connections are kept here and not by coredis' pool, which also loses one for each
call that is cancelled while it connects.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio
import trio
from anyio.abc import ByteStream
from coredis.connection import BaseConnection, Location, TCPLocation, UnixDomainSocketLocation
from coredis.exceptions import AuthenticationError, MovedError, NoScriptError, RedisError

from komas.backplane.ports import VERSION, BackplaneError
from komas.backplane.redis_scripts import Script
from komas.backplane.redis_store import RedisBackplane
from komas.backplane.redis_url import RedisUrl, parse_redis_url
from komas.backplane.retention import Retention
from komas.errors import SettingError, first_of, words_of

CALL_S: Final = 2.0  # for a call, with connecting, beyond what the store may wait
IDLE: Final = 8  # connections that are kept open: a leader's calls beside two readers

_FAILURES: Final = (
    RedisError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)


@asynccontextmanager
async def open_redis(
    url: str,
    nursery: trio.Nursery,
    *,
    prefix: str = "komas",
    market: str = "spot",
    retention: Retention | None = None,
    call_s: float = CALL_S,
    version: int = VERSION,
) -> AsyncIterator[RedisBackplane]:
    """A market's backplane in Redis, or in what speaks its protocol; connections run in ``nursery``.

    Entering connects to nothing: the store may be away. Raises ``SettingError`` for a URL that cannot be read.
    """
    where = parse_redis_url(url)
    # Each of its failures is raised to us, and is told by who called; it would log a traceback for each.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
    connections = _Connections(where, nursery, call_s)
    try:
        yield RedisBackplane(connections, f"{prefix}:{{{market}}}:", retention or Retention(), version)
    finally:
        connections.close()


class _Connections:
    """Connections to one server, as many as there are calls at a time; those of Redis' errors become ours here."""

    def __init__(self, url: RedisUrl, nursery: trio.Nursery, call_s: float) -> None:
        self._url = url
        self._nursery = nursery
        self._call_s = call_s
        self._idle: list[BaseConnection] = []
        self._open: set[BaseConnection] = set()
        self._moved_to: tuple[str, int] | None = None
        self._is_closed = False
        self._ssl = _ssl_of(url)

    def close(self) -> None:
        """Close them all, and open no more: a call that comes later fails."""
        self._is_closed = True
        for connection in self._open:
            connection.invalidate()

    async def run(self, script: Script, keys: list[bytes], *arguments: bytes) -> object:
        """Run a script: by its name, or whole where the store does not know it (any more)."""
        rest = (b"%d" % len(keys), *keys, *arguments)

        async def run() -> object:
            try:
                return await self._request(b"EVALSHA", script.sha, *rest)
            except NoScriptError:
                return await self._request(b"EVAL", script.text, *rest)

        return await self._bounded(run, 0.0)

    async def call(self, *command: bytes, wait_s: float = 0.0) -> object:
        """Ask for something, and wait for it: ``wait_s`` is what the store itself may wait."""
        return await self._bounded(lambda: self._request(*command), wait_s)

    async def _bounded(self, ask: Callable[[], Awaitable[object]], wait_s: float) -> object:
        try:
            with trio.fail_after(wait_s + self._call_s):
                try:
                    return await ask()
                except MovedError as moved:
                    self._move_to(moved.host, moved.port)
                    return await ask()
        except trio.TooSlowError:
            self._leave()
            raise BackplaneError(f"Redis at {self._url} did not answer within {wait_s + self._call_s:g} s") from None
        except _FAILURES as error:
            # coredis puts an error in the place of a cancellation that comes while it connects.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._leave()
            # Its cause is left behind: a server that did not understand a command repeats it, password and all.
            words = self._url.without_secrets(_all_words(error))
            raise BackplaneError(f"Redis at {self._url}: {words}") from None

    async def _request(self, *command: bytes) -> object:
        connection = self._take() or await self._connect()
        is_fit = False
        try:
            reply = await connection.create_request(
                command[0], *command[1:], decode=False, disconnect_on_cancellation=True
            )
            is_fit = True
        except NoScriptError:
            is_fit = True
            raise
        finally:
            if is_fit and len(self._idle) < IDLE:
                self._idle.append(connection)
            else:
                connection.invalidate()
        return reply

    def _take(self) -> BaseConnection | None:
        """The connection that was used last, of those that are still up."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.invalidate()
        return None

    def _leave(self) -> None:
        """Use no connection again: what one call met, the next would meet on the connections beside it."""
        while self._idle:
            self._idle.pop().invalidate()

    def _move_to(self, host: str, port: int) -> None:
        """The slot of our keys is another node's, in a cluster."""
        self._moved_to = host or self._url.hosts[0][0], port
        self._leave()

    async def _connect(self) -> BaseConnection:
        if self._url.path:
            stream: ByteStream = await anyio.connect_unix(self._url.path)
            return await self._start(stream, UnixDomainSocketLocation(self._url.path), self._url)
        if self._url.service:
            return await self._connect_to_primary()
        moved_to, self._moved_to = self._moved_to, None
        connection = await self._connect_to(*(moved_to or self._url.hosts[0]))
        self._moved_to = moved_to  # forgotten where it could not be reached
        return connection

    async def _connect_to(self, host: str, port: int, url: RedisUrl | None = None) -> BaseConnection:
        stream: ByteStream
        if self._ssl is None:
            stream = await anyio.connect_tcp(host, port)
        else:  # Redis closes without TLS' own farewell
            stream = await anyio.connect_tcp(host, port, ssl_context=self._ssl, tls_standard_compatible=False)
        return await self._start(stream, TCPLocation(host, port), url or self._url)

    async def _connect_to_primary(self) -> BaseConnection:
        host, port = await self._primary()
        connection = await self._connect_to(host, port)
        role = b""
        try:
            role = cast("list[bytes]", await connection.create_request(b"ROLE", decode=False))[0]
        finally:
            if role != b"master":
                connection.invalidate()
        if role != b"master":
            raise ConnectionError(f"{host}:{port} is a {role.decode()}; the sentinels have not heard of another")
        return connection

    async def _primary(self) -> tuple[str, int]:
        """What the first of the Sentinels that knows one says."""
        said = "none answered"
        for host, port in self._url.hosts:
            with trio.move_on_after(self._call_s / (len(self._url.hosts) + 1)):
                try:
                    if (place := await self._ask_sentinel(host, port)) is not None:
                        return place
                    said = f"{host}:{port} knows no {self._url.service}"
                except _FAILURES as error:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    said = _all_words(error)
        raise ConnectionError(f"no primary is known: {said}")

    async def _ask_sentinel(self, host: str, port: int) -> tuple[str, int] | None:
        try:  # most have no password, or the one of what they watch
            connection = await self._connect_to(host, port, RedisUrl())
        except AuthenticationError:
            login = RedisUrl(username=self._url.username, password=self._url.password)
            connection = await self._connect_to(host, port, login)
        try:
            place = await connection.create_request(
                b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._url.service.encode(), decode=False
            )
        finally:
            connection.invalidate()
        if not place:
            return None
        name, number = cast("list[bytes]", place)
        return name.decode(), int(number)

    async def _start(self, stream: ByteStream, location: Location, url: RedisUrl) -> BaseConnection:
        if self._is_closed:
            await anyio.aclose_forcefully(stream)
            raise ConnectionError("it is not used any more")
        connection = _Connection(stream, location, url)
        await self._nursery.start(self._keep_open, connection, name="redis connection")
        return connection

    async def _keep_open(self, connection: BaseConnection, *, task_status: trio.TaskStatus[None]) -> None:
        """Run a connection; what ends it before it is open is raised to who opens it, later to its request."""
        opening = _Opening(task_status)
        self._open.add(connection)
        try:
            await connection.run(task_status=opening)
        except _FAILURES:
            if not opening.is_over:
                raise
        finally:
            self._open.discard(connection)


class _Connection(BaseConnection):
    """A connection over a stream that is open: where opening one fails, coredis leaves its own streams unclosed."""

    def __init__(self, stream: ByteStream, location: Location, url: RedisUrl) -> None:
        super().__init__(location, username=url.username, password=url.password, db=url.db)
        self._opened = stream

    async def _connect(self) -> ByteStream:
        return self._opened

    def describe(self) -> str:
        """Where it goes."""
        return f"<connection to {self.location}>"


class _Opening:
    """A task status that knows whether the task has started."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.is_over = False

    def started(self, value: None = None) -> None:
        """As of every task status."""
        self.is_over = True
        self._task_status.started(value)


def _ssl_of(url: RedisUrl) -> ssl.SSLContext | None:
    if not url.is_tls:
        return None
    try:
        return ssl.create_default_context(cafile=url.ca or None)
    except OSError as error:  # ssl.SSLError is one
        raise SettingError(f"backplane: ca: {url.ca} cannot be read: {error.strerror or error}") from error


def _all_words(error: BaseException) -> str:
    """What an error and those behind it say, each once."""
    words: list[str] = []
    step: BaseException | None = error
    while step is not None:
        if (said := words_of(first_of(step))) not in words:
            words.append(said)
        step = step.__cause__
    return ": ".join(words)
