"""``/ws/signals``: the handshake, and the close frame at the end; ``komas.signals`` does what is in between.

The handshake is always accepted: only a close frame shows a browser the code and the reason of a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import quart.wrappers.base
import trio
from quart import Blueprint, websocket

from komas.errors import Closing, Unauthorized
from komas.signals.connection import ConnectRequest, SignalConnection
from komas.web import params
from komas.web.access import Caller
from komas.web.bearer import SUBPROTOCOL, token_of
from komas.web.encoding import SignalFrames
from komas.web.hypercorn.quart_connections import SCOPE_RECEIVE
from komas.web.hypercorn.websocket_stream import SCOPE_STATE, WebSocketStream
from komas.web.problems import ProblemError
from komas.web.services import Services

CLOSE_S: Final = 2.0


class _NotRaised(Exception):
    """Stands for what only Quart 0.23 and later raise."""


# Where Quart raises it, the cancellation that Quart-Trio has always used follows at once.
_LEFT: Final[type[Exception]] = getattr(quart.wrappers.base, "ClientDisconnectedError", _NotRaised)


class _Socket:
    """The accepted WebSocket, as a conversation wants it."""

    def __init__(self, *, may_be_direct: bool) -> None:
        self._receive: Callable[[], Awaitable[str | bytes | None]] = websocket.scope["state"][SCOPE_RECEIVE]
        # Hypercorn's, or none in front of another ASGI server.
        self._ours: WebSocketStream | None = websocket.scope["state"].get(SCOPE_STATE)
        self.is_direct = may_be_direct and self._ours is not None and self._ours.is_direct

    async def receive(self) -> str | bytes | None:
        return await self._receive()

    async def send(self, text: str) -> None:
        try:
            await websocket.send(text)
        except _LEFT:
            await trio.sleep_forever()

    def write_nowait(self, frame: bytes) -> int:
        return len(frame) if self._ours is None else self._ours.write_nowait(frame)

    async def flush(self) -> bool:
        return self._ours is not None and await self._ours.flush()

    def encoder(self, *, positions: bool) -> SignalFrames:
        return SignalFrames(positions)

    async def ping(self) -> None:
        if self._ours is not None:
            await self._ours.ping()

    @property
    def heard_s_ago(self) -> float:
        return self._ours.heard_s_ago if self._ours is not None else trio.current_time()


def vip(services: Services) -> Blueprint:
    """The route."""
    routes = Blueprint("vip", __name__)

    @routes.websocket("/ws/signals")
    async def signals() -> None:
        subprotocols = websocket.requested_subprotocols
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in subprotocols else None)
        closing = await _converse(services)
        with trio.move_on_after(CLOSE_S, shield=True):
            with suppress(_LEFT):
                await websocket.close(closing.code, closing.reason)

    return routes


async def _converse(services: Services) -> Closing:
    caller = Caller.of(websocket.scope, websocket.headers)
    with services.signals.registry.socket(services.access.address(caller)) as has_room:
        if services.draining.is_set():
            return Closing.SHUTTING_DOWN
        if not has_room:
            return Closing.TRY_AGAIN
        if not services.access.lets_page_in(caller):
            return Closing.ORIGIN_NOT_ALLOWED
        try:
            wish = _read_wish()
        except Unauthorized:
            return Closing.UNAUTHORIZED
        except ProblemError:
            return Closing.WRONG_SINCE
        socket = _Socket(may_be_direct=services.settings.direct_writes)
        return await SignalConnection(services.signals, socket, wish, services.draining).run()


def _read_wish() -> ConnectRequest:
    query = websocket.args
    token = token_of(websocket.headers, websocket.requested_subprotocols, query.get("token"))
    since_id, since = (_position(query.get(name), name) for name in ("since_id", "since"))
    wants_positions = query.get("positions", "").lower() in ("1", "true")
    return ConnectRequest(token, since_id, since, positions=wants_positions or since is not None)


def _position(text: str | None, name: str) -> int | None:
    return None if text is None else params.read_count(text, name, default=0, least=0, most=params.LARGEST)
