"""How a connection is written to: with a deadline, and without waiting for those who framed their bytes already.

* A write to a client that stopped reading was shielded and had no deadline, so that it held up shutdown for ever: here
  it has ``SEND_DEADLINE_S``, and less once the server drains.
* A client that had left while a write to it waited kept all that was its own until that deadline, and each later write
  waited anew: here the write is hurried, and nothing is written to a connection that is lost.
* Each write went through Hypercorn's whole protocol, which costs thirty times the system call: here the application is
  offered the connection itself.
* Each write had a lock and a deadline, whether or not it had to wait: here what the socket takes at once needs neither.

Replaces: writing in ``hypercorn.trio.tcp_server.TCPServer``.
Upstream: https://github.com/pgjones/hypercorn/pull/262 (a ``write_timeout``, withdrawn by its author). Of writing past
the protocol, none is known to us.
Goes when these pass without it:
    tests/web/hypercorn/test_socket_writer.py::test_a_client_that_does_not_read_is_cut_off
    tests/web/hypercorn/test_tcp_connection.py::test_all_writes_after_a_stop_share_one_deadline
    tests/web/hypercorn/test_tcp_connection.py::test_a_write_to_who_sends_no_more_is_hurried
    tests/e2e/test_line.py::test_it_stops_whatever_clients_do
and when ``python -m benchmarks fanout`` is as fast without it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from komas.reading import CLIENT_LEFT, is_plain_socket, read_some
from komas.web.hypercorn.peers import Stream, socket_of
from komas.web.hypercorn.shutdown import Run
from komas.web.hypercorn.tls_writer import TlsWriter

SEND_DEADLINE_S: Final = 10.0
BOOKKEEPING_S: Final = 5.0
LAST_WORDS_S: Final = 0.5  # for answers to requests that came right before the end of the connection
LEFT_S: Final = 1.0  # for each part of what is still being written to a client that sends no more
WRITE_BYTES: Final = 2**16  # within one deadline
_PART: Final = "_sock"  # of Trio's socket: the one of the standard library
_NOTHING: Final = memoryview(b"")  # of no chunk: a view keeps all of what it is of


def _send_of(stream: Stream) -> Callable[[bytes], int]:
    """A socket's own ``send()``: Trio's waits, and a closed socket has no number that could be another one's by now.

    It is a private part of Trio's socket: where there is none, the number is asked for each time.
    """
    below = getattr(stream.socket, _PART, None) if isinstance(stream, trio.SocketStream) else None
    return below.send if isinstance(below, socket.socket) else partial(_write, stream)


def _write(stream: Stream, data: bytes) -> int:
    return os.write(socket_of(stream).fileno(), data)


class SocketWriter:
    """What writes to one connection: a ``Writer``.

    ``lost`` is awaited once a write was not taken; while the server drains, nothing has more time than ``grace_s``.
    """

    __slots__ = (
        "_grace_s",
        "_in_one_go",
        "_lock",
        "_part_s",
        "_rest",
        "_run",
        "_send",
        "_sending",
        "_tls",
        "is_lost",
        "is_plain",
        "lost",
        "stream",
    )

    def __init__(self, stream: Stream, run: Run, grace_s: float) -> None:
        self.stream = stream
        self.lost: Callable[[], Awaitable[None]] | None = None
        self.is_lost = False  # nothing more is written
        self.is_plain = is_plain_socket(stream)
        self._run = run
        self._grace_s = grace_s
        self._tls = TlsWriter.over(stream)
        self._send = _send_of(stream)
        self._rest = _NOTHING
        self._lock: trio.Lock | None = None  # most of those who stay never wait
        self._sending: trio.CancelScope | None = None
        self._part_s = SEND_DEADLINE_S
        self._in_one_go = 0  # bytes that were written since others could run

    def write_nowait(self, data: bytes) -> int:
        """Write what the socket takes at once; returns how many bytes are left.

        Nothing is taken while something else is being written. A rest of what was begun is kept, and goes before
        everything else: with the next write of anybody, or with ``flush()``.
        """
        if self._rest or (self._lock is not None and self._lock.locked()):
            return len(data)
        if self._tls is not None:
            return self._tls.write_nowait(data)
        try:
            written = self._send(data)
        except OSError:
            return len(data)  # it takes nothing now, or is gone, which the next waiting write finds out
        left = len(data) - written
        self._rest = memoryview(data)[written:] if left else _NOTHING
        return left

    async def flush(self) -> bool:
        """Write the rest of what was begun, as any other write; whether there was one."""
        if not self._has_rest:
            return False
        await self.write(b"")
        return True

    @property
    def can_write_at_once(self) -> bool:
        """Whether ``write_nowait()`` may be asked."""
        return self.is_plain or self._tls is not None

    @property
    def _has_rest(self) -> bool:
        return bool(self._rest if self._tls is None else self._tls.rest)

    def hurry_parts(self, seconds: float) -> None:
        """Give each part that is written, from the present one on, no more time than that."""
        self._part_s = min(self._part_s, seconds)
        self.hurry(self._part_s)

    def hurry(self, seconds: float = SEND_DEADLINE_S) -> None:
        """Give what is being written no more time than that, and less where the server drains."""
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, self.by(seconds))

    async def read(self) -> bytes:
        """Read some bytes; none at the end.

        Behind our farewell TLS may refuse what the client still says: it is read all the same, and dropped.
        """
        data = await read_some(self.stream, is_plain=self.is_plain)
        if data or self._tls is None or not self._tls.has_ended:
            return data
        return await read_some(self._tls, is_plain=False)

    def give_way(self) -> None:
        """Close at once."""
        self.stream.socket.close()

    async def end(self) -> None:
        """Write no more, and read on; Trio's TLS cannot be half closed, ours says farewell."""
        with suppress(*CLIENT_LEFT, AttributeError):
            await (self.stream if self._tls is None else self._tls).send_eof()

    async def close(self) -> None:
        """Close behind all that was written; under TLS with a farewell."""
        with trio.move_on_at(self.by(BOOKKEEPING_S), shield=True), suppress(*CLIENT_LEFT):
            await self.stream.aclose()

    async def write(self, data: bytes) -> None:
        """Write all, in parts that have a deadline each; a connection that does not take one is lost.

        What the socket takes at once is written at once; others run after ``WRITE_BYTES`` of that.
        """
        begun = self._begin(data)
        self._in_one_go += begun
        if begun and not self._has_rest and self._in_one_go < WRITE_BYTES:
            return
        self._in_one_go = 0
        if begun and not self._has_rest:
            await trio.lowlevel.checkpoint()
        else:
            await self._write_waiting(b"" if begun else data)  # the rest, if there is one, is kept

    def _begin(self, data: bytes) -> int:
        """Write what is taken at once; returns how much of it is not to be written any more."""
        if self.is_lost or not data or not self.can_write_at_once:
            return 0
        return len(data) - self.write_nowait(data)

    async def _write_waiting(self, data: bytes) -> None:
        written = False
        self._lock = self._lock or trio.Lock()
        async with self._lock:
            if self.is_lost:
                return  # who was told to go may still have something to say
            with trio.move_on_at(self.by(self._part_s), shield=True) as scope, suppress(*CLIENT_LEFT):
                self._sending = scope
                if self._tls is not None:
                    await self._tls.flush()
                for waiting in (self._rest, memoryview(data)):
                    for begin in range(0, len(waiting), WRITE_BYTES):
                        await self.stream.send_all(waiting[begin : begin + WRITE_BYTES])
                        scope.deadline = self.by(self._part_s)
                self._rest = _NOTHING
                written = True
            self._sending = None
        if not written:
            # Half of it may be out: nothing that follows could be understood.
            self.is_lost = True
            self._run.cut_off += scope.cancelled_caught
            await trio.aclose_forcefully(self.stream)
            if self.lost is not None:
                with trio.move_on_at(self.by(BOOKKEEPING_S), shield=True):
                    await self.lost()

    def by(self, seconds: float) -> float:
        """When what may take so long is given up."""
        return self._run.deadline(seconds, self._grace_s)

    def let_go(self) -> None:
        """Forget what leads back to this."""
        self.lost = None
        if self._tls is not None:
            self._tls.let_go()
