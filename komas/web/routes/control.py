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
from komas.model.market import Depth, Event, FeedState, Health
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.market import BinanceMarket
from komas.web import params
from komas.web.access import Caller
from komas.web.problems import FieldError, ProblemError, from_venue, invalid
from komas.web.services import Services

JSON = "application/json"
DEPTH_LEVELS = 100  # a side, where a client does not say


class ConnectionRow(msgspec.Struct, frozen=True):
    """One upstream socket, as ``GET /api/ws/status`` shows it."""

    url: str
    shard: int
    streams: int
    connected_at: str
    uptime_seconds: float
    messages_received: int


class StatusBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/status``; ``uptime_seconds`` is the first connection's, 0 while there is none."""

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


class StreamsBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/streams``."""

    count: int
    streams: tuple[StreamRow, ...]


class PricesBody(msgspec.Struct, frozen=True):
    """``GET /api/ws/prices``."""

    count: int
    prices: dict[str, Event]
    timestamp: str


def json_response(body: object, status: int = HTTPStatus.OK) -> Response:
    """Answer with JSON; numbers keep their digits."""
    return Response(encode(body), status, content_type=JSON)


async def check_listed(services: Services, streams: Sequence[Stream], field: str = "symbols") -> None:
    """Raise 400 for symbols that the exchange does not list, as far as it answers."""
    missing: list[str] = []
    for line in services.lines:
        symbols = {stream.symbol: None for stream in streams if services.line_of(stream) is line}
        missing += await line.listings.unknown(symbols) if symbols else []
    if missing:
        raise invalid(FieldError(field, f"{symbol} is not a symbol of the exchange") for symbol in missing)


def check_room(services: Services, streams: Sequence[Stream]) -> None:
    """Raise 409 when the exchange connection has no room for that many more streams."""
    interest, most = services.hub.interest, services.settings.max_streams
    more = sum(stream not in interest for stream in streams)
    if more and len(interest) + more > most:
        raise ProblemError(
            HTTPStatus.CONFLICT, f"{len(interest)} streams are open and {more} more were asked for; at most {most}"
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
        services.disconnect()
        return json_response(_status(services))

    @routes.post("/rotate")
    async def rotate() -> Response:
        return json_response({"replacing": sum(line.feed.rotate() for line in services.lines)})


def _stream_routes(routes: Blueprint, services: Services) -> None:
    @routes.post("/subscribe")
    async def subscribe() -> Response:
        wish = params.read_wish(await body_of(request), services.settings.max_symbols)
        streams = wish.streams if wish.every is None else await _every(services, wish.every)
        await _pin(services, streams)
        names = [stream.name for stream in streams]
        return json_response({"subscribed": names, "streams": len(services.hub.interest)})

    @routes.post("/unsubscribe")
    async def unsubscribe() -> Response:
        wish = params.read_wish(await body_of(request), services.settings.max_symbols)
        if wish.every is not None:
            pinned = list(services.spot.symbol_tracker.unfollow(wish.every))
        else:
            pinned = [stream for stream in wish.streams if services.hub.interest.pinned(stream)]
            services.hub.interest.unpin(pinned)
        return json_response(
            {"unsubscribed": [stream.name for stream in pinned], "streams": len(services.hub.interest)},
        )

    @routes.get("/prices")
    async def prices() -> Response:
        text = request.args.get("symbols")
        symbols = None if text is None else params.read_symbols(text, services.settings.max_symbols)
        found = {symbol: envelope.event for symbol, envelope in services.hub.latest.prices(symbols).items()}
        return json_response(PricesBody(len(found), found, iso_ms(services.clock_ms())))

    @routes.get("/streams")
    async def streams() -> Response:
        rows = tuple(_row(services, stream) for stream in services.hub.interest.streams())
        return json_response(StreamsBody(len(rows), rows))


def _depth_routes(routes: Blueprint, services: Services) -> None:
    @routes.get("/depth")
    async def depth() -> Response:
        stream, levels = params.read_depth(request.args, default=DEPTH_LEVELS, most=limits.DEPTH_ROWS)
        await check_listed(services, [stream], "symbol")
        check_room(services, [stream])
        address = services.access.address(Caller.of(request.scope, request.headers))
        if (reason := services.limits.why_full(address, [stream])) is not None:
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, reason)
        with services.limits.present(address, [stream]):
            return json_response(await _book(services, stream, levels))


async def _book(services: Services, stream: Stream, levels: int) -> Depth:
    """A book, once the exchange sends what changes in it and it is true; it is wanted as by a subscriber until then."""
    found: list[Depth] = []

    async def wait() -> None:
        await services.feed.acknowledged([stream])
        found.append(await services.spot.order_books.known(stream, levels))

    services.hub.interest.join([stream])  # it is kept for a while, so that the next call is quick
    try:
        services.connect()
        await _within_bounds(services, wait, "no order book", [services.spot])
    finally:
        services.hub.interest.leave([stream])
    return found[0]


def _quick_routes(routes: Blueprint, services: Services) -> None:
    @routes.post("/quick/start-prices")
    async def start_prices() -> Response:
        text = request.args.get("symbols")
        known = services.settings.default_symbols
        symbols = known if text is None else params.read_symbols(text, services.settings.max_symbols)
        await _pin(services, [Stream(Kind.TICKER, symbol) for symbol in symbols])
        url = f"/api/ws/sse/prices?symbols={quote(','.join(symbols), safe=',')}"
        return json_response({"status": "started", "symbols": symbols, "sse_url": url})

    @routes.post("/quick/stop")
    async def stop() -> Response:
        for kind in Kind:
            services.spot.symbol_tracker.unfollow(kind)
        services.hub.interest.unpin(services.hub.interest.pins())
        services.disconnect()
        return json_response({"status": "stopped"})


async def body_of(request: Request) -> bytes:
    """The whole body of a request."""
    body = await request.get_data()
    return body if isinstance(body, bytes) else body.encode()


async def _connect(services: Services) -> None:
    """Ask for the connection and wait for it, within bounds; it is tried on behind the answer."""
    services.connect()
    await _within_bounds(services, services.feed.connected, "no connection", [services.spot])


async def _every(services: Services, kind: Kind) -> tuple[Stream, ...]:
    """Every trading symbol, as streams of a kind; 502 while the exchange has not told its symbols."""
    if not await services.spot.listings.answered():
        raise ProblemError(HTTPStatus.BAD_GATEWAY, "the exchange has not told its symbols yet; komas goes on asking")
    check_room(services, services.spot.symbol_tracker.streams(kind))
    return services.spot.symbol_tracker.follow(kind)


async def _pin(services: Services, streams: Sequence[Stream]) -> None:
    """Pin streams and wait until the exchange has acknowledged them; they stay pinned when it takes longer."""
    await check_listed(services, streams)
    check_room(services, streams)
    services.hub.interest.pin(streams)
    services.connect()
    lines = [line for line in services.lines if any(services.line_of(stream) is line for stream in streams)]
    await _within_bounds(services, partial(_acknowledged, services, streams), "not acknowledged", lines)


async def _acknowledged(services: Services, streams: Sequence[Stream]) -> None:
    for line in services.lines:
        if own := [stream for stream in streams if services.line_of(stream) is line]:
            await line.feed.acknowledged(own)


async def _within_bounds(
    services: Services, wait: Callable[[], Awaitable[None]], what: str, lines: Sequence[BinanceMarket]
) -> None:
    """Wait for the exchange, but not for ever, and not when the server is about to stop.

    ``lines`` are those whose failure may be the reason.
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
        raise _why_not(lines, f"{what} within {services.settings.connect_wait_s:g} s; komas goes on trying")


def _why_not(lines: Sequence[BinanceMarket], what: str) -> ProblemError:
    failures = [line.feed.failure for line in lines if line.feed.failure is not None]
    if not failures:
        return ProblemError(HTTPStatus.GATEWAY_TIMEOUT, what)
    return ProblemError(HTTPStatus.BAD_GATEWAY, f"{what}: {failures[0]}")


def _status(services: Services) -> StatusBody:
    spot, futures = (line.feed.statistics() for line in services.lines)
    rows = tuple(
        ConnectionRow(row.url, row.shard, row.streams, iso_ms(row.connected_at_ms), row.uptime_s, row.messages_received)
        for row in (*spot.connections, *futures.connections)
    )
    newest_ms = max(spot.last_message_ms or 0, futures.last_message_ms or 0) or None
    return StatusBody(
        connected=services.feed.state is FeedState.CONNECTED,
        state=services.feed.state,
        url=services.feed.url + limits.STREAM_PATH,
        streams=len(services.hub.interest),
        subscribers=services.hub.subscribers,
        messages_received=spot.messages_received + futures.messages_received,
        reconnects=spot.reconnects + futures.reconnects,
        rotations=spot.rotations + futures.rotations,
        last_message_at=_iso(newest_ms),
        uptime_seconds=rows[0].uptime_seconds if spot.connections else 0.0,
        reason=services.hub.status.reason,
        connections=rows,
    )


def _row(services: Services, stream: Stream) -> StreamRow:
    line = services.line_of(stream)
    arrival = line.feed.arrival(stream)
    is_recovering = line.gap_filler.is_recovering(stream) or line.order_books.is_recovering(stream)
    return StreamRow(
        stream=stream.name,
        type=stream.kind,
        symbol=stream.symbol,
        interval=stream.interval,
        health=Health.RECOVERING if is_recovering else line.feed.health(stream),
        subscribers=services.hub.interest.subscribers(stream),
        pinned=services.hub.interest.pinned(stream),
        last_event_at=None if arrival is None else iso_ms(arrival.at_ms),
    )


def _iso(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else iso_ms(epoch_ms)
