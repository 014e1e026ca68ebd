"""Connections to Redis or Valkey: the only file that knows hiredis, loaded only where one is configured.

hiredis writes commands and reads replies, Trio carries them. One request is in flight on a connection, in the task that
asks: there is no task of a connection's own, nothing is handed from one to another, and a request that fails or is
cancelled takes its connection with it, so nothing is ever read by the call after.
"""

from __future__ import annotations

import re
import select
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

import hiredis
import trio

from komas.backplane.ports import VERSION, BackplaneError
from komas.backplane.redis_scripts import Script
from komas.backplane.redis_store import RedisBackplane
from komas.backplane.redis_url import RedisUrl, parse_redis_url
from komas.backplane.retention import Retention
from komas.errors import SettingError, first_of, words_of

CALL_S: Final = 2.0  # for a call, with connecting, beyond what the store may wait
IDLE: Final = 8  # connections that are kept open: a leader's calls beside two readers
READ_BYTES: Final = 2**18

_FAILURES: Final = (hiredis.HiredisError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_WAITING: Final = object()  # a reply is not all there
_WANTS_LOGIN: Final = ("NOAUTH", "NOPERM")
_MOVED: Final = re.compile(r"MOVED \d+ (.*):(\d+)")


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    prefix: str = "komas",
    market: str = "spot",
    retention: Retention | None = None,
    call_s: float = CALL_S,
    version: int = VERSION,
) -> AsyncIterator[RedisBackplane]:
    """A market's backplane in Redis, or in what speaks its protocol.

    Entering connects to nothing: the store may be away. Raises ``SettingError`` for a URL that cannot be read.
    """
    connections = _Connections(parse_redis_url(url), call_s)
    try:
        yield RedisBackplane(connections, f"{prefix}:{{{market}}}:", retention or Retention(), version)
    finally:
        connections.close()


class _Connections:
    """Connections to one server, as many as there are calls at a time; those of Redis' errors become ours here."""

    def __init__(self, url: RedisUrl, call_s: float) -> None:
        self._url = url
        self._call_s = call_s
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._moved_to: tuple[str, int] | None = None
        self._is_closed = False
        self._ssl = _ssl_of(url)

    def close(self) -> None:
        """Close them all, and open no more: a call that comes later fails."""
        self._is_closed = True
        for connection in tuple(self._open):
            self._drop(connection)

    async def run(self, script: Script, keys: list[bytes], *arguments: bytes) -> object:
        """Run a script: by its name, or whole where the store does not know it (any more)."""
        rest = (b"%d" % len(keys), *keys, *arguments)

        async def run() -> object:
            try:
                return await self._request(b"EVALSHA", script.sha, *rest)
            except _UnknownScriptError:
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
                except hiredis.ReplyError as error:
                    if (moved := _MOVED.match(str(error))) is None:
                        raise
                    self._move_to(moved[1], int(moved[2]))
                    return await ask()
        except trio.TooSlowError:
            self._leave()
            raise BackplaneError(f"Redis at {self._url} did not answer within {wait_s + self._call_s:g} s") from None
        except _FAILURES as error:
            self._leave()
            # Its cause is left behind: a server that did not understand a command repeats it, password and all.
            words = self._url.without_secrets(_all_words(error))
            raise BackplaneError(f"Redis at {self._url}: {words}") from None

    async def _request(self, *command: bytes) -> object:
        connection = self._take() or await self._connect()
        is_fit = False
        try:
            reply = await connection.ask(*command)
            is_fit = True
        except _UnknownScriptError:
            is_fit = True
            raise
        finally:
            if is_fit and len(self._idle) < IDLE and not self._is_closed:
                self._idle.append(connection)
            else:
                self._drop(connection)
        return reply

    def _take(self) -> _Connection | None:
        """The connection that was used last, of those that are still up."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_up():
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _leave(self) -> None:
        """Use no connection again: what one call met, the next would meet on the connections beside it."""
        while self._idle:
            self._drop(self._idle.pop())

    def _move_to(self, host: str, port: int) -> None:
        """The slot of our keys is another node's, in a cluster."""
        self._moved_to = host or self._url.hosts[0][0], port
        self._leave()

    async def _connect(self) -> _Connection:
        if self._url.path:
            stream = await trio.open_unix_socket(self._url.path)
            return await self._start(stream, stream.socket, self._url)
        if self._url.service:
            return await self._connect_to_primary()
        moved_to, self._moved_to = self._moved_to, None
        connection = await self._connect_to(*(moved_to or self._url.hosts[0]))
        self._moved_to = moved_to  # forgotten where it could not be reached
        return connection

    async def _connect_to(self, host: str, port: int, url: RedisUrl | None = None) -> _Connection:
        stream = await trio.open_tcp_stream(host, port)
        over: trio.abc.Stream = stream
        if self._ssl is not None:  # Redis closes without TLS' own farewell
            over = trio.SSLStream(stream, self._ssl, server_hostname=host, https_compatible=True)
        return await self._start(over, stream.socket, url or self._url)

    async def _connect_to_primary(self) -> _Connection:
        host, port = await self._primary()
        connection = await self._connect_to(host, port)
        role = b""
        try:
            role = cast("list[bytes]", await connection.ask(b"ROLE"))[0]
        finally:
            if role != b"master":
                self._drop(connection)
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
                    said = _all_words(error)
        raise ConnectionError(f"no primary is known: {said}")

    async def _ask_sentinel(self, host: str, port: int) -> tuple[str, int] | None:
        login = RedisUrl(username=self._url.username, password=self._url.password)
        try:  # most have no password, or the one of what they watch
            place = await self._ask_once(host, port, RedisUrl())
        except hiredis.ReplyError as error:
            if not login.password or not str(error).startswith(_WANTS_LOGIN):
                raise
            place = await self._ask_once(host, port, login)
        if not place:
            return None
        name, number = cast("list[bytes]", place)
        return name.decode(), int(number)

    async def _ask_once(self, host: str, port: int, login: RedisUrl) -> object:
        connection = await self._connect_to(host, port, login)
        try:
            return await connection.ask(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._url.service.encode())
        finally:
            self._drop(connection)

    async def _start(self, stream: trio.abc.Stream, socket: trio.socket.SocketType, url: RedisUrl) -> _Connection:
        """Say who calls, and which database is meant."""
        connection = _Connection(stream, socket)
        if self._is_closed:
            connection.close()
            raise ConnectionError("it is not used any more")
        self._open.add(connection)
        is_fit = False
        try:
            if url.password:
                await connection.ask(b"AUTH", *([url.username.encode()] if url.username else []), url.password.encode())
            if url.db:
                await connection.ask(b"SELECT", b"%d" % url.db)
            is_fit = True
        finally:
            if not is_fit:
                self._drop(connection)
        return connection


class _UnknownScriptError(hiredis.ReplyError):
    """The store does not know a script by its name."""


class _Connection:
    """One connection, over a stream that is open, and the socket below it."""

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self._stream = stream
        self._socket = socket
        self._replies = hiredis.Reader(notEnoughData=_WAITING)

    async def ask(self, *command: bytes) -> object:
        """What it answers; raises ``hiredis.ReplyError`` where that is an error, and what the connection does."""
        await self._stream.send_all(hiredis.pack_command(cast("tuple[bytes]", command)))
        while (reply := self._replies.gets()) is _WAITING:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                raise ConnectionError("it closed the connection")
            self._replies.feed(bytes(data))
        if isinstance(reply, hiredis.ReplyError):
            raise _UnknownScriptError(str(reply)) if str(reply).startswith("NOSCRIPT") else reply
        return reply

    def is_up(self) -> bool:
        """Whether an idle connection is fit: it would have something to read if it had ended."""
        number = self._socket.fileno()
        if number < 0:
            return False
        if sys.platform == "win32":
            return not select.select([number], [], [], 0)[0]
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it at once; a call that is in flight fails."""
        self._socket.close()


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
