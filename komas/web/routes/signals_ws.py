"""``/ws/signals``: the handshake, and the close frame at the end; ``komas.signals`` does what is in between.

The handshake is always accepted: only a close frame shows a browser the code and the reason of a refusal.
"""

from __future__ import annotations

from typing import Final

import trio
from quart import Blueprint, websocket

from komas.errors import Closing, Unauthorized
from komas.signals.connection import ConnectRequest, SignalConnection
from komas.web import openapi, params
from komas.web.access import Caller
from komas.web.bearer import SUBPROTOCOL, token_of
from komas.web.encoding import SignalFrames, close_reason
from komas.web.hypercorn.transport import closed_by_client, transport_of
from komas.web.problems import ProblemError
from komas.web.query import shown, unknown
from komas.web.services import Services

CLOSE_S: Final = 2.0
_PATH: Final = "/ws/signals"
_FILTERS: Final = frozenset({"signal_type", "coin_name"})
_PARAMETERS: Final = openapi.query_parameters()[_PATH, "GET"]


def vip(services: Services) -> Blueprint:
    """The route."""
    routes = Blueprint("vip", __name__)

    @routes.websocket(_PATH)
    async def signals() -> None:
        subprotocols = websocket.requested_subprotocols
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in subprotocols else None)
        with services.traffic.socket("signals", closed_by_client(websocket.scope)) as end:
            end.closing, words = await _converse(services)
            with trio.move_on_after(CLOSE_S, shield=True):
                await websocket.close(end.closing.code, words or end.closing.reason)

    return routes


async def _converse(services: Services) -> tuple[Closing, str]:
    """How it is to be closed; with words where the reason of a kind says too little."""
    caller = Caller.of(websocket.scope, websocket.headers)
    with services.signals.registry.socket(services.access.address(caller)) as has_room:
        if (refusal := _refusal(services, caller, has_room=has_room)) is not None:
            return refusal, ""
        try:
            asked = _read_request(services, services.access.address(caller))
        except Unauthorized:
            return Closing.UNAUTHORIZED, ""
        except ProblemError as error:
            if {row.field for row in error.errors} & _FILTERS:
                return Closing.WRONG_REQUEST, close_reason(str(error))
            return Closing.WRONG_SINCE, ""
        socket = transport_of(websocket.scope).websocket
        assert socket is not None  # the application's own, whatever server is in front of it
        encoder = SignalFrames(asked.positions) if services.settings.direct_writes else None
        connection = SignalConnection(services.signals, socket, asked, services.draining, encoder=encoder)
        return await connection.run(), ""


def _refusal(services: Services, caller: Caller, *, has_room: bool) -> Closing | None:
    if services.draining.is_set():
        return Closing.SHUTTING_DOWN
    if not has_room:
        return Closing.TRY_AGAIN
    return None if services.access.lets_page_in(caller) else Closing.ORIGIN_NOT_ALLOWED


def _read_request(services: Services, address: str) -> ConnectRequest:
    query = websocket.args
    params.check_once(dict(query.lists()), _FILTERS)
    ignored = shown(unknown(query, _PARAMETERS))
    token = token_of(websocket.headers, websocket.requested_subprotocols, query.get("token"))
    since_id, since = (_position(query.get(name), name) for name in ("since_id", "since"))
    wants_positions = query.get("positions", "").lower() in ("1", "true")
    return ConnectRequest(
        token,
        since_id,
        since,
        positions=wants_positions or since is not None,
        wanted=params.read_signal_filter(query, services.settings.signal_types, services.settings.max_symbols),
        ignored=ignored,
        address=address,
    )


def _position(text: str | None, name: str) -> int | None:
    return None if text is None else params.read_count(text, name, default=0, least=0, most=params.LARGEST)
