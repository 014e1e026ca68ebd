"""What the server offers an application beyond ASGI: the connection itself, and the news that its client has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec
import trio

from komas.hub.broadcast import Writer

if TYPE_CHECKING:
    from komas.web.hypercorn.quart_connections import WebSocketConnection
    from komas.web.hypercorn.websocket_stream import WebSocketStream

_KEY: Final = "komas.transport"  # in a scope's state: the one place where ASGI lets a server hand on what is its own

_ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: no close frame came


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


class ClientTransport(msgspec.Struct, frozen=True):
    """One request's or one WebSocket's connection; empty in front of another ASGI server, and in many tests.

    ``writer`` takes chunks of an HTTP/1.1 body, framed already; where a request has one, ``take_over`` has the
    connection write such a body from then on, and ends the request. ``leaving`` is cancelled when the client leaves; a
    request that has a body is told so by ASGI instead. ``stream`` is Hypercorn's side of a WebSocket, ``websocket`` the
    application's. ``hurry_writes`` gives what is being written so many seconds for each part, and no more.
    """

    writer: Writer | None = None
    take_over: TakeOver | None = None
    leaving: trio.CancelScope | None = None
    stream: WebSocketStream | None = None
    websocket: WebSocketConnection | None = None
    hurry_writes: Callable[[float], None] | None = None


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


def closed_by_client(scope: Mapping[str, Any] | None) -> Callable[[], int]:
    """What tells the code that a WebSocket's client closed with, or was given for a breach; 1006 for none."""
    stream = transport_of(scope).stream
    return lambda: _ABNORMAL if stream is None else stream.close_code


def with_transport(state: Mapping[str, Any], transport: ClientTransport) -> dict[str, Any]:
    """A copy of a state that has another transport."""
    return {**state, _KEY: transport}
