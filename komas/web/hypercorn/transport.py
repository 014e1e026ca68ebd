"""What the server offers an application beyond ASGI: the connection itself, and the news that its client has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec
import trio

from komas.hub.broadcast import Writer
from komas.signals.connection import Socket

if TYPE_CHECKING:
    from komas.web.hypercorn.quart_connections import WebSocketConnection
    from komas.web.hypercorn.websocket_stream import WebSocketStream

_KEY: Final = "komas.transport"  # in a scope's state: the one place where ASGI lets a server hand on what is its own

ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: no close frame came


class LastingBody(Protocol):
    """The body of a response without an end; its chunks are those of HTTP/1.1, framed already."""

    @property
    def heartbeat(self) -> bytes:
        """What is written where nothing else is."""

    def rest(self, woken: Callable[[], None]) -> bool:
        """Be written to the connection by others until ``woken`` is called, once; ``False`` where something waits."""

    def take(self) -> Iterator[bytes]:
        """What waits; empty chunks are none. Raises ``trio.EndOfChannel`` at the end."""

    def leave(self) -> None:
        """The connection is about to end, or has."""


Ended: TypeAlias = Callable[[], Awaitable[None]]


class TakeOver(Protocol):
    """Has a connection write a body from now on, and ends the request; ``ended`` is called at the end of it."""

    def __call__(self, body: LastingBody, ended: Ended | None = None) -> None:
        """Do it; what the application sends after this is not sent."""


Said: TypeAlias = str | bytes | None  # ``None`` is an empty binary one
Heard: TypeAlias = Callable[[Said], Awaitable[None]]


class AcceptedSocket(Socket, Protocol):
    """What a conversation speaks with, and what its end needs. In front of another server there are no pings."""

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame."""

    @property
    def close_code(self) -> int:
        """What the client closed with, or was given for a breach; 1006 for neither (RFC 6455, 7.4.1)."""


Conversation: TypeAlias = Callable[[AcceptedSocket], Awaitable[None]]


class ClientTransport(msgspec.Struct, frozen=True):
    """One request's or one WebSocket's connection; empty in front of another ASGI server, and in many tests.

    ``writer`` takes chunks of an HTTP/1.1 body, framed already; where a request has one, ``take_over`` has the
    connection write such a body from then on, and ends the request. ``leaving`` is cancelled when the client leaves; a
    request that has a body is told so by ASGI instead. ``stream`` is Hypercorn's side of a WebSocket, ``websocket`` the
    application's; ``converse_in`` has the connection itself hold a conversation, and ends the handshake's request.
    ``hurry_writes`` gives what is being written so many seconds for each part, and no more.
    """

    writer: Writer | None = None
    take_over: TakeOver | None = None
    leaving: trio.CancelScope | None = None
    stream: WebSocketStream | None = None
    websocket: WebSocketConnection | None = None
    hurry_writes: Callable[[float], None] | None = None
    converse_in: Callable[[Conversation], None] | None = None


_NONE: Final = ClientTransport()


def transport_of(scope: Mapping[str, Any] | None) -> ClientTransport:
    """The transport under a request or a WebSocket."""
    return transport_in(scope.get("state")) if scope else _NONE


def transport_in(state: Mapping[str, Any] | None) -> ClientTransport:
    """The same, where there is no scope yet, or only its state."""
    transport: ClientTransport = state.get(_KEY, _NONE) if state else _NONE
    return transport


def forget_transport(scope: Mapping[str, Any]) -> None:
    """A request is over: what it was offered leads back to it."""
    scope["state"].pop(_KEY, None)


async def converse(scope: Mapping[str, Any], conversation: Conversation) -> None:
    """Hold a conversation over a WebSocket that was accepted: here, or in its connection's task, where it has one.

    There it goes on when the application has returned, so that it is not to keep anything of the handshake.
    """
    transport = transport_of(scope)
    if transport.converse_in is not None:
        transport.converse_in(conversation)
        return
    assert transport.websocket is not None  # the application's own, whatever server is in front of it
    await conversation(transport.websocket)


def with_transport(state: Mapping[str, Any], transport: ClientTransport) -> dict[str, Any]:
    """A copy of a state that has another transport."""
    return {**state, _KEY: transport}
