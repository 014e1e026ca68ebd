"""A WebSocket that was accepted: its connection does without a request, and the conversation runs in its own task.

* A socket that waits for the next signal kept what had brought it there: Hypercorn's protocol and h11's, the handshake
  as ASGI and as Quart have it, two queues, and three tasks that handed on what came. Here all of that ends once the
  handshake is answered. What is left is what writes, what parses frames, the conversation, and a task that reads.

Replaces: nothing; ``TCPConnection`` ends in it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/e2e/test_lasting_socket.py::test_a_socket_that_waits_is_two_tasks
and when ``python -m benchmarks signals`` shows as little memory for an idle socket without it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.protocol.events import Data, Event, StreamClosed

from komas.hub.broadcast import Writer
from komas.web.hypercorn.shutdown import Run
from komas.web.hypercorn.socket_writer import SocketWriter
from komas.web.hypercorn.transport import Conversation, Heard

if TYPE_CHECKING:
    from komas.web.hypercorn.websocket_stream import WebSocketStream

log = logging.getLogger(__name__)

LINGER_S: Final = 2.0  # how long a client is heard out that we have closed with, so that it reads our last words
_STREAM_ID: Final = 1  # Hypercorn's, of all that is HTTP/1.1


class LastingSocket:
    """One client's WebSocket from its handshake on; ``run()`` in the task that served the connection until then.

    ``unread`` is what has come since, and was not parsed yet. It is what a conversation speaks with, too.
    """

    __slots__ = ("_conversation", "_ended", "_has_ended", "_run", "_stream", "_unread", "_writer")

    def __init__(
        self,
        conversation: Conversation,
        stream: WebSocketStream,
        writer: SocketWriter,
        run: Run,
        unread: Sequence[bytes],
    ) -> None:
        self._conversation: Conversation | None = conversation
        self._stream = stream
        self._writer = writer
        self._run = run
        self._unread = unread
        self._has_ended = False  # the client sends no more
        self._ended: trio.Event | None = None  # made for whoever waits for it
        stream.begin_anew(self._send)

    async def run(self) -> None:
        """Converse until the client leaves, or is left."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, name="socket reader")
                await self._converse()
                await self._stream.app_send(None)  # closes, and waits for the client to do so
                self._writer.is_lost = True  # as good as: nothing more is written
                await self._hear_out()
                await self._writer.close()
                nursery.cancel_scope.cancel("it is over")
        except* Exception as failures:  # noqa: BLE001 - protocol code fails in many ways over what a client can send
            self._run.complain(failures)
        finally:
            self._run.places.leave(self._writer)
            self._writer.let_go()
            self._stream.let_go()

    async def _converse(self) -> None:
        conversation, self._conversation = self._conversation, None
        assert conversation is not None  # it runs once
        try:
            with self._stream.leaving:
                running = conversation(self)
                del conversation  # what it was begun with may be secret, or large
                await running
        except Exception:
            log.exception("a conversation failed")  # which closes it with 1011

    async def _read(self) -> None:
        stream, writer = self._stream, self._writer
        unread, self._unread = self._unread, ()
        for data in unread:
            await stream.handle(Data(stream_id=_STREAM_ID, data=data))
        while data := await writer.read():
            await stream.handle(Data(stream_id=_STREAM_ID, data=data))
        self._has_ended = True
        if self._ended is not None:
            self._ended.set()
        writer.hurry_parts(0)  # who leaves a WebSocket is owed nothing
        await stream.handle(StreamClosed(stream_id=_STREAM_ID))

    async def _send(self, event: Event) -> None:
        """What Hypercorn's stream sends."""
        if isinstance(event, Data):
            await self._writer.write(event.data)
        elif isinstance(event, StreamClosed):
            await self._stream.handle(event)

    async def _hear_out(self) -> None:
        """RFC 6455, 7.1.1: the server closes first, and reads until the end; a reset would destroy its last words."""
        if not self._has_ended:
            self._ended = trio.Event()
            with trio.move_on_at(self._writer.by(LINGER_S)):
                await self._writer.end()
                await self._ended.wait()

    # As a conversation sees it

    async def listen(self, heard: Heard) -> None:
        """Have each message heard from now on; ``None`` is an empty binary one. Returns at once."""
        await self._stream.listen(heard)

    async def send(self, text: str) -> None:
        """Send one text message; waits while the client does not read."""
        await self._stream.app_send({"type": "websocket.send", "bytes": None, "text": text})

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame."""
        message: Any = {"type": "websocket.close", "code": code, "reason": reason}
        await self._stream.app_send(message)

    @property
    def writer(self) -> Writer | None:
        """What takes frames without waiting."""
        return self._stream

    async def ping(self) -> None:
        """Send a ping of the protocol."""
        await self._stream.ping()

    def hurry(self) -> None:
        """The conversation is over: what is being written has little more time."""
        self._stream.hurry()

    @property
    def heard_s_ago(self) -> float:
        """Seconds since anything came from the client."""
        return self._stream.heard_s_ago

    @property
    def close_code(self) -> int:
        """What the client closed with, or was given for a breach; 1006 for neither."""
        return self._stream.close_code
