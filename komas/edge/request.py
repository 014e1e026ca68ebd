"""One request without a body has one task: it is cancelled when its client leaves.

Quart-Trio runs two more beside it, a nursery around them, to wait for a body that such a request has not, and for the
client's leaving: a third of what an idle listener costs. Our Hypercorn stream cancels the request itself.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState
from quart_trio.asgi import TrioASGIHTTPConnection

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable

SCOPE_LEAVING: Final = "komas.leaving"  # where the application finds what is cancelled when the client leaves
_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})


class RequestStream(HTTPStream):
    """One request and its response, as Hypercorn sees them."""

    _leaving: trio.CancelScope

    async def handle(self, event: Event) -> None:
        """Take what the client sent, or the news that it has left."""
        if isinstance(event, Request):
            self._leaving = trio.CancelScope()
            event = dataclasses.replace(event, state=ConnectionState({**event.state, SCOPE_LEAVING: self._leaving}))
        await super().handle(event)
        if isinstance(event, StreamClosed):
            self._leaving.cancel("the client has left, or has its response")


class RequestConnection(TrioASGIHTTPConnection):
    """One request and its response, as Quart sees them."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle the request."""
        state = cast("dict[str, object]", self.scope.get("state") or {})
        leaving = state.get(SCOPE_LEAVING)
        if not isinstance(leaving, trio.CancelScope) or any(name in _OF_A_BODY for name, _ in self.scope["headers"]):
            await super().__call__(receive, send)
            return
        request = self._create_request_from_scope(send)
        request.body.set_complete()
        with leaving:
            await self.handle_request(cast("trio.Nursery", _Alone(leaving)), request, send)


class _Alone:
    """Stands where Quart-Trio expects the nursery of its tasks, of which it asks nothing but its scope."""

    def __init__(self, cancel_scope: trio.CancelScope) -> None:
        self.cancel_scope = cancel_scope
