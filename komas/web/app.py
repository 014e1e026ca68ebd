"""The QuartTrio factory: routes, error handlers, and the checks that stand before every view."""

from __future__ import annotations

import logging
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import trio
from quart import Response, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from komas.errors import CallerError, Forbidden, StoreUnavailable, VenueError
from komas.web import cors, problems
from komas.web.access import Caller, origin_of
from komas.web.hypercorn.quart_connections import CLIENT_LEFT, RequestConnection, WebSocketConnection
from komas.web.problems import FieldError, ProblemError, invalid
from komas.web.routes.control import control
from komas.web.routes.market_sse import market
from komas.web.routes.ops import ops
from komas.web.routes.pages import pages
from komas.web.routes.signals_rest import publish, vips
from komas.web.routes.signals_ws import vip
from komas.web.services import Services

log = logging.getLogger(__name__)

BODY_BYTES = 64 * 1024  # the longest body that means anything: 200 symbols are 10 KB
UNREAD_BODY_S: Final = 1.0
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PROTECTED = frozenset({"ops.logs_today", "vips.show"})  # by what was routed: several ways of writing a path lead to it


_WITH_KEY: Final = {"POST": " with the same Idempotency-Key"}


def create_app(services: Services) -> QuartTrio:
    """Build the ASGI application over open components."""
    app = QuartTrio(__name__, static_folder=None)
    app.asgi_http_class = RequestConnection
    app.asgi_websocket_class = WebSocketConnection
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect with an address made of what the client sent
    for routes in (
        control(services),
        market(services),
        ops(services),
        pages(),
        publish(services),
        vips(services),
        vip(services),
    ):
        app.register_blueprint(routes)
    _guard(app, services)
    _explain(app)
    return app


def _guard(app: QuartTrio, services: Services) -> None:
    @app.before_request
    async def check() -> Response | None:
        if request.method == "OPTIONS":
            return _preflight(services)
        if request.routing_exception is None:
            await _check_caller(services)
        _check_once(request.args)
        return None

    @app.after_request
    async def take_unread_body(response: Response) -> Response:
        """Of a request that is refused: a proxy that still sends it (Caddy) may lose the answer otherwise."""
        if request.method in _CHANGING and response.status_code >= HTTPStatus.BAD_REQUEST:
            with trio.move_on_after(UNREAD_BODY_S), suppress(HTTPException, *CLIENT_LEFT):
                await request.get_data()
        return response

    @app.after_request
    async def add_headers(response: Response) -> Response:
        reads = request.method not in _CHANGING and request.endpoint not in _PROTECTED
        caller = _caller()
        page = services.access.page_of(caller)
        varies = list(response.vary)  # a packed file depends on what the browser unpacks, too
        response.headers.update(cors.headers_of(page, origin_of(caller) or "", reads=reads))
        response.vary.update(varies)
        response.headers["X-Content-Type-Options"] = "nosniff"
        # All that is told here is of this moment, and a cache may keep even an error for a while (RFC 9110, 15.1).
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _caller() -> Caller:
    return Caller.of(request.scope, request.headers)


async def _check_caller(services: Services) -> None:
    """Raise a problem unless who calls may do so; what is not the market's or publishers' is the administrator's."""
    if request.blueprint == "publish":
        return  # producers and VIPs bring a token of their own, which the view checks
    if request.blueprint == "control" and request.method in _CHANGING:
        await services.access.check_control(_caller())
    elif request.method in _CHANGING or request.endpoint in _PROTECTED:
        services.access.check_admin(_caller())


def _check_once(query: MultiDict[str, str]) -> None:
    """Refuse what is said twice: the second would be lost in silence."""
    twice = [name[:40] for name, values in query.lists() if len(values) > 1]
    if twice:
        raise invalid(
            FieldError(name, f"{name} is given more than once; several values go with commas") for name in twice
        )


def _preflight(services: Services) -> Response:
    """Answer a browser that asks before it calls."""
    response = Response(b"", HTTPStatus.NO_CONTENT, cors.preflight_of(services.access.page_of(_caller())))
    for name in ("Content-Length", "Content-Type"):  # RFC 9110, 8.6: there is no content to speak of
        del response.headers[name]
    return response


def _explain(app: QuartTrio) -> None:
    @app.errorhandler(ProblemError)
    async def problem(error: ProblemError) -> Response:
        return problems.respond(error)

    @app.errorhandler(CallerError)
    async def caller(error: CallerError) -> Response:
        return problems.respond(problems.from_caller(error))

    @app.errorhandler(VenueError)
    async def venue(error: VenueError) -> Response:
        return problems.respond(problems.from_venue(error))

    @app.errorhandler(Forbidden)
    async def forbidden(error: Forbidden) -> Response:
        return problems.respond(ProblemError(HTTPStatus.FORBIDDEN, str(error)))

    @app.errorhandler(StoreUnavailable)
    async def unavailable(_error: StoreUnavailable) -> Response:
        detail = "the store of signals is unavailable; try again" + _WITH_KEY.get(request.method, "")
        return problems.respond(ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"}))

    @app.errorhandler(WebsocketMismatch)
    async def mismatch(_error: WebsocketMismatch) -> Response:
        detail = (
            "this path is for WebSockets: Upgrade: websocket and Connection: Upgrade must arrive, also through a proxy"
            if has_request_context()
            else "this path is no WebSocket"
        )
        return problems.respond(ProblemError(HTTPStatus.BAD_REQUEST, detail))

    @app.errorhandler(HTTPException)
    async def http(error: HTTPException) -> Response:
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        return problems.respond(ProblemError(status, error.description or "", headers=headers))

    @app.errorhandler(Exception)
    async def bug(error: Exception) -> Response:
        # What was routed, not the path: that may hold anything.
        where = request.endpoint if has_request_context() else "websocket"
        log.error("request failed", exc_info=error, extra={"in": where})
        return problems.respond(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "komas failed; its log says why"))
