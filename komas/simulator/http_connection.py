"""One TCP connection that speaks HTTP: requests out of bytes, answers into bytes, until it becomes a WebSocket."""

from __future__ import annotations

import re
import struct
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import h11
import trio

from komas.simulator import frames

GLUED = re.compile(r"\?|%3F", re.IGNORECASE)
READ_BYTES = 1 << 16
IDLE_S = 75.0  # between requests on a connection that is kept alive
BODY_BYTES = 1 << 20
HALT_S = 2.0  # to get an answer out on a connection that is given up
LINGER = "hh" if sys.platform == "win32" else "ii"  # struct linger: two shorts on Windows, two ints elsewhere


class Request(NamedTuple):
    """An HTTP request; names of headers are in lower case, the path is decoded, the query is not."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def parameters(self) -> dict[str, str]:
        """The query; of a repeated name the last counts. Clients glue a second query to the last stream's name."""
        return dict(parse_qsl(GLUED.sub("&", self.query), keep_blank_values=True))

    @property
    def is_dial(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def websocket_key(self) -> str | None:
        """The key of a handshake that RFC 6455 allows, else ``None``."""
        if self.method != "GET" or self.headers.get("sec-websocket-version") != "13":
            return None
        return self.headers.get("sec-websocket-key")


class Answer(NamedTuple):
    """An HTTP answer, JSON unless ``headers`` say otherwise."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Unreadable(Exception):
    """What came was not HTTP, or too much of it."""

    def __init__(self, status: int) -> None:
        super().__init__(HTTPStatus(status).phrase)
        self.status = status


class Caller:
    """The HTTP side of one TCP connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def request(self) -> Request | None:
        """The next request, or ``None`` when there will be none. ``Unreadable`` when it is not HTTP."""
        try:
            head = await self._event()
            if not isinstance(head, h11.Request):
                return None
            return _request(head, await self._body(head))
        except h11.RemoteProtocolError as fault:
            raise Unreadable(fault.error_status_hint) from fault

    async def _body(self, head: h11.Request) -> bytes:
        if any(name == b"upgrade" for name, _ in head.headers):
            return b""  # what follows is not HTTP any more
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise Unreadable(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return bytes(body)

    async def _event(self) -> h11.Event | None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._feed()
            elif isinstance(event, h11.Event):
                return None if isinstance(event, h11.ConnectionClosed) else event
            else:
                return None

    async def _feed(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        with trio.move_on_after(IDLE_S) as idle:
            data = await self.stream.receive_some(READ_BYTES)
        self._http.receive_data(b"" if idle.cancelled_caught else bytes(data))

    async def answer(self, answer: Answer, *, head: bool = False) -> bool:
        """Send an answer; false when the connection cannot carry another request."""
        headers = [("content-type", "application/json;charset=UTF-8"), ("access-control-allow-origin", "*")]
        headers += [("content-length", str(len(answer.body))), *answer.headers]
        reason = _phrase(answer.status)
        start = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        await self._send(start, h11.Data(b"" if head else answer.body), h11.EndOfMessage())
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _send(self, *events: h11.Event) -> None:
        await self.stream.send_all(b"".join(self._http.send(event) or b"" for event in events))

    async def accept(self, key: str) -> bytes:
        """Switch to WebSocket, without extensions; the answer is what the client sent ahead."""
        headers = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", frames.accept_key(key)),
        ]
        ahead, _ = self._http.trailing_data
        await self._send(h11.InformationalResponse(status_code=101, headers=headers, reason=b"Switching Protocols"))
        return ahead


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def _request(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("latin-1").partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode(), unquote(path), query, headers, body)


def reset(stream: trio.abc.AsyncResource) -> None:
    """End a TCP connection with RST, at once; what is not TCP is left to be closed by its owner."""
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        with suppress(OSError):  # some systems refuse options once the other side has gone
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack(LINGER, 1, 0))
        stream.socket.close()
