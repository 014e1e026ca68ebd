"""Our Hypercorn WebSocket: every breach of the protocol is answered by its close code, and costs little.

Hypercorn's stream is replaced where it is wrong for us:

* permessage-deflate was always negotiated: a compressor for each socket, and 256 MiB of zeros for 260 KB. Here it is
  not, and a frame is refused by its header before its payload is read;
* a frame that is not UTF-8, too big or broken ended in a cut connection, or in an open one without a reader;
* an application that left unread messages behind kept its socket open for ever; one that waited to write was not told
  that its client had left, while its queue was full of unread messages;
* a flood of pings or of empty fragments was answered as fast as it came;
* a refused handshake left its connection open without any time-out, and did not say which version is spoken here; a key
  that is none was taken;
* after a breach of the protocol the client was waited for, which waits for the server to close first (RFC 6455, 7.1.1).

Replaces: ``hypercorn.protocol.ws_stream.WSStream``, as ``hypercorn.protocol.h11`` knows it.
Upstream: https://github.com/pgjones/hypercorn/issues/307 (compression cannot be turned off),
https://github.com/pgjones/hypercorn/issues/225 (bytes that come before the handshake is answered). Of the others, none
is known to us.
Goes when these pass without it:
    tests/e2e/test_signals.py::test_compression_is_not_negotiated
    tests/e2e/test_signals.py::test_a_breach_of_the_protocol_is_answered_by_its_code
    tests/e2e/test_signals.py::test_after_a_breach_the_server_closes_first
    tests/e2e/test_signals.py::test_a_bomb_costs_no_memory
    tests/e2e/test_signals.py::test_a_flood_and_a_close_in_one_breath_leave_nothing_behind
    tests/e2e/test_signals.py::test_a_place_is_free_once_its_client_has_left
    tests/e2e/test_rude.py::test_a_refused_handshake_is_closed
    tests/e2e/test_rude.py::test_a_handshake_that_is_none_is_told_why
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Event, Request, StreamClosed
from hypercorn.protocol.events import Response as ResponseEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WSStream
from hypercorn.typing import ConnectionState
from wsproto.connection import Connection, ConnectionType
from wsproto.connection import ConnectionState as Phase
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.handshake import WEBSOCKET_VERSION

from komas.errors import Closing
from komas.signals.session import MESSAGE_BYTES, Bucket
from komas.web.hypercorn.transport import (
    Conversation,
    Heard,
    Said,
    forget_transport,
    transport_in,
    with_transport,
)
from komas.web.problems import MEDIA_TYPE, document

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGISendEvent,
        WebsocketAcceptEvent,
        WebsocketDisconnectEvent,
        WebsocketReceiveEvent,
    )

FRAMES_A_SECOND: Final = 100.0  # of every kind: ten times the messages that a session allows
FRAMES_AT_ONCE: Final = 200.0
LINGER_S: Final = 2.0  # for the client's close frame
HURRIED_S: Final = 1.0  # for each part of what is being written when the conversation is over
TOLD_S: Final = 0.1  # enough to put into a queue that is not full
_BREACHES: Final = {closing.code: closing for closing in (Closing.PROTOCOL, Closing.NOT_UTF8, Closing.TOO_BIG)}
_ACCEPTED: Final = Handshake([], "1.1")
_ACCEPTED.accepted = True
_ASCII: Final = frozenset({b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol"})
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")  # sixteen bytes in base64 (RFC 6455, 4.1)
_WORDS: Final = {
    HTTPStatus.BAD_REQUEST: "this is no WebSocket handshake as RFC 6455, 4.1, has it",
    HTTPStatus.FORBIDDEN: "there is no WebSocket here",
    HTTPStatus.NOT_FOUND: "this server has another name",
    HTTPStatus.UPGRADE_REQUIRED: "of WebSockets, version 13 is spoken here",
}


class _SizeLimit(Extension):
    """Refuses a frame by its header, before any of its payload is read."""

    name = "komas-size-limit"

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Answer 1009 for a long frame; bits that only an extension may set stay a breach of the protocol."""
        if payload_length > MESSAGE_BYTES:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(rsv1=False, rsv2=False, rsv3=False)


class WebSocketStream(WSStream):
    """One client's WebSocket, as Hypercorn sees it; a ``Writer`` of frames."""

    # With those of Hypercorn's, more than fit the keys that instances share: a dictionary of its own for each socket.
    __slots__ = (
        "_bucket",
        "_connection_takes_over",
        "_early",
        "_gone",
        "_heard",
        "_hurry_writes",
        "_parts",
        "_putting",
        "_takes_messages",
        "_writer",
        "heard_at",
        "leaving",
    )
    connection: Connection
    _came_early = False
    _is_broken = False  # by the client, whose frames cannot be told apart any more
    _is_left = False  # by the application
    _is_taken_over = False
    close_code = int(CloseReason.ABNORMAL_CLOSURE)  # that the client gave, or was given for a breach

    async def handle(self, event: Event) -> None:
        """Take what the client sent."""
        self.heard_at = trio.current_time()
        if isinstance(event, Request):
            await super().handle(self._begin(event))
        elif isinstance(event, Body | Data) and not self.handshake.accepted:
            self._came_early = True  # frames follow the handshake's answer (RFC 6455, 4.1): answered once it is given
        elif isinstance(event, Body | Data) and self._is_broken:
            return  # what cannot be parsed is not kept either
        elif isinstance(event, StreamClosed):
            self.closed = True
            self._gone.set()
            await self._let_go(CloseReason.ABNORMAL_CLOSURE)
        else:
            await super().handle(event)

    def _begin(self, event: Request) -> Request:
        self._bucket = Bucket(FRAMES_A_SECOND, FRAMES_AT_ONCE, self.heard_at)
        self._parts: list[str] = []
        self._putting = trio.CancelScope()  # around what waits for room in the application's queue
        self._gone = trio.Event()
        transport = transport_in(event.state)
        self.leaving = trio.CancelScope()
        self._heard: Heard | None = None  # what takes messages, past Hypercorn's queue
        self._early: list[Said] = []  # those that came before it was there
        self._connection_takes_over = transport.converse_in
        self._takes_messages = transport.converse_in is not None
        self._writer = transport.writer
        self._hurry_writes = transport.hurry_writes
        headers = [(name, value) for name, value in event.headers if _is_readable(name.lower(), value)]
        converse_in = None if transport.converse_in is None else self._converse_in
        transport = msgspec.structs.replace(transport, stream=self, leaving=self.leaving, converse_in=converse_in)
        return dataclasses.replace(
            event, headers=headers, state=ConnectionState(with_transport(event.state, transport))
        )

    # Where the connection takes it over

    def _converse_in(self, conversation: Conversation) -> None:
        """Leave it to the connection: the application is about to return."""
        assert self._connection_takes_over is not None  # or this would not have been offered
        self._is_taken_over = True
        self._connection_takes_over(conversation)

    def begin_anew(self, send: Callable[[Event], Awaitable[None]]) -> None:
        """The handshake is over: what is sent goes there, and what was needed for it is forgotten."""
        forget_transport(self.scope)
        self.send = send
        self.leaving = trio.CancelScope()
        self.app_put = None
        self._connection_takes_over = None
        self.handshake = _ACCEPTED
        # Not deleted: an instance that lacks what others have shares no keys with them.
        self.scope = self.task_group = self.app = self.context = None  # type: ignore[assignment]

    async def listen(self, heard: Heard) -> None:
        """Have each message heard, also those that have come already."""
        while self._early:
            await heard(self._early.pop(0))
        self._heard = heard

    def let_go(self) -> None:
        """Forget what leads back to this."""
        self._heard = self._hurry_writes = None
        del self.send

    async def _hear(self, message: WebsocketReceiveEvent) -> None:
        said = message.get("bytes") or message.get("text")
        if self._heard is None:
            self._early.append(said)  # no more than the frames that may come at once
        else:
            await self._heard(said)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Do what the application says; ``None`` is its end."""
        if self._is_taken_over:
            # The application returns, and would close it; the conversation begins once it has.
            self._is_taken_over = message is not None
            return
        if message is not None and self.state is ASGIWebsocketState.CLOSED:
            await trio.lowlevel.checkpoint()  # it was closed under the application, which is about to be told
            return
        if message is None:
            self._is_left = True
            self._putting.cancel()  # what is queued has no reader any more
            if self.state is ASGIWebsocketState.CLOSED and not self._is_broken:
                # The client's close frame comes before the end of the connection (RFC 6455, 7.1.1): a browser calls
                # the close unclean otherwise, and unread bytes would make it a reset that destroys ours.
                with trio.move_on_after(LINGER_S):
                    await self._gone.wait()
        await super().app_send(message)

    async def _tell(self, message: WebsocketReceiveEvent | WebsocketDisconnectEvent) -> None:
        """Put a message into the application's queue, unless there is no application any more."""
        if self._is_left:
            return
        with trio.CancelScope() as self._putting:
            if message["type"] == "websocket.receive" and self._takes_messages:
                await self._hear(message)
            elif self.app_put is not None:
                await self.app_put(message)

    async def _let_go(self, code: int) -> None:
        """Cancel the application, which may be waiting for anything; what is in between learns it from its queue.

        That is not waited for: where the queue is full, nobody waits for what is in it, and we may be called by the
        application itself.
        """
        self.leaving.cancel("the client has left, or was told to")
        with trio.move_on_after(TOLD_S):
            await self._tell({"type": "websocket.disconnect", "code": code})

    def hurry(self) -> None:
        """The conversation is over: what is being written has little more time."""
        if self._hurry_writes is not None:
            self._hurry_writes(HURRIED_S)

    @property
    def heard_s_ago(self) -> float:
        """Seconds since anything came from the client."""
        return trio.current_time() - self.heard_at

    def write_nowait(self, frame: bytes) -> int:
        """Write as much of a frame as the connection takes at once; returns how many bytes are left."""
        is_open = self.state is ASGIWebsocketState.CONNECTED and not self.closed
        if self._writer is None or not is_open or self.connection.state is not Phase.OPEN:
            return len(frame)
        return self._writer.write_nowait(frame)

    @property
    def is_direct(self) -> bool:
        """Whether ``write_nowait()`` ever writes."""
        return self._writer is not None

    async def flush(self) -> bool:
        """Write the rest of what ``write_nowait()`` has begun; whether there was one."""
        return self._writer is not None and await self._writer.flush()

    async def ping(self) -> None:
        """Send a ping of the protocol, which every client answers by itself."""
        await self._send_wsproto_event(Ping())

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        self.state = ASGIWebsocketState.CONNECTED
        self.handshake.extensions = None
        status, headers, _ = self.handshake.accept(message.get("subprotocol"), message.get("headers", []))
        self.connection = Connection(ConnectionType.SERVER, [_SizeLimit()])
        await self.send(ResponseEvent(stream_id=self.stream_id, status_code=status, headers=headers))
        await self.config.log.access(self.scope, {"status": status, "headers": []}, time() - self.start_time)
        if self._came_early:
            await self._refuse(Closing.PROTOCOL)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if self.state is ASGIWebsocketState.CLOSED and not isinstance(event, CloseConnection):
                continue  # we have closed, and wait for the client to do so
            is_part = isinstance(event, Message) and not event.frame_finished  # of a frame that comes in pieces
            if not is_part and not self._bucket.take(trio.current_time()):
                await self._refuse(Closing.RATE_LIMITED)
            elif isinstance(event, Message):
                await self._take(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._end(event)
                return

    async def _take(self, event: Message[Any]) -> None:
        self.buffer.length += len(event.data.encode()) if isinstance(event, TextMessage) else len(event.data)
        if self.buffer.length > MESSAGE_BYTES:
            await self._refuse(Closing.TOO_BIG)
            return
        if isinstance(event, TextMessage):
            self._parts.append(event.data)
        if event.message_finished:
            text = "".join(self._parts) if isinstance(event, TextMessage) else None
            self._parts.clear()
            self.buffer.clear()
            # A binary message is not parsed: it ends the session.
            await self._tell({"type": "websocket.receive", "text": text, "bytes": None if text is not None else b"\0"})

    async def _end(self, event: CloseConnection) -> None:
        """The client has closed, or broke the protocol, which is told apart by what the connection thinks of it."""
        if self.state is ASGIWebsocketState.CLOSED:
            self._gone.set()
        elif self.connection.state is Phase.REMOTE_CLOSING:
            self.close_code = int(event.code)
            self.hurry()
            await self._send_wsproto_event(event.response())
            await self.send(StreamClosed(stream_id=self.stream_id))
        else:
            self._is_broken = True
            await self._refuse(_BREACHES.get(event.code, Closing.PROTOCOL))

    async def _refuse(self, closing: Closing) -> None:
        """Close, and let the application go."""
        self.state = ASGIWebsocketState.CLOSED
        self.close_code = closing.code
        self.hurry()
        await self._send_wsproto_event(CloseConnection(code=closing.code, reason=closing.reason))
        await self.send(EndData(stream_id=self.stream_id))
        await self._let_go(closing.code)

    async def _send_error_response(self, status_code: int) -> None:
        status, headers = HTTPStatus(status_code), list[tuple[bytes, bytes]]()
        if status is HTTPStatus.BAD_REQUEST and self.handshake.version not in (None, WEBSOCKET_VERSION):
            status = HTTPStatus.UPGRADE_REQUIRED  # RFC 6455, 4.4; with Upgrade (RFC 9110, 15.5.22)
            headers += [(b"sec-websocket-version", WEBSOCKET_VERSION), (b"upgrade", b"websocket")]
        body = document(status, _WORDS.get(status, status.description))
        headers += [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"upgrade, close" if status is HTTPStatus.UPGRADE_REQUIRED else b"close"),
        ]
        await self.send(ResponseEvent(stream_id=self.stream_id, status_code=status, headers=headers))
        await self.send(Body(stream_id=self.stream_id, data=body))
        await self.send(EndBody(stream_id=self.stream_id))
        await self.config.log.access(self.scope, {"status": status, "headers": []}, time() - self.start_time)
        await self.send(StreamClosed(stream_id=self.stream_id))


def _is_readable(name: bytes, value: bytes) -> bool:
    """Whether a header field is kept: what is left out makes a bad handshake, or no subprotocol."""
    if name == b"sec-websocket-key":
        return _KEY.fullmatch(value) is not None
    return value.isascii() or name not in _ASCII  # Hypercorn reads these as ASCII
