"""One task for a request without a body, and one for a WebSocket; it is cancelled when the client leaves.

Quart-Trio runs two tasks in a nursery for each, one of them to wait for messages; Quart keeps the request, with all
that it knows, until the response has ended. Here a request without a body is cancelled by our Hypercorn stream, and of
a response without an end only its body is kept. A WebSocket's messages are taken where Hypercorn left them.

A request that names no path ended in an exception: here it is told so. And a client that leaves at a bad moment is no
failure of the application.

Replaces: ``TrioASGIHTTPConnection`` and ``TrioASGIWebsocketConnection`` of ``quart_trio.asgi``, by
``asgi_http_class`` and ``asgi_websocket_class`` of the application, which are public.
Upstream: none is known to us.
Goes when these pass without it:
    tests/web/hypercorn/test_http_stream.py::test_a_request_without_a_body_is_one_task
    tests/web/hypercorn/test_quart_connections.py::test_a_client_that_leaves_before_its_answer_is_ready_is_no_failure
    tests/e2e/test_rude.py::test_a_request_without_a_path_is_told_so
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import msgspec
import quart.wrappers
import trio
from quart import Response
from quart.asgi import ASGIWebsocketConnection
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection

from komas.hub.broadcast import Writer
from komas.web.hypercorn.transport import ABNORMAL, ClientTransport, Heard, transport_of, with_transport
from komas.web.problems import ProblemError, respond

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGISendCallable,
        ConnectionState,
        HTTPResponseBodyEvent,
        HTTPResponseStartEvent,
    )
    from quart.wrappers.response import ResponseBody

# Raised by Quart 0.23 and later, which Quart-Trio lets pass as a failure of the application.
CLIENT_LEFT: Final[tuple[type[Exception], ...]] = (
    (quart.wrappers.ClientDisconnectedError,) if hasattr(quart.wrappers, "ClientDisconnectedError") else ()
)
_HEADERS_KEPT: Final = 256  # that were encoded before: nearly all of them are the same in every response


class RequestConnection(TrioASGIHTTPConnection):
    """One request and its response, as Quart sees them."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle the request."""
        if not _has_path(self.scope["path"]):
            await self._send_response(send, respond(ProblemError(400, "the request names no path")))
            return
        leaving = transport_of(self.scope).leaving
        if leaving is None:
            try:
                await super().__call__(receive, send)
            except* CLIENT_LEFT:  # in the moment in which its answer was ready
                pass
            return
        with leaving:
            body = await self._begin(send)
            if body is not None:
                await _stream(body, send)

    async def _begin(self, send: ASGISendCallable) -> ResponseBody | None:
        """Answer; of a response without an end only the head, its body is returned."""
        request = self._create_request_from_scope(send)
        request.body.set_complete()
        response = await self.app.handle_request(request)
        timeout = response.timeout if isinstance(response, Response) else Ellipsis
        if timeout is None:
            headers = [_encoded(name, value) for name, value in response.headers.items()]
            start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
            await send(cast("HTTPResponseStartEvent", start))
            return cast("ResponseBody", response.response)
        with trio.move_on_after(self.app.config["RESPONSE_TIMEOUT"] if timeout is Ellipsis else timeout):
            await self._send_response(send, response)
        return None


async def _stream(body: ResponseBody, send: ASGISendCallable) -> None:
    """Send a body, chunk by chunk, and its end."""
    async with body as chunks:
        async for chunk in chunks:
            await send(_part(chunk, more=True))
            del chunk  # the next one may be long in coming
    await send(_part(b"", more=False))


def _has_path(target: str) -> bool:
    """Whether the target of a request (RFC 9112, 3.2) is one that Quart can read: ``?x`` and ``http://[`` are none."""
    try:
        return bool(target.startswith("/") or urlsplit(target).path)
    except ValueError:
        return False


def _part(chunk: bytes, *, more: bool) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


class WebSocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket, as Quart sees it; its handler finds it in ``ClientTransport.websocket``.

    It is cancelled when the client leaves: in front of another server, when ``receive()`` finds the end. Once the
    socket is accepted, it reads and writes here, past Quart, which has nothing to add.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle the socket."""
        if not _has_path(self.scope["path"]):
            await send({"type": "websocket.close", "code": 1008, "reason": None})  # before it is accepted: HTTP 403
            return
        self._receive = receive
        self._send = send
        transport = transport_of(self.scope)
        self._stream = transport.stream
        self._put(msgspec.structs.replace(transport, websocket=self))
        try:
            with transport.leaving or trio.CancelScope() as self._leaving:
                await ASGIWebsocketConnection.handle_websocket(self, self._create_websocket_from_scope(send), send)
        finally:
            self._put(transport)  # or only the garbage collector would find us

    def _put(self, transport: ClientTransport) -> None:
        self.scope["state"] = cast("ConnectionState", with_transport(self.scope["state"], transport))

    async def receive(self) -> bytes | str | None:
        """Wait for the next message; ``None`` is an empty binary one."""
        while True:
            event = await self._receive()
            if event["type"] == "websocket.receive":
                return event.get("bytes") or event.get("text")
            if event["type"] == "websocket.disconnect":
                self._leaving.cancel("the client has left")
                await trio.sleep_forever()

    async def listen(self, heard: Heard) -> None:
        """Have each message heard, one after another, until the client leaves."""
        while True:
            await heard(await self.receive())

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    @property
    def close_code(self) -> int:
        """What the client closed with, or was given for a breach; 1006 for neither."""
        return ABNORMAL if self._stream is None else self._stream.close_code

    async def send(self, text: str) -> None:
        """Send one text message; waits while the client does not read."""
        await self._send({"type": "websocket.send", "bytes": None, "text": text})

    @property
    def writer(self) -> Writer | None:
        """What takes frames without waiting; ``None`` where nothing does."""
        return self._stream if self._stream is not None and self._stream.is_direct else None

    async def ping(self) -> None:
        """Send a ping of the protocol; ASGI has none, so in front of another server there is none."""
        if self._stream is not None:
            await self._stream.ping()

    def hurry(self) -> None:
        """The conversation is over: what is being written has little more time."""
        if self._stream is not None:
            self._stream.hurry()

    @property
    def heard_s_ago(self) -> float:
        """Seconds since anything came from the client; since ever, where messages are all that is known."""
        return trio.current_time() if self._stream is None else self._stream.heard_s_ago


@lru_cache(_HEADERS_KEPT)
def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode(), value.encode()
