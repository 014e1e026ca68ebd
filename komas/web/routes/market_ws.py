"""``/ws/market``: the handshake, and the close frame at the end; ``market_socket`` does what is in between.

The handshake is always accepted: only a close frame shows a browser the code and the reason of a refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from quart import Blueprint, websocket

from komas.errors import CallerError, Closing
from komas.model.codec import parse_position
from komas.model.streams import Stream
from komas.web import params
from komas.web.access import Caller
from komas.web.encoding import close_reason
from komas.web.hypercorn.transport import AcceptedSocket, converse
from komas.web.limits import WEBSOCKET
from komas.web.market_socket import MarketConversation, MarketRequest
from komas.web.openapi import query_parameters
from komas.web.problems import ProblemError
from komas.web.query import shown, unknown
from komas.web.routes.control import check_listed
from komas.web.services import Services
from komas.web.socket_end import Ended, close

_PARAMETERS: Final = query_parameters()["/ws/market", "GET"]


def market_socket(services: Services) -> Blueprint:
    """The route."""
    routes = Blueprint("market_socket", __name__)

    @routes.websocket("/ws/market")
    async def market() -> None:
        await websocket.accept()
        address, asked = _handshake(services)
        await converse(websocket.scope, partial(_converse, services, address, asked))

    return routes


class _Client:
    """What one client may have."""

    def __init__(self, services: Services, address: str) -> None:
        self._services = services
        self._address = address

    async def check_listed(self, streams: Sequence[Stream]) -> None:
        """Raise ``CallerError`` for symbols that the exchange does not list."""
        try:
            await check_listed(self._services, streams, "streams")
        except ProblemError as error:
            raise CallerError(error.detail, field="streams") from None

    def why_full(self, streams: Collection[Stream]) -> str | None:
        """Why it cannot have streams; where it can, the market is connected."""
        reason = self._services.stream_limits.why_full(self._address, streams)
        if reason is None:
            self._services.markets.connect()
        return reason


def _handshake(services: Services) -> tuple[str, MarketRequest | Ended]:
    """The address that it is counted by, and what it asks for."""
    caller = Caller.of(websocket.scope, websocket.headers)
    address = services.access.address(caller)
    if not services.access.lets_page_in(caller):
        return address, Ended(Closing.ORIGIN_NOT_ALLOWED)
    try:
        return address, _read_request(services, address)
    except (ProblemError, CallerError) as error:
        return address, Ended(Closing.WRONG_REQUEST, close_reason(str(error)))


async def _converse(services: Services, address: str, asked: MarketRequest | Ended, socket: AcceptedSocket) -> None:
    with services.traffic.socket("market", lambda: socket.close_code) as end:
        ended = await _run(services, address, asked, socket)
        end.closing = ended.closing
        await close(socket, ended)


async def _run(services: Services, address: str, asked: MarketRequest | Ended, socket: AcceptedSocket) -> Ended:
    """How it is to be closed."""
    settings = services.settings
    if services.draining.is_set():
        return Ended(Closing.SHUTTING_DOWN)
    if services.limits.why_full(address) is not None:
        return Ended(Closing.TRY_AGAIN)
    if isinstance(asked, Ended):
        return asked
    request = asked
    with services.limits.present(address, WEBSOCKET):
        client = _Client(services, address)
        try:
            await client.check_listed(request.streams)
        except CallerError as error:
            return Ended(Closing.WRONG_REQUEST, close_reason(str(error)))
        cluster = services.cluster
        if cluster is not None and not await cluster.passed(request.since, None):
            return Ended(Closing.TRY_AGAIN)
        conversation = MarketConversation(
            services.hub,
            socket,
            request,
            client,
            past=services.past,
            greeting=services.greeting,
            draining=services.draining,
            ping_every_s=settings.websocket_ping_s,
            capacity=settings.mailbox,
            is_direct=settings.direct_writes,
        )
        return Ended(await conversation.run())


def _read_request(services: Services, address: str) -> MarketRequest:
    query = websocket.args
    params.check_once(dict(query.lists()))
    params.check_spelling(query, _PARAMETERS)
    since = query.get("since")
    place = None if since is None else parse_position(since)
    return MarketRequest(
        streams=params.read_streams(query.get("streams"), services.settings.max_streams_per_address),
        reader=address,
        levels=params.read_levels(query.get("limit")),
        candles=params.read_history(query.get("history")),
        since=place,
        is_lost=since is not None and place is None,
        ignored=shown(unknown(query, _PARAMETERS)),
    )
