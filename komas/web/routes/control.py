"""REST: connect, subscribe, look at prices; contract section 2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from urllib.parse import quote

import msgspec
import trio
from quart import Blueprint, Request, Response, request

from komas.errors import VenueError
from komas.model.codec import encode, iso_ms
from komas.model.kinds import Kind
from komas.model.market import BOOK_LEVELS_ASKED, Depth, FeedState, Health
from komas.model.streams import Stream
from komas.web import params
from komas.web.access import Caller
from komas.web.audit import concerns
from komas.web.cluster import ClusterBody
from komas.web.limits import REST
from komas.web.markets import Market
from komas.web.problems import FieldError, ProblemError, from_venue, invalid
from komas.web.services import Services
from komas.web.shared_answer import SharedAnswer
from komas.web.sliced_json import SLICE, encode_array, encode_object

JSON = "application/json"
DEPTH_LEVELS = 100  # a side, where a client does not say
BUSY_S = 10  # after which a client that was turned away may come back


class ConnectionRow(msgspec.Struct, frozen=True):
    """One upstream socket, as ``GET /api/ws/status`` shows it."""

    url: str
    shard: int
    streams: int
    connected_at: str
    uptime_seconds: float
    messages_received: int


class GapCounts(msgspec.Struct, frozen=True):
    """Since the start: runs of missing events, events of them that were filled in, and gaps that were declared."""

    found: int
    filled: int
    declared: int


class StatusBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/status``; ``uptime_seconds`` is the first connection's, 0 while there is none.

    ``cluster`` is there where there are other processes (``backplane``).
    """

    connected: bool
    state: FeedState
    url: str
    streams: int
    subscribers: int
    messages_received: int
    reconnects: int
    rotations: int
    last_message_at: str | None
    uptime_seconds: float
    reason: str | None
    connections: tuple[ConnectionRow, ...]
    gaps: GapCounts
    timestamp: str
    cluster: ClusterBody | msgspec.UnsetType = msgspec.UNSET


class StreamRow(msgspec.Struct, frozen=True):
    """One stream, as ``GET /api/ws/streams`` shows it."""

    stream: str
    type: Kind
    symbol: str
    interval: str | None
    health: Health
    subscribers: int
    pinned: bool
    last_event_at: str | None


def json_response(body: object, status: int = HTTPStatus.OK) -> Response:
    """Answer with JSON; numbers keep their digits."""
    return Response(encode(body), status, content_type=JSON)


def _json(body: bytes) -> Response:
    """Answer with JSON that is encoded already: many answers may share it."""
    return Response(body, HTTPStatus.OK, content_type=JSON)


async def check_listed(services: Services, streams: Sequence[Stream], field: str = "symbols") -> None:
    """Raise 400 for symbols that the exchange does not list, as far as it answers."""
    missing: list[str] = []
    for market, own in services.markets.split(streams).items():
        missing += await market.listings.unknown(dict.fromkeys(stream.symbol for stream in own))
    if missing:
        raise invalid(FieldError(field, f"{symbol} is not a symbol of the exchange") for symbol in missing)


def check_room(services: Services, streams: Sequence[Stream]) -> None:
    """Raise 409 when the exchange connection has no room for that many more streams."""
    if not services.stream_limits.has_room_for_pins(streams):
        interest = services.hub.interest
        more = sum(stream not in interest for stream in streams)
        raise ProblemError(
            HTTPStatus.CONFLICT,
            f"{len(interest)} streams are open and {more} more were asked for; at most {services.settings.max_streams}",
        )


def control(services: Services) -> Blueprint:
    """The routes."""
    routes = Blueprint("control", __name__, url_prefix="/api/ws")
    _connection_routes(routes, services)
    _stream_routes(routes, services)
    _depth_routes(routes, services)
    _quick_routes(routes, services)
    return routes


def _connection_routes(routes: Blueprint, services: Services) -> None:
    @routes.get("/status")
    async def status() -> Response:
        return json_response(_status(services))

    @routes.post("/connect")
    async def connect() -> Response:
        await _connect(services)
        return json_response(_status(services))

    @routes.post("/disconnect")
    async def disconnect() -> Response:
        await services.commands.disconnect()
        return json_response(_status(services))

    @routes.post("/rotate")
    async def rotate() -> Response:
        return json_response({"replacing": await services.commands.rotate()})


def _stream_routes(routes: Blueprint, services: Services) -> None:
    # A small answer costs no more than what else there is to do for a request: it is of this moment, for each client.
    all_prices = SharedAnswer(partial(_prices, services, None))
    all_streams = SharedAnswer(partial(_streams, services), lambda: services.hub.interest.version)

    @routes.post("/subscribe")
    async def subscribe() -> Response:
        asked = params.read_subscribe_request(await body_of(request), services.settings.max_symbols)
        concerns(streams=_names(asked))
        streams = asked.streams if asked.every is None else await _every(services, asked.every)
        await _pin(services, streams)
        names = [stream.name for stream in streams]
        return json_response({"subscribed": names, "streams": len(services.hub.interest)})

    @routes.post("/unsubscribe")
    async def unsubscribe() -> Response:
        asked = params.read_subscribe_request(await body_of(request), services.settings.max_symbols)
        concerns(streams=_names(asked))
        if asked.every is not None:
            pinned = list(await services.commands.unfollow(asked.every))
        else:
            pinned = [stream for stream in asked.streams if services.hub.interest.pinned(stream)]
            await services.commands.unpin(pinned)
        return json_response(
            {"unsubscribed": [stream.name for stream in pinned], "streams": len(services.hub.interest)},
        )

    @routes.get("/prices")
    async def prices() -> Response:
        text = request.args.get("symbols")
        if text is not None:
            symbols = params.read_symbols(text, services.settings.max_symbols)
            return _json(await _prices(services, symbols))
        is_small = len(services.hub.interest) <= SLICE
        return _json(await (_prices(services, None) if is_small else all_prices.get()))

    @routes.get("/streams")
    async def streams() -> Response:
        is_small = len(services.hub.interest) <= SLICE
        return _json(await (_streams(services) if is_small else all_streams.get()))


def _names(asked: params.SubscribeRequest) -> list[str]:
    return [f"*@{asked.every}"] if asked.every is not None else [stream.name for stream in asked.streams]


async def _prices(services: Services, symbols: Sequence[str] | None) -> bytes:
    """``GET /api/ws/prices``."""
    found = services.hub.latest.prices(symbols)
    told_at = iso_ms(services.clock_ms())
    prices = await encode_object((symbol, envelope.event) for symbol, envelope in found.items())
    return b'{"count":%d,"prices":%b,"timestamp":"%b"}' % (len(found), prices, told_at.encode())


async def _streams(services: Services) -> bytes:
    """``GET /api/ws/streams``."""
    wanted = services.hub.open_streams.streams()
    rows = await encode_array(_row(services, stream) for stream in wanted)
    return b'{"count":%d,"streams":%b}' % (len(wanted), rows)


def _depth_routes(routes: Blueprint, services: Services) -> None:
    @routes.get("/depth")
    async def depth() -> Response:
        stream, levels = params.read_depth(request.args, default=DEPTH_LEVELS, most=BOOK_LEVELS_ASKED)
        await check_listed(services, [stream], "symbol")
        address = address_of(services)
        reason = services.limits.why_full(address) or services.stream_limits.why_full(address, [stream])
        if reason is not None:
            raise turned_away(reason)
        with services.limits.present(address, REST):
            return json_response(await _book(services, stream, address, levels))


async def _book(services: Services, stream: Stream, reader: str, levels: int) -> Depth:
    """A book, once the exchange sends what changes in it and it is true; it is wanted as by a subscriber until then."""
    found: list[Depth] = []

    market = services.markets.of(stream)

    async def wait() -> None:
        await market.feed.acknowledged([stream])
        found.append(await market.order_books.known(stream, levels))

    services.hub.interest.join([stream], reader)  # it is kept for a while, so that the next call is quick
    try:
        services.markets.connect()
        await _within_bounds(services, wait, "no order book", [market])
    finally:
        services.hub.interest.leave([stream], reader)
    return found[0]


def _quick_routes(routes: Blueprint, services: Services) -> None:
    @routes.post("/quick/start-prices")
    async def start_prices() -> Response:
        text = request.args.get("symbols")
        known = services.settings.default_symbols
        symbols = known if text is None else params.read_symbols(text, services.settings.max_symbols)
        concerns(symbols=list(symbols))
        await _pin(services, [Stream.of(Kind.TICKER, symbol) for symbol in symbols])
        url = f"/api/ws/sse/prices?symbols={quote(','.join(symbols), safe=',')}"
        return json_response({"status": "started", "symbols": symbols, "sse_url": url})

    @routes.post("/quick/stop")
    async def stop() -> Response:
        for kind in Kind:
            await services.commands.unfollow(kind)
        await services.commands.unpin(services.hub.interest.pins())
        await services.commands.disconnect()
        return json_response({"status": "stopped"})


def address_of(services: Services) -> str:
    """The address that the present request is counted by."""
    return services.access.address(Caller.of(request.scope, request.headers))


def turned_away(reason: str) -> ProblemError:
    """What a client hears that may come back in a while."""
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, reason, headers={"Retry-After": str(BUSY_S)})


async def body_of(request: Request) -> bytes:
    """The whole body of a request."""
    body = await request.get_data()
    return body if isinstance(body, bytes) else body.encode()


async def _connect(services: Services) -> None:
    """Ask for the connection and wait for it, within bounds; it is tried on behind the answer."""
    services.markets.connect()
    primary = services.markets.primary
    await _within_bounds(services, primary.feed.connected, "no connection", [primary])


async def _every(services: Services, kind: Kind) -> tuple[Stream, ...]:
    """Every trading symbol, as streams of a kind; 502 while the exchange has not told its symbols."""
    market = services.markets.with_kind(kind)
    if not await market.listings.answered():
        raise ProblemError(HTTPStatus.BAD_GATEWAY, "the exchange has not told its symbols yet; komas goes on asking")
    check_room(services, market.symbol_tracker.streams(kind))
    return await services.commands.follow(kind)


async def _pin(services: Services, streams: Sequence[Stream]) -> None:
    """Pin streams and wait until the exchange has acknowledged them; they stay pinned when it takes longer."""
    await check_listed(services, streams)
    check_room(services, streams)
    await services.commands.pin(streams)
    services.markets.connect()
    concerned = services.markets.split(streams)

    async def wait() -> None:
        for market, own in concerned.items():
            await market.feed.acknowledged(own)

    await _within_bounds(services, wait, "not acknowledged", list(concerned))


async def _within_bounds(
    services: Services, wait: Callable[[], Awaitable[None]], what: str, markets: Sequence[Market]
) -> None:
    """Wait for the exchange, but not for ever, and not when the server is about to stop.

    ``markets`` are those whose failure may be the reason.
    """
    failure: VenueError | None = None
    done = False
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + services.settings.connect_wait_s

        async def leave() -> None:
            await services.draining.wait()
            nursery.cancel_scope.cancel("draining")

        nursery.start_soon(leave)
        try:
            await wait()
            done = True
        except VenueError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise from_venue(failure)
    if services.draining.is_set() and not done:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down")
    if not done:
        raise _why_not(markets, f"{what} within {services.settings.connect_wait_s:g} s; komas goes on trying")


def _why_not(markets: Sequence[Market], what: str) -> ProblemError:
    failures = [market.feed.failure for market in markets if market.feed.failure is not None]
    if not failures:
        return ProblemError(HTTPStatus.GATEWAY_TIMEOUT, what)
    return ProblemError(HTTPStatus.BAD_GATEWAY, f"{what}: {failures[0]}")


def _status(services: Services) -> StatusBody:
    primary = services.markets.primary.feed
    counts = [market.feed.statistics() for market in services.markets]
    fills = [market.gap_filler.statistics() for market in services.markets]
    rows = tuple(
        ConnectionRow(row.url, row.shard, row.streams, iso_ms(row.connected_at_ms), row.uptime_s, row.messages_received)
        for each in counts
        for row in each.connections
    )
    return StatusBody(
        connected=services.markets.is_connected,
        state=primary.status.state,
        url=primary.url,
        streams=len(services.hub.open_streams),
        subscribers=services.hub.subscribers,
        messages_received=sum(each.messages_received for each in counts),
        reconnects=sum(each.reconnects for each in counts),
        rotations=sum(each.rotations for each in counts),
        last_message_at=_iso(max((each.last_message_ms or 0 for each in counts), default=0) or None),
        uptime_seconds=rows[0].uptime_seconds if counts[0].connections else 0.0,
        reason=primary.status.reason,
        connections=rows,
        gaps=GapCounts(
            found=sum(fill.gaps for fill in fills),
            filled=sum(fill.filled for fill in fills),
            declared=sum(fill.declared for fill in fills),
        ),
        timestamp=iso_ms(services.clock_ms()),
        cluster=msgspec.UNSET if services.cluster is None else services.cluster.body(),
    )


def _row(services: Services, stream: Stream) -> StreamRow:
    health = services.markets.of(stream).health
    arrival = health.arrival(stream)
    return StreamRow(
        stream=stream.name,
        type=stream.kind,
        symbol=stream.symbol,
        interval=stream.interval,
        health=health.of(stream).health,
        subscribers=services.hub.interest.subscribers(stream),
        pinned=services.hub.interest.pinned(stream),
        last_event_at=None if arrival is None else iso_ms(arrival.at_ms),
    )


def _iso(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else iso_ms(epoch_ms)
