"""What every attacking client needs: the server, addresses to come from, raw connections, and a pace.

Raw sockets, so that an attacker is cheap, and can do what no library does: stop reading, hang up in mid-word.
"""

from __future__ import annotations

import base64
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio

READ_BYTES: Final = 2**16
SMALL_BYTES: Final = 2_048  # of a reader that will not read: what the kernel takes for it is not in the server
HEAD_S: Final = 5.0  # to be answered
PAUSE_S: Final = 0.5  # of one that was turned away
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

Found = Counter[str]


class Target(msgspec.Struct, frozen=True):
    """A server, by its address; ``sources`` are our own addresses, ``token`` a VIP's, ``symbols`` what it may ask."""

    host: str
    port: int
    sources: Sequence[str] = ()
    token: str = ""
    symbols: Sequence[str] = ()

    def source(self, number: int) -> str:
        """The address that one of many connections comes from; empty leaves it to the system."""
        return self.sources[number % len(self.sources)] if self.sources else ""

    async def dial(self, number: int = 0, *, reads: bool = True) -> trio.SocketStream:
        """A connection; one that will not read has the smallest buffer that there is."""
        connection = trio.socket.socket()
        try:
            if not reads:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
            if source := self.source(number):
                await connection.bind((source, 0))
            await connection.connect((self.host, self.port))
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)

    def request(self, path: str, *, method: str = "GET", body: str = "", more: str = "") -> bytes:
        """The bytes of a request."""
        given = f"{more}content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else more
        return f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n{given}\r\n{body}".encode()

    def upgrade(self, path: str) -> bytes:
        """The bytes of a WebSocket's handshake."""
        key = base64.b64encode(os.urandom(16)).decode()
        more = f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n"
        return self.request(path, more=more)


def target_of(url: str) -> tuple[str, int]:
    """Host and port of an address; only ``http://`` is spoken."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server; write http://127.0.0.1:8000")
    return parts.hostname, parts.port or 80


async def heard(stream: trio.SocketStream, *marks: bytes, within_s: float = HEAD_S) -> bytes:
    """Read until one of these was heard, the connection ends, or the time is over."""
    data = b""
    with trio.move_on_after(within_s), suppress(*GONE):
        while not any(mark in data for mark in marks):
            more = await stream.receive_some(READ_BYTES)
            if not more:
                break
            data += more
    return data


def note(found: Found, answer: bytes) -> bool:
    """Count how a request was answered; whether it was let in."""
    status = answer.split(b" ", 2)[1:2]
    name = status[0].decode("latin-1") if status else "no answer"
    found["busy" if b"event: busy" in answer else name] += 1
    return name in {"200", "101"} and b"event: busy" not in answer


class Pace:
    """So many a second, by all who share it."""

    def __init__(self, rate: float) -> None:
        self._step_s = 1 / rate
        self._next_s = trio.current_time()

    async def wait(self) -> None:
        """Wait for the next turn."""
        now_s = trio.current_time()
        self._next_s = max(self._next_s + self._step_s, now_s - self._step_s)
        await trio.sleep_until(self._next_s)


async def hold(
    target: Target,
    found: Found,
    requests: Callable[[int], bytes],
    *,
    count: int,
    rate: float = 200.0,
    reads: bool = False,
) -> None:
    """Hold so many connections for ever, each with its request; whoever is turned away comes again.

    One that does not read takes the head of its answer, and then nothing.
    """
    pace = Pace(rate)

    async def one(number: int) -> None:
        while True:
            await pace.wait()
            with suppress(*GONE):
                async with await target.dial(number, reads=reads) as stream:
                    await stream.send_all(requests(number))
                    if note(found, await heard(stream, b"\r\n\r\n")):
                        await (_read_on(stream) if reads else _stay(stream))
            await trio.sleep(PAUSE_S)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


async def _stay(stream: trio.SocketStream) -> None:
    """Keep a connection, and take nothing from it."""
    async with stream:
        await trio.sleep_forever()


async def _read_on(stream: trio.SocketStream) -> None:
    while await stream.receive_some(READ_BYTES):
        pass
