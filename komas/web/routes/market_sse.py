"""The SSE routes; contract section 3. What a client asks for is checked before the first event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from quart import Blueprint, Response, request

from komas.model.market import BOOK_LEVELS_PUBLISHED
from komas.model.streams import Stream
from komas.web import params, sse
from komas.web.access import Caller
from komas.web.hypercorn.transport import transport_of
from komas.web.routes.control import check_listed
from komas.web.services import Services

DEPTH_SHOWN = 20  # levels a side, where a client does not say


def market(services: Services) -> Blueprint:
    """The routes."""
    routes = Blueprint("market", __name__, url_prefix="/api/ws/sse")

    @routes.get("/prices")
    async def prices() -> Response:
        streams = params.read_price_streams(request.args, services.settings.max_symbols)
        show = sse.Show(max_rate=params.read_rate(request.args.get("max_rate")))
        await check_listed(services, streams, "symbols")
        return _open(services, streams, show)

    @routes.get("/klines")
    async def klines() -> Response:
        stream = params.read_kline_stream(request.args)
        await check_listed(services, [stream], "symbol")
        return _open(services, [stream], sse.Show(), returning=sse.return_of(request.headers, request.args))

    @routes.get("/trades")
    async def trades() -> Response:
        stream = params.read_trade_stream(request.args)
        await check_listed(services, [stream], "symbol")
        return _open(services, [stream], sse.Show(), returning=sse.return_of(request.headers, request.args))

    @routes.get("/depth")
    async def depth() -> Response:
        stream, levels = params.read_depth(request.args, default=DEPTH_SHOWN, most=BOOK_LEVELS_PUBLISHED)
        show = sse.Show(levels, params.read_rate(request.args.get("max_rate")))
        await check_listed(services, [stream], "symbol")
        return _open(services, [stream], show)

    return routes


def _open(
    services: Services, streams: Sequence[Stream], show: sse.Show, *, returning: sse.Return | None = None
) -> Response:
    if request.method == "HEAD":
        return sse.head()
    address = services.access.address(Caller.of(request.scope, request.headers))
    settings = services.settings
    options = sse.ReadOptions(
        streams=streams,
        reader=address,
        show=show,
        heartbeat_s=settings.heartbeat_s,
        capacity=settings.mailbox,
        returning=returning,
        writer=transport_of(request.scope).writer if settings.direct_writes else None,
    )
    return sse.respond(sse.EventBody(services.hub, options, _admission(services, streams, address)))


@contextmanager
def _admission(services: Services, streams: Sequence[Stream], address: str) -> Iterator[str | None]:
    """Count a client while the block lasts; yields why it cannot come in, where it cannot, and ``None`` otherwise."""
    if (reason := _why_busy(services, streams, address)) is not None:
        yield reason
        return
    services.markets.connect()
    with services.limits.present(address):
        yield None


def _why_busy(services: Services, streams: Sequence[Stream], address: str) -> str | None:
    if services.draining.is_set():
        return "the server is shutting down"
    return services.limits.why_full(address) or services.stream_limits.why_full(address, streams)
