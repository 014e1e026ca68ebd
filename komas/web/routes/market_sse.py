"""The SSE routes; contract section 3. What a client asks for is checked before the first event."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec
from quart import Blueprint, Response, request

from komas.errors import CallerError
from komas.model.market import BOOK_LEVELS_PUBLISHED
from komas.model.streams import Stream, parse_name
from komas.web import params, sse
from komas.web.hypercorn.transport import ClientTransport, transport_of
from komas.web.limits import SSE
from komas.web.multiplex import MultiplexedBody, MultiplexedShow, MultiplexOptions
from komas.web.problems import ProblemError
from komas.web.routes.control import address_of, body_of, check_listed, json_response, turned_away
from komas.web.services import Services

CHANGE: Final = "change"  # what another process is asked to do to a connection
NOT_YET: Final = "this process has not read so far yet"  # of a log that several share


def market(services: Services) -> Blueprint:
    """The routes."""
    routes = Blueprint("market", __name__, url_prefix="/api/ws/sse")

    @routes.get("/prices")
    async def prices() -> Response:
        streams, max_rate = params.together(
            lambda: params.read_price_streams(request.args, services.settings.max_symbols),
            lambda: params.read_rate(request.args.get("max_rate")),
        )
        show = sse.Show(max_rate=max_rate)
        await check_listed(services, streams, "symbols")
        return _open(services, streams, show)

    @routes.get("/klines")
    async def klines() -> Response:
        stream, candles = params.together(
            lambda: params.read_kline_stream(request.args), lambda: params.read_history(request.args.get("history"))
        )
        await check_listed(services, [stream], "symbol")
        returning = sse.return_of(request.headers, request.args)
        if not await _has_passed(services, returning, stream):
            return sse.busy(NOT_YET, returning)
        if not candles or returning is not None:  # who comes back has the past, and what it missed is in the history
            return _open(services, [stream], sse.Show(), returning=returning)
        show = MultiplexedShow(epoch=lambda: services.hub.epoch, is_single=True)
        return _open_many(services, [stream], show, candles, has_name=False)

    @routes.get("/trades")
    async def trades() -> Response:
        stream = params.read_trade_stream(request.args)
        await check_listed(services, [stream], "symbol")
        returning = sse.return_of(request.headers, request.args)
        if not await _has_passed(services, returning, stream):
            return sse.busy(NOT_YET, returning)
        return _open(services, [stream], sse.Show(), returning=returning)

    @routes.get("/depth")
    async def depth() -> Response:
        (stream, levels), max_rate = params.together(
            lambda: params.read_depth(request.args, default=params.DEPTH_SHOWN, most=BOOK_LEVELS_PUBLISHED),
            lambda: params.read_rate(request.args.get("max_rate")),
        )
        show = sse.Show(levels, max_rate)
        await check_listed(services, [stream], "symbol")
        return _open(services, [stream], show)

    @routes.get("/stream")
    async def stream() -> Response:
        settings = services.settings
        streams, levels, candles, max_rate = params.together(
            lambda: params.read_streams(request.args.get("streams"), settings.max_streams_per_address),
            lambda: params.read_levels(request.args.get("limit")),
            lambda: params.read_history(request.args.get("history")),
            lambda: params.read_rate(request.args.get("max_rate")),
        )
        await check_listed(services, streams, "streams")
        returning = sse.return_of(request.headers, request.args)
        if not await _has_passed(services, returning, None):
            return sse.busy(NOT_YET, returning)
        show = MultiplexedShow(levels=levels, max_rate=max_rate, epoch=lambda: services.hub.epoch)
        return _open_many(services, streams, show, candles, returning=returning)

    return routes


def multiplex(services: Services) -> Blueprint:
    """The route that changes what an open connection reads; its name is the proof."""
    routes = Blueprint("multiplex", __name__, url_prefix="/api/ws/sse/stream")

    cluster = services.cluster
    if cluster is not None:
        cluster.answer(CHANGE, partial(_answer_change, services))

    @routes.post("/<connection>")
    async def change(connection: str) -> Response:
        body = await body_of(request)
        asked = params.read_change(body, services.settings.max_streams_per_address)
        await check_listed(services, asked.subscribe, "subscribe")
        changed = _change(services, connection, asked)
        if changed is None and cluster is not None:  # a balancer sends a client's requests to any process
            names = (tuple(stream.name for stream in streams) for streams in (asked.subscribe, asked.unsubscribe))
            answer = await cluster.inquire(CHANGE, _changes.encode(_Change(connection, *names)))
            changed = None if answer is None else _changed.decode(answer)
        if changed is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such connection; it may have been cut")
        if changed.why_full is not None:
            raise turned_away(changed.why_full)
        return json_response({"streams": changed.streams})

    return routes


async def _has_passed(services: Services, returning: sse.Return | None, stream: Stream | None) -> bool:
    """Whether a reader that comes back may come in: from another process it may be ahead of this one for a moment."""
    if services.cluster is None:
        return True
    place = None if returning is None else returning.position
    if place is None and stream is not None:
        return True  # of a stream by itself each event tells the name of its epoch
    return await services.cluster.passed(place, stream)


class _Change(msgspec.Struct):
    """What another process is asked to change, by the name of the connection, which is the proof."""

    connection: str
    subscribe: tuple[str, ...]
    unsubscribe: tuple[str, ...]


class _Changed(msgspec.Struct):
    """What the connection reads now, or why it cannot be more."""

    streams: tuple[str, ...] = ()
    why_full: str | None = None


_changes: Final = msgspec.json.Encoder()
_asked: Final = msgspec.json.Decoder(_Change)
_changed: Final = msgspec.json.Decoder(_Changed)


def _change(services: Services, connection: str, asked: params.StreamChange) -> _Changed | None:
    """Change what a connection reads; ``None`` where it is not here. No await in here: what is checked is still so."""
    found = services.connections.get(connection)
    if found is None:
        return None
    fresh = [stream for stream in asked.subscribe if stream not in found.streams]
    if fresh and (reason := services.stream_limits.why_full(found.reader, fresh)) is not None:
        return _Changed(why_full=reason)
    services.markets.connect()
    found.change(asked.subscribe, asked.unsubscribe)
    return _Changed(tuple(stream.name for stream in found.streams))


def _answer_change(services: Services, body: bytes) -> bytes | None:
    """Change what a connection of this process reads, asked by another one, which has checked the names."""
    try:
        asked = _asked.decode(body)
        streams = [tuple(map(parse_name, names)) for names in (asked.subscribe, asked.unsubscribe)]
    except (msgspec.MsgspecError, CallerError):
        return None  # of a release that has other streams, or says other things
    changed = _change(services, asked.connection, params.StreamChange(*streams))
    return None if changed is None else _changes.encode(changed)


def _open(
    services: Services, streams: Sequence[Stream], show: sse.Show, *, returning: sse.Return | None = None
) -> Response:
    if request.method == "HEAD":
        return sse.head()
    options = _options(services, streams, show, returning)
    return sse.respond(sse.EventBody(services.hub, options, _Admission(services, streams, options.reader)))


def _open_many(
    services: Services,
    streams: Sequence[Stream],
    show: MultiplexedShow,
    candles: int,
    *,
    returning: sse.Return | None = None,
    has_name: bool = True,
) -> Response:
    if request.method == "HEAD":
        return sse.head()
    options = _options(services, streams, show, returning)
    more = MultiplexOptions(
        greeting=services.greeting,
        connections=services.connections if has_name else None,
        past=services.past,
        candles=candles,
    )
    return sse.respond(MultiplexedBody(services.hub, options, more, _Admission(services, streams, options.reader)))


def _options(
    services: Services, streams: Sequence[Stream], show: sse.Show, returning: sse.Return | None
) -> sse.ReadOptions:
    settings = services.settings
    transport = transport_of(request.scope) if settings.direct_writes else ClientTransport()
    return sse.ReadOptions(
        streams=streams,
        reader=address_of(services),
        show=show,
        heartbeat_s=settings.heartbeat_s,
        capacity=settings.mailbox,
        returning=returning,
        writer=transport.writer,
        take_over=transport.take_over,
    )


class _Admission:
    """Counts a client while the block lasts; entering it is told why it cannot come in, where it cannot."""

    __slots__ = ("_address", "_is_in", "_services", "_streams")

    def __init__(self, services: Services, streams: Sequence[Stream], address: str) -> None:
        self._services = services
        self._streams = streams
        self._address = address
        self._is_in = False

    def __enter__(self) -> str | None:
        if (reason := _why_busy(self._services, self._streams, self._address)) is not None:
            return reason
        self._services.markets.connect()
        self._services.limits.enter(self._address, SSE)
        self._is_in = True
        return None

    def __exit__(self, *_failure: object) -> None:
        if self._is_in:
            self._services.limits.leave(self._address, SSE)


def _why_busy(services: Services, streams: Sequence[Stream], address: str) -> str | None:
    if services.draining.is_set():
        return "the server is shutting down"
    return services.limits.why_full(address) or services.stream_limits.why_full(address, streams)
