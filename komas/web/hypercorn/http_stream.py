"""A request without a body has one task, which is cancelled when its client leaves.

Hypercorn starts a queue for each request, for a body and for the news that the client has left; Quart-Trio starts two
tasks and a nursery to read from it. Together that is most of what an idle subscriber costs. A request without a body
needs none of it: here the stream cancels the application itself (``ClientTransport.leaving``). Middleware in between
that asks, as ASGI allows, is told that the body is empty, and later that the client has left.

Replaces: ``hypercorn.protocol.http_stream.HTTPStream``, as ``hypercorn.protocol.h11`` knows it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/web/hypercorn/test_http_stream.py::test_a_request_without_a_body_is_one_task
"""

from __future__ import annotations

import dataclasses
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import _handle as handle_app
from hypercorn.typing import ConnectionState

from komas.web.hypercorn.transport import Ended, LastingBody, forget_transport, transport_in, with_transport

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.typing import (
        AppWrapper,
        ASGIReceiveEvent,
        ASGISendEvent,
        HTTPResponseStartEvent,
        HTTPScope,
        Scope,
        TaskGroup,
    )

_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_CHUNKED_SINCE: Final = "1.1"  # HTTP/1.0 has no chunks that could be written past Hypercorn's protocol


class RequestStream(HTTPStream):
    """One request and its response, as Hypercorn sees them."""

    _leaving: trio.CancelScope | None = None
    _is_taken_over = False

    async def handle(self, event: Event) -> None:
        """Take what the client sent, or the news that it has left."""
        if isinstance(event, Request):
            event = self._begin(event)
        await super().handle(event)
        if isinstance(event, StreamClosed) and self._leaving is not None:
            self._leaving.cancel("the client has left, or has its response")

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Do what the application says; ``None`` is its end."""
        if message is None:
            forget_transport(self.scope)
        if not self._is_taken_over:
            await super().app_send(message)

    def _take_over(self, body: LastingBody, ended: Ended | None = None) -> None:
        """Leave the response to the connection; of the request, what an access log says of it is kept."""
        assert self._connection_takes_over is not None  # or this would not have been offered
        self._is_taken_over = True
        if self.config.accesslog is not None:
            ended = partial(_log_access, self.config, self.scope, self.response, self.start_time)
        self._connection_takes_over(body, ended)

    def _begin(self, event: Request) -> Request:
        if not any(name.lower() in _OF_A_BODY for name, _ in event.headers):
            self._leaving = trio.CancelScope()
            self.task_group = cast("TaskGroup", _Lone(self.task_group))
        transport = transport_in(event.state)
        is_direct = event.http_version == _CHUNKED_SINCE and self._leaving is not None
        self._connection_takes_over = transport.take_over
        transport = msgspec.structs.replace(
            transport,
            writer=transport.writer if is_direct else None,
            take_over=self._take_over if is_direct and transport.take_over is not None else None,
            leaving=self._leaving,
        )
        return dataclasses.replace(event, state=ConnectionState(with_transport(event.state, transport)))


async def _log_access(config: Config, scope: HTTPScope, response: HTTPResponseStartEvent, began_at: float) -> None:
    await config.log.access(scope, response, time() - began_at)


class _Lone:
    """Starts an application that needs no queue: there is no body, and it is cancelled when the client leaves."""

    __slots__ = ("_has_left", "_is_told", "_leaving", "_tasks")

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._is_told = False
        self._has_left = False
        self._leaving: trio.Event | None = None  # made for those who ask: our own application does not

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Any) -> Any:  # noqa: ANN401 - hypercorn's
        """Start it; returns what takes messages to it."""
        receive = self._receive
        self._tasks.spawn(handle_app, app, config, scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        return self._put

    async def _receive(self) -> ASGIReceiveEvent:
        """What ASGI has to say of a request: its empty body, then nothing until the client leaves."""
        await trio.lowlevel.checkpoint()
        if not self._is_told:
            self._is_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self._has_left:
            self._leaving = self._leaving or trio.Event()
            await self._leaving.wait()
        return {"type": "http.disconnect"}

    async def _put(self, message: ASGIReceiveEvent) -> None:
        """Of what Hypercorn tells, the end alone is news."""
        if message["type"] == "http.disconnect":
            self._has_left = True
            if self._leaving is not None:
                self._leaving.set()
