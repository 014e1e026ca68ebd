"""``/ws/signals``: the handshake, and the close frame at the end; ``komas.signals`` does what is in between.

The handshake is always accepted: only a close frame shows a browser the code and the reason of a refusal.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from quart import Blueprint, websocket

from komas.errors import Closing, Unauthorized
from komas.signals.connection import ConnectRequest, SignalConnection
from komas.web import openapi, params
from komas.web.access import Caller
from komas.web.bearer import SUBPROTOCOL, token_of
from komas.web.encoding import SignalFrames, close_reason
from komas.web.hypercorn.transport import AcceptedSocket, converse
from komas.web.problems import ProblemError
from komas.web.query import shown, unknown
from komas.web.services import Services
from komas.web.socket_end import Ended, close

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
        address, asked = _handshake(services)
        await converse(websocket.scope, partial(_converse, services, address, asked))

    return routes


def _handshake(services: Services) -> tuple[str, ConnectRequest | Ended]:
    """The address that it is counted by, and what it asks for."""
    caller = Caller.of(websocket.scope, websocket.headers)
    address = services.access.address(caller)
    if not services.access.lets_page_in(caller):
        return address, Ended(Closing.ORIGIN_NOT_ALLOWED)
    try:
        return address, _read_request(services, address)
    except Unauthorized:
        return address, Ended(Closing.UNAUTHORIZED)
    except ProblemError as error:
        if {row.field for row in error.errors} & _FILTERS:
            return address, Ended(Closing.WRONG_REQUEST, close_reason(str(error)))
        return address, Ended(Closing.WRONG_SINCE)


async def _converse(services: Services, address: str, asked: ConnectRequest | Ended, socket: AcceptedSocket) -> None:
    with services.traffic.socket("signals", lambda: socket.close_code) as end:
        running = _run(services, address, asked, socket)
        del asked  # it has the token
        ended = await running
        end.closing = ended.closing
        await close(socket, ended)


async def _run(services: Services, address: str, asked: ConnectRequest | Ended, socket: AcceptedSocket) -> Ended:
    """How it is to be closed."""
    with services.signals.registry.socket(address) as has_room:
        if services.draining.is_set():
            return Ended(Closing.SHUTTING_DOWN)
        if not has_room:
            return Ended(Closing.TRY_AGAIN)
        if isinstance(asked, Ended):
            return asked
        encoder = SignalFrames(asked.positions) if services.settings.direct_writes else None
        connection = SignalConnection(services.signals, socket, asked, services.draining, encoder=encoder)
        del asked
        return Ended(await connection.run())


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
