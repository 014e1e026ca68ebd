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
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.events import Closed
from hypercorn.trio.tcp_server import TCPServer

from komas.web.hypercorn.shutdown import present
from komas.web.hypercorn.tls_writer import TlsWriter

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper, LifespanState

SEND_DEADLINE_S: Final = 10.0
BOOKKEEPING_S: Final = 5.0
WRITE_BYTES: Final = 2**16  # within one deadline
CLIENT_LEFT: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_NOTHING: Final = memoryview(b"")  # of no chunk: a view keeps all of what it is of


class SocketWriter(TCPServer):
    """A connection as a ``Writer``."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(app, config, context, state, stream)
        run = present()
        assert run is not None  # install() began it
        self._run = run
        self._is_plain = isinstance(self.stream, trio.SocketStream) and sys.platform != "win32"
        self._tls = TlsWriter.over(self.stream)
        self._rest = _NOTHING
        self._sending: trio.CancelScope | None = None
        self._part_s = SEND_DEADLINE_S
        self._is_lost = False
        self._in_one_go = 0  # bytes that were written since others could run

    def write_nowait(self, data: bytes) -> int:
        """Write what the socket takes at once; returns how many bytes are left.

        Nothing is taken while something else is being written. A rest of what was begun is kept, and goes before
        everything else: with the next write of anybody, or with ``flush()``.
        """
        if self._rest or self.send_lock.locked():
            return len(data)
        if self._tls is not None:
            return self._tls.write_nowait(data)
        try:
            # Asked for each time: a closed socket has none, and its old one may be another client's by now.
            written = os.write(self.stream.socket.fileno(), data)
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
        return self._is_plain or self._tls is not None

    @property
    def _has_rest(self) -> bool:
        return bool(self._rest if self._tls is None else self._tls.rest)

    def hurry_writes(self, seconds: float) -> None:
        """Give each part that is written, from the present one on, no more time than that."""
        self._part_s = min(self._part_s, seconds)
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, self._by(self._part_s))

    async def write(self, data: bytes) -> None:
        """Write all, in parts that have a deadline each; a connection that does not take one is lost.

        What the socket takes at once is written at once; others run after ``WRITE_BYTES`` of that.
        """
        if self.can_write_at_once and data and not self._is_lost:
            begun = len(data) - self.write_nowait(data)
            if begun:
                data = b""  # the rest, if there is one, is kept
                self._in_one_go += begun
                if not self._has_rest:
                    if self._in_one_go >= WRITE_BYTES:
                        self._in_one_go = 0
                        await trio.lowlevel.checkpoint()
                    return
        self._in_one_go = 0
        written = False
        async with self.send_lock:
            if self._is_lost:
                return  # who was told to go may still have something to say
            with trio.move_on_at(self._by(self._part_s), shield=True) as scope, suppress(*CLIENT_LEFT):
                self._sending = scope
                if self._tls is not None:
                    await self._tls.flush()
                for waiting in (self._rest, memoryview(data)):
                    for begin in range(0, len(waiting), WRITE_BYTES):
                        await self.stream.send_all(waiting[begin : begin + WRITE_BYTES])
                        scope.deadline = self._by(self._part_s)
                self._rest = _NOTHING
                written = True
            self._sending = None
        if not written:
            # Half of it may be out: nothing that follows could be understood.
            self._is_lost = True
            self._run.cut_off += scope.cancelled_caught
            await trio.aclose_forcefully(self.stream)
            with trio.move_on_at(self._by(BOOKKEEPING_S), shield=True):
                await self.protocol.handle(Closed())

    def _by(self, seconds: float) -> float:
        return self._run.deadline(seconds, self.config.graceful_timeout)
