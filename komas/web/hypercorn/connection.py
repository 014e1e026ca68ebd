"""Our Hypercorn connection: one bad packet costs one connection, writes have a deadline, the app hears of draining.

Hypercorn's Trio worker is replaced in a few places, all of them by ``install()``, which says so loudly where they are
no longer there (hypercorn is pinned in pyproject.toml):

* an exception in one connection's protocol code ended the whole server (hypercorn#225, #228): here it ends that
  connection, and is logged with a limit on the rate, because the client decides how often it happens;
* a write to a client that stopped reading was shielded and had no deadline, so that it held up shutdown for ever: here
  it has ``SEND_DEADLINE_S``, and ``HURRIED_DEADLINE_S`` once the server drains;
* the end of a response was cancelled together with Quart-Trio's request, so that keep-alive timeouts and
  ``Connection: close`` did nothing: here the end of a response is shielded, and bounded;
* a client that had left kept its socket until the keep-alive time was over, and was not noticed at all behind a
  pipelined request: here the end of a connection is seen at once;
* a WebSocket that broke the protocol, or whose handshake was bad, got no close frame or was left open: ``socket.py``;
* the head of a request could come a byte at a time, for as long as the keep-alive time: here within ``HEAD_S``;
* each write went through Hypercorn's whole protocol, which costs thirty times the system call: here the application is
  offered the connection itself, to write what is framed already;
* a request without a body had three tasks: here it has one (``request.py``), and what every connection keeps while
  nothing comes (a lock around its idle task, five steps of a read) is less;
* HTTP/2 over clear text (by prior knowledge or ``Upgrade: h2c``) has no backpressure: here it is not spoken.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

import h11
import hypercorn.protocol.h11 as hypercorn_h11
import hypercorn.trio.run as hypercorn_run
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import LifespanState
from hypercorn.utils import ShutdownError

from komas.observability.logs import LogLimit
from komas.web.access import is_beyond_loopback, is_loopback
from komas.web.hypercorn.request import RequestStream
from komas.web.hypercorn.websocket import SCOPE_CONNECTION, AccessLog, Socket

if TYPE_CHECKING:
    from hypercorn.typing import TaskGroup

log = logging.getLogger(__name__)

SEND_DEADLINE_S: Final = 10.0
HURRIED_DEADLINE_S: Final = 1.0
LAST_WRITE_S: Final = 0.1  # once the time for draining is over: a client that reads at once still gets it
BOOKKEEPING_S: Final = 5.0
HEAD_S: Final = 5.0  # from the first byte of a request, or from a connection that sends none, to the whole head
LINGER_S: Final = 2.0  # how long a client that is still sending its request is heard out, so that it reads our answer
COMPLAIN_EVERY_S: Final = 10.0
LAST_WORDS_S: Final = 0.5  # for answers to requests that came right before the end of the connection
ANSWER_S: Final = 5.0  # for one of these whose response has not begun: it waits for the exchange, or for a database
READ_BYTES: Final = 2**16
WRITE_BYTES: Final = 2**16  # within one deadline
NOTHING: Final = memoryview(b"")  # of no chunk: a view keeps all of what it is of
HEAD_END: Final = b"\r\n\r\n"
_MAY_SWITCH: Final = re.compile(rb"^connect |\nupgrade", re.IGNORECASE)  # h11 then pauses until it is answered

_CLIENT_LEFT: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_ABORTS: Final = (trio.Cancelled, KeyboardInterrupt, SystemExit)


class Run:
    """One run of the server under Hypercorn: what its connections share, and how it is stopped."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.is_exposed: bool | None = None  # whether anything is bound beyond loopback, once a connection has come
        self.draining = trio.Event()
        self.draining_since = math.inf
        self.log_limit = LogLimit(COMPLAIN_EVERY_S)
        self.crashes = 0
        self._stop = trio.Event()

    def stop(self, cause: str) -> None:
        """Ask Hypercorn to stop, as its own ``shutdown_trigger`` does; ``cause`` is for the log."""
        log.info("stopping", extra={"signal": cause})
        self._stop.set()

    def drain(self) -> None:
        """Hypercorn has begun to stop: hurry the writes that are under way."""
        if not self.draining.is_set():
            self.draining_since = trio.current_time()
            self.draining.set()
            for connection in self.connections:
                connection.hurry()

    async def raise_shutdown(self, shutdown_event: Callable[[], Awaitable[object]]) -> NoReturn:
        """Raise Hypercorn's ``ShutdownError`` after its own event, or after ``stop()``; then draining begins."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_stop, nursery.cancel_scope)
                await shutdown_event()
                nursery.cancel_scope.cancel("the shutdown event has come")
        finally:
            self.drain()
        raise ShutdownError

    async def _cancel_at_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel("stop() was called")


_present: trio.lowlevel.RunVar[Run | None] = trio.lowlevel.RunVar("komas.web.hypercorn.connection", None)


def present() -> Run | None:
    """The server that runs in this ``trio.run()``; ``None`` before ``install()``."""
    return _present.get()


async def _raise_shutdown(shutdown_event: Callable[[], Awaitable[object]]) -> NoReturn:
    run = _present.get()
    assert run is not None
    await run.raise_shutdown(shutdown_event)


class _IdleTask:
    """The task that ends an idle connection, as Hypercorn starts and stops it."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None

    async def restart(self, tasks: TaskGroup, action: Callable[[], Awaitable[None]]) -> None:
        """Begin anew."""
        await self.stop()
        self._scope = trio.CancelScope()
        tasks.spawn(self._run, self._scope, action)

    async def stop(self) -> None:
        """End it."""
        if self._scope is not None:
            self._scope.cancel("the connection is not idle any more")
            self._scope = None

    @staticmethod
    async def _run(scope: trio.CancelScope, action: Callable[[], Awaitable[None]]) -> None:
        with scope:
            await action()


class Connection(TCPServer):
    """One client's connection; the application finds it in its scope's state, where it can be written to at once."""

    async def run(self) -> None:
        """Serve the connection; whatever goes wrong in it stays in it."""
        server = _present.get()
        assert server is not None
        self._server = server
        if server.is_exposed is None:
            server.is_exposed = is_exposed(self.config)
        self._is_plain = isinstance(self.stream, trio.SocketStream) and sys.platform != "win32"
        if self._is_plain:
            self.state = LifespanState({**self.state, SCOPE_CONNECTION: self})
        self.idle_task = _IdleTask()  # type: ignore[assignment]  # Hypercorn's has a lock, to wait for what need not wait
        self._rest = NOTHING
        self._sending: trio.CancelScope | None = None
        self._has_left = False
        self._is_lost = False
        self._is_idle = True
        self._head_by = math.inf
        self._has_ended = False
        self._hearing: trio.CancelScope | None = None
        self._taken: trio.MemoryReceiveChannel[bytes] | None = None
        self._server.connections.add(self)
        try:
            await super().run()
        except _ABORTS:
            raise
        except BaseExceptionGroup as group:
            aborts, failures = group.split(_ABORTS)
            if failures is not None:
                self._complain(failures)
            if aborts is not None:
                raise aborts from None
        except Exception as error:  # noqa: BLE001 - protocol code fails in many ways over what a client can send
            self._complain(error)
        finally:
            self._server.connections.discard(self)

    def write_nowait(self, data: bytes) -> int:
        """Write what the socket takes at once; returns how many bytes are left.

        Nothing is taken while something else is being written. A rest of what was begun is kept, and goes before
        everything else: with the next write of anybody, or with ``flush()``.
        """
        if self._rest or self.send_lock.locked():
            return len(data)
        try:
            # Asked for each time: a closed socket has none, and its old one may be another client's by now.
            written = os.write(self.stream.socket.fileno(), data)
        except OSError:
            return len(data)  # it takes nothing now, or is gone, which the next waiting write finds out
        left = len(data) - written
        self._rest = memoryview(data)[written:] if left else NOTHING
        return left

    async def flush(self) -> bool:
        """Write the rest of what was begun, as any other write; whether there was one."""
        if not self._rest:
            return False
        await self._write(b"")
        return True

    def hurry(self) -> None:
        """Give the write that is under way, or the request that is still being sent, little more time."""
        soon = self._by(SEND_DEADLINE_S)
        for scope in (self._sending, self._hearing):
            if scope is not None:
                scope.deadline = min(scope.deadline, soon)
        if self._is_half_asked() and self._task_group._nursery is not None:  # noqa: SLF001 - hypercorn offers no other way
            self._task_group._nursery.cancel_scope.deadline = soon  # noqa: SLF001

    def _is_half_asked(self) -> bool:
        protocol = getattr(getattr(self, "protocol", None), "protocol", None)
        return isinstance(protocol, H11Protocol) and protocol.connection.their_state is h11.SEND_BODY

    def _is_unanswered(self) -> bool:
        """Whether a whole request has come, and nothing of the response to it has been sent."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and protocol.connection.our_state is h11.SEND_RESPONSE

    def _is_switched(self) -> bool:
        """Whether it is a WebSocket by now: who has left one is owed nothing."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and not isinstance(protocol.connection, h11.Connection)

    async def _read_data(self) -> None:
        """Read until the client has left, and say so at once, also while an earlier request of it is still answered.

        Hypercorn reads nothing while a pipelined request waits for the response before it, so a client that left was
        noticed at the next write. (One that has sent more than two reads ahead still is: it is not read any further.)
        And Hypercorn kept the socket of a client that had left until the keep-alive time was over.
        """
        self._head_by = trio.current_time() + HEAD_S  # a TLS handshake has had its own time
        if data := await self._read_requests():
            await self._read_on(data)
        self._has_left = True
        with trio.move_on_at(self._by(BOOKKEEPING_S), shield=True):
            await self.protocol.handle(Closed())
        await self.idle_task.stop()

    async def _read_requests(self) -> bytes:
        """Read whole requests, each after the response to the one before; returns what is something else."""
        while data := await self._receive():
            is_whole = data.endswith(HEAD_END) and data.index(HEAD_END) == len(data) - len(HEAD_END)
            if not self._is_idle or not is_whole or _MAY_SWITCH.search(data) is not None:
                return data
            await self.protocol.handle(RawData(data))  # which does not block
        self._note_end()
        await self._say_last_words(is_owed=not self._is_idle)
        return b""

    async def _read_on(self, data: bytes) -> None:
        """Read anything: a task of its own hands it on, and may have to wait."""
        handed, self._taken = trio.open_memory_channel[bytes](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._handle_data, self._taken)
            with handed:
                while data:
                    with suppress(
                        trio.BrokenResourceError
                    ):  # the application no longer reads: the client's input is drained
                        await handed.send(data)
                    data = await self._receive()
            self._note_end()
            waits = self._taken.statistics().current_buffer_used > 0
            await self._say_last_words(is_owed=not self._is_switched() and (waits or not self._is_idle))
            nursery.cancel_scope.cancel("the client has left")

    def _note_end(self) -> None:
        """The client sends no more."""
        self._has_ended = True
        if self._hearing is not None:
            self._hearing.cancel("it has ended")

    async def _say_last_words(self, *, is_owed: bool) -> None:
        """Half a close comes right after a request: what was asked for is answered, if it can be soon.

        A response has ``ANSWER_S`` to begin, and ``LAST_WORDS_S`` from then on, for an event stream has no end.
        """
        if is_owed:
            with trio.move_on_at(self._by(ANSWER_S)):
                while self._is_unanswered() and not self._is_lost:  # noqa: ASYNC110 - h11 has no event for it
                    await trio.sleep(LAST_WORDS_S / 5)
        await trio.sleep(LAST_WORDS_S if is_owed and not self._is_lost else 0)

    async def _handle_data(self, taken: trio.MemoryReceiveChannel[bytes]) -> None:
        while True:
            try:
                data = await taken.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                return
            await self.protocol.handle(RawData(data))

    async def _receive(self) -> bytes:
        """Some bytes; none at the end, or when the head of a request takes too long."""
        while trio.current_time() < self._head_by:
            if self._head_by == math.inf:
                data = await self._read_some()
                if self._is_idle:
                    self._head_by = trio.current_time() + HEAD_S  # which is put off once the head is whole
                return data
            with trio.move_on_at(self._head_by):
                return await self._read_some()
        return b""

    async def _read_some(self) -> bytes:
        with suppress(*_CLIENT_LEFT, OSError):
            if not self._is_plain:
                return bytes(await self.stream.receive_some(READ_BYTES))
            # As the stream would, in fewer steps, all of which are kept while nothing comes.
            while (number := self.stream.socket.fileno()) >= 0:
                await trio.lowlevel.wait_readable(number)
                with suppress(BlockingIOError, InterruptedError):
                    return os.read(self.stream.socket.fileno(), READ_BYTES)
        return b""

    async def protocol_send(self, event: Event) -> None:
        """Write bytes within the deadline, or finish the bookkeeping of a response although its task is cancelled."""
        if isinstance(event, RawData):
            await self._write(event.data)
            return
        if isinstance(event, Updated):
            self._is_idle = event.idle
            self._head_by = math.inf
            if self._has_left:
                return  # a response that ended after its client had left would start the keep-alive time anew
        with trio.move_on_at(self._by(BOOKKEEPING_S), shield=True):
            if isinstance(event, Closed):
                await self._hear_out()
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        written = False
        async with self.send_lock:
            with trio.move_on_at(self._by(SEND_DEADLINE_S), shield=True) as scope, suppress(*_CLIENT_LEFT):
                self._sending = scope
                for waiting in (self._rest, memoryview(data)):
                    for begin in range(0, len(waiting), WRITE_BYTES):
                        await self.stream.send_all(waiting[begin : begin + WRITE_BYTES])
                        scope.deadline = self._by(SEND_DEADLINE_S)
                self._rest = NOTHING
                written = True
            self._sending = None
        if not written:
            # Half of it may be out: nothing that follows could be understood.
            self._is_lost = True
            await trio.aclose_forcefully(self.stream)
            with trio.move_on_at(self._by(BOOKKEEPING_S), shield=True):
                await self.protocol.handle(Closed())

    def _by(self, seconds: float) -> float:
        """When what may take so long is given up; while the server drains, no later than that may take, or hardly."""
        now, server = trio.current_time(), self._server
        if not server.draining.is_set():
            return now + seconds
        last = max(server.draining_since + self.config.graceful_timeout, now + LAST_WRITE_S)
        return min(now + min(seconds, HURRIED_DEADLINE_S), last)

    async def _hear_out(self) -> None:
        """Read on from a client that is answered while it still sends: closing at once would destroy the answer.

        TCP resets a connection that is closed with unread bytes, and a reset discards what the client has not yet read.
        """
        if self._has_ended or not self._is_half_asked():
            return
        if self._taken is not None:
            self._taken.close()  # the reader goes on, and drops what it reads
        with trio.move_on_at(self._by(LINGER_S)) as self._hearing, suppress(*_CLIENT_LEFT):
            with suppress(AttributeError):  # TLS cannot be half closed
                await self.stream.send_eof()
            await trio.sleep_forever()

    def _complain(self, error: BaseException) -> None:
        self._server.crashes += 1
        if self._server.log_limit.due(trio.current_time()) is not None:
            log.error("connection failed", exc_info=error, extra={"failed_in_all": self._server.crashes})


def is_exposed(config: Config) -> bool:
    """Whether Hypercorn listens where other machines can reach it."""
    return any(_is_beyond_loopback(bind) for bind in (*config.bind, *config.insecure_bind, *config.quic_bind))


def _is_beyond_loopback(bind: str) -> bool:
    if bind.startswith("unix:"):
        return False
    if bind.startswith("fd://"):  # inherited from the parent process, systemd as a rule
        with socket.socket(fileno=os.dup(int(bind.removeprefix("fd://")))) as listener:
            name = listener.getsockname()
        return listener.family != socket.AF_UNIX and not is_loopback(name[0])
    return is_beyond_loopback(bind)


async def _http1_only(_protocol: H11Protocol, _event: h11.Request) -> None:
    """Stay with HTTP/1.1: ``Upgrade: h2c`` is ignored (RFC 9110 allows it), HTTP/2 opens with an unknown method."""


def install() -> Run:
    """Put our parts in Hypercorn's place, for a server that is about to listen in this ``trio.run()``.

    Called within the run: by ``komas serve`` before it serves, by ``komas.asgi`` when its lifespan begins. Raises
    ``ImportError`` when Hypercorn no longer has a part that is replaced.
    """
    for owner, name, ours in (
        (hypercorn_run, "TCPServer", Connection),
        (hypercorn_run, "raise_shutdown", _raise_shutdown),
        (H11Protocol, "_check_protocol", _http1_only),
        (hypercorn_h11, "HTTPStream", RequestStream),
        (hypercorn_h11, "WSStream", Socket),
        (Config, "logger_class", AccessLog),
    ):
        if not hasattr(owner, name):
            raise ImportError(f"hypercorn has changed: {owner} has no {name}; komas needs the release it pins")
        setattr(owner, name, ours)
    run = Run()
    _present.set(run)
    return run
