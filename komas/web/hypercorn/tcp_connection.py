"""One client's connection: its failure is its own, its end is seen at once, and what is owed to it is answered.

* An exception in one connection's protocol code ended the whole server: here it ends that connection, and is logged.
* The end of a response was cancelled together with Quart-Trio's request, so that keep-alive timeouts and
  ``Connection: close`` did nothing: here the end of a response is shielded, and bounded.
* A client that had left kept its socket until the keep-alive time was over, and was not noticed at all behind a
  pipelined request: here the end of a connection is seen at once.
* A client that was answered while it still sent lost the answer to a reset: here it is heard out for a while, and so is
  the client of a WebSocket that we close.
* The head of a request could come a byte at a time, for as long as the keep-alive time: here within ``HEAD_S``.
* As many connections were taken as a client opened: here a connection has a place from the start (``places.py``), or is
  closed at once. It is no answer, for an EventSource gives up on any status but 200, and comes back after a cut.
* What every connection keeps while nothing comes (a lock around its idle task, five steps of a read) is less.

Replaces: ``hypercorn.trio.tcp_server.TCPServer``, as ``hypercorn.trio.run`` knows it, but for how it writes
(``socket_writer.py``).
Upstream: https://github.com/pgjones/hypercorn/issues/225 (a failure ends the server) and
https://github.com/pgjones/hypercorn/pull/228 (its remedy: merged, and not in 0.18.0). Of the others, none is known to
us.
Goes when these pass without it:
    tests/web/hypercorn/test_tcp_connection.py::test_a_failure_of_protocol_code_costs_one_connection
    tests/web/hypercorn/test_tcp_connection.py::test_one_address_has_so_many_connections_and_no_more
    tests/e2e/test_rude.py::test_connection_close_closes_and_keep_alive_keeps
    tests/e2e/test_rude.py::test_an_idle_connection_is_closed_on_time
    tests/e2e/test_rude.py::test_a_client_that_has_left_keeps_no_socket_open
    tests/e2e/test_rude.py::test_an_early_answer_is_read_by_a_client_that_sends_on
    tests/e2e/test_signals.py::test_after_a_breach_the_server_closes_first
    tests/e2e/test_rude.py::test_what_was_asked_right_before_half_a_close_is_answered
    tests/e2e/test_rude.py::test_the_head_of_a_request_has_five_seconds
    tests/e2e/test_rude.py::test_who_offered_another_protocol_and_leaves_keeps_no_task
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import LifespanState

from komas.reading import CLIENT_LEFT
from komas.web.hypercorn.exposure import is_exposed
from komas.web.hypercorn.lasting_response import LastingResponse
from komas.web.hypercorn.lasting_socket import LINGER_S, LastingSocket
from komas.web.hypercorn.peers import peer_of, socket_of
from komas.web.hypercorn.shutdown import present
from komas.web.hypercorn.socket_writer import (
    BOOKKEEPING_S,
    LAST_WORDS_S,
    LEFT_S,
    SEND_DEADLINE_S,
    SocketWriter,
)
from komas.web.hypercorn.transport import ClientTransport, Conversation, Ended, LastingBody, with_transport
from komas.web.hypercorn.websocket_stream import WebSocketStream

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper, TaskGroup

Lasting: TypeAlias = LastingResponse | LastingSocket  # what a connection goes on as

HEAD_S: Final = 5.0  # from the first byte of a request, or from a connection that sends none, to the whole head
ANSWER_S: Final = 5.0  # for one of these whose response has not begun: it waits for the exchange, or for a database
HEAD_END: Final = b"\r\n\r\n"
_MAY_SWITCH: Final = re.compile(rb"^connect |\nupgrade", re.IGNORECASE)  # h11 then pauses until it is answered
_ABORTS: Final = (trio.Cancelled, KeyboardInterrupt, SystemExit)


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


class TCPConnection(TCPServer):
    """One client's connection, from its first byte to its end, or until a response that has no end has begun."""

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
        self._writer = SocketWriter(self.stream, run, config.graceful_timeout)
        self._by = self._writer.by
        self._taking_over = trio.CancelScope()
        self._lasting: Lasting | None = None

    def __await__(self) -> Generator[Any, None, Lasting | None]:  # type: ignore[override]  # Hypercorn's has no result
        """Serve the connection until its end, or until what is returned is all that is left to do."""
        return self._serve().__await__()

    async def _serve(self) -> Lasting | None:
        await self.run()
        return self._lasting

    async def run(self) -> None:
        """Serve the connection; whatever goes wrong in it stays in it."""
        run = self._run
        if (reason := run.places.enter(self, peer_of(self.stream))) is not None:
            run.refuse(reason)
            return  # which closes it
        if run.is_exposed is None:
            run.is_exposed = is_exposed(self.config)
        writer = self._writer
        writer.lost = self._note_lost
        transport = ClientTransport(
            writer=writer if writer.can_write_at_once else None,
            take_over=self._take_over if writer.can_write_at_once else None,
            converse_in=self._converse_in if writer.can_write_at_once else None,
            hurry_writes=writer.hurry_parts,
        )
        self.state = LifespanState(with_transport(self.state, transport))
        self.idle_task = _IdleTask()  # type: ignore[assignment]  # Hypercorn's has a lock, to wait for what need not wait
        self._has_left = False
        self._is_idle = True
        self._head_by = math.inf
        self._has_ended = False
        self._hearing: trio.CancelScope | None = None
        self._reader: trio.lowlevel.Task | None = None
        self._taken: trio.MemoryReceiveChannel[bytes] | None = None
        self._unread: list[bytes] = []
        try:
            with self._taking_over:
                await super().run()
        except _ABORTS:
            raise
        except trio.ClosedResourceError:
            pass  # it gave way in the middle of its TLS handshake
        except BaseExceptionGroup as group:
            aborts, failures = group.split(_ABORTS)
            if failures is not None:
                run.complain(failures)
            if aborts is not None:
                raise aborts from None
        except Exception as error:  # noqa: BLE001 - protocol code fails in many ways over what a client can send
            run.complain(error)
        finally:
            if self._lasting is None:
                run.places.leave(self)
            self._let_go()

    def _let_go(self) -> None:
        """Forget what leads back to this: a connection is freed when it ends, not when the collector looks next."""
        self.state = LifespanState({})
        self._reader = None
        if self._lasting is None:
            self._writer.let_go()
        del self._by
        with suppress(AttributeError):
            if self._lasting is not None and isinstance(self.protocol.protocol, H11Protocol):
                self.protocol.protocol.stream = None  # whose response has not ended
            del self.protocol  # there is none where the client left before it was heard

    def _take_over(self, body: LastingBody, ended: Ended | None = None) -> None:
        """Leave HTTP's objects and tasks behind: the response has begun, and has no end."""
        self._go_on_as(LastingResponse(body, self._writer, self._run, ended))

    def _converse_in(self, conversation: Conversation) -> None:
        """The same, where a WebSocket was accepted."""
        websocket = self._websocket()
        assert websocket is not None
        assert isinstance(self.protocol.protocol, H11Protocol)
        stream = self.protocol.protocol.stream
        assert isinstance(stream, WebSocketStream)
        self._unread = [bytes(websocket.buffer)] if websocket.buffer else []
        websocket.buffer.clear()
        if self._taken is not None:
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    self._unread.append(self._taken.receive_nowait())
        self._go_on_as(LastingSocket(conversation, stream, self._writer, self._run, self._unread))

    def _go_on_as(self, lasting: Lasting) -> None:
        self._writer.lost = None
        self._lasting = lasting
        self._run.places.hand_over(self, self._writer)
        self._taking_over.cancel("the connection does without a request")

    async def _close(self) -> None:
        if self._lasting is None:
            await super()._close()

    async def _note_lost(self) -> None:
        await self.protocol.handle(Closed())

    def give_way(self) -> None:
        """Close at once: it is idle, and its place is needed."""
        socket_of(self.stream).close()

    def hurry(self) -> None:
        """Give the write that is under way, or the request that is still being sent, little more time."""
        self._writer.hurry()
        soon = self._by(SEND_DEADLINE_S)
        if self._hearing is not None:
            self._hearing.deadline = min(self._hearing.deadline, soon)
        if self._is_half_asked() and self._task_group._nursery is not None:  # noqa: SLF001 - hypercorn offers no other way
            self._task_group._nursery.cancel_scope.deadline = soon  # noqa: SLF001

    def _is_half_asked(self) -> bool:
        protocol = getattr(getattr(self, "protocol", None), "protocol", None)
        return isinstance(protocol, H11Protocol) and protocol.connection.their_state is h11.SEND_BODY

    def _may_send_on(self) -> bool:
        """Whether more may come from a client that we have closed with."""
        protocol = self.protocol.protocol
        is_refused = isinstance(protocol, H11Protocol) and protocol.connection.their_state is h11.ERROR
        return is_refused or self._is_half_asked() or self._websocket() is not None

    def _is_unanswered(self) -> bool:
        """Whether a whole request has come, and nothing of the response to it has been sent."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and protocol.connection.our_state is h11.SEND_RESPONSE

    def _is_switched(self) -> bool:
        """Whether it is a WebSocket by now: who has left one is owed nothing. A handshake is answered."""
        websocket = self._websocket()
        return websocket is not None and websocket.h11_connection.our_state is h11.SWITCHED_PROTOCOL

    def _websocket(self) -> H11WSConnection | None:
        """What Hypercorn puts in h11's place once a handshake has come."""
        protocol = self.protocol.protocol
        connection = protocol.connection if isinstance(protocol, H11Protocol) else None
        return connection if isinstance(connection, H11WSConnection) else None

    async def _read_data(self) -> None:
        """Read until the client has left, and say so at once, also while an earlier request of it is still answered.

        Hypercorn reads nothing while a pipelined request waits for the response before it, so a client that left was
        noticed at the next write. (One that has sent more than two reads ahead still is: it is not read any further.)
        And Hypercorn kept the socket of a client that had left until the keep-alive time was over.
        """
        self._reader = trio.lowlevel.current_task()
        self._head_by = trio.current_time() + HEAD_S  # a TLS handshake has had its own time
        if data := await self._read_requests():
            await self._read_on(data)
        self._has_left = True
        # A whole answer may still be taken by who has sent no more; who leaves a WebSocket is owed nothing.
        self._writer.hurry_parts(0 if self._is_switched() else LEFT_S)
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
                    if self._lasting is not None:
                        self._unread.append(data)  # it came in the same moment
                        return
                    with suppress(
                        trio.BrokenResourceError
                    ):  # the application no longer reads: the client's input is drained
                        await handed.send(data)
                    data = await self._receive()
            self._note_end()
            is_busy = self._taken.statistics().tasks_waiting_receive == 0  # with what came last, or with what is before
            await self._say_last_words(is_owed=not self._is_switched() and (is_busy or not self._is_idle))
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
                await trio.sleep(LAST_WORDS_S / 5)  # until what came last is known for what it is
                while self._is_unanswered() and not self._writer.is_lost:  # noqa: ASYNC110 - h11 has no event for it
                    await trio.sleep(LAST_WORDS_S / 5)
        await trio.sleep(LAST_WORDS_S if is_owed and not self._writer.is_lost else 0)

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
                data = await self._writer.read()
                if self._is_idle:
                    self._head_by = trio.current_time() + HEAD_S  # which is put off once the head is whole
                return data
            with trio.move_on_at(self._head_by):
                return await self._writer.read()
        return b""

    async def protocol_send(self, event: Event) -> None:
        """Write bytes within the deadline, or finish the bookkeeping of a response although its task is cancelled."""
        if isinstance(event, RawData):
            await self._writer.write(event.data)
            return
        if isinstance(event, Updated):
            self._is_idle = event.idle
            self._head_by = math.inf
            if event.idle:
                self._run.places.note_idle(self)
            else:
                self._run.places.note_busy(self)
            if self._has_left:
                return  # a response that ended after its client had left would start the keep-alive time anew
        with trio.move_on_at(self._by(BOOKKEEPING_S), shield=True):
            if isinstance(event, Closed):
                await self._hear_out()
                self._writer.is_lost = True  # as good as: nothing more is written
            await super().protocol_send(event)

    async def _hear_out(self) -> None:
        """Read on from a client that may still send, until it has closed: closing at once would destroy our last words.

        TCP resets a connection that is closed with unread bytes, and a reset discards what the client has not yet read.
        RFC 6455, 7.1.1, asks for the same at the end of a WebSocket: the server closes first, and reads until the end.
        """
        if self._has_ended or not self._may_send_on():
            return
        if self._taken is not None:
            self._taken.close()  # the reader goes on, and drops what it reads
        with trio.move_on_at(self._by(LINGER_S)) as self._hearing, suppress(*CLIENT_LEFT):
            await self._writer.end()
            if trio.lowlevel.current_task() is not self._reader:
                await trio.sleep_forever()
            while await self._writer.read():
                continue  # it is for us to read, who would read otherwise
