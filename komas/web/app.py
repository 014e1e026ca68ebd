"""The QuartTrio factory: routes, error handlers, and the checks that stand before every view."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import trio
from quart import Response, current_app, g, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from komas.errors import CallerError, Forbidden, StoreUnavailable, VenueError
from komas.observability.metrics import Registry
from komas.web import cors, openapi, params, problems, query
from komas.web.access import Caller, origin_of
from komas.web.audit import ADMINISTRATOR, LOCAL_PROGRAM, AuditTrail, known_as
from komas.web.hypercorn.quart_connections import CLIENT_LEFT, RequestConnection, WebSocketConnection
from komas.web.metrics import families
from komas.web.problems import ProblemError
from komas.web.rate_limit import RateLimit
from komas.web.routes.admin import admin
from komas.web.routes.control import control
from komas.web.routes.debug import debug
from komas.web.routes.doors import NAME as DOORS
from komas.web.routes.doors import doors
from komas.web.routes.history import history
from komas.web.routes.market_sse import market, multiplex
from komas.web.routes.market_ws import market_socket
from komas.web.routes.ops import ops
from komas.web.routes.pages import pages
from komas.web.routes.signals_rest import publish, vips
from komas.web.routes.signals_ws import vip
from komas.web.services import Services

log = logging.getLogger(__name__)

BODY_BYTES = 64 * 1024  # the longest body that means anything: 200 symbols are 10 KB
UNREAD_BODY_S: Final = 1.0
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Producers and VIPs bring a token of their own, which the view checks; who knows the name of a connection reads it.
_PROVEN_OTHERWISE: Final = frozenset({"publish", "multiplex"})
# By what was routed: several ways of writing a path lead to it.
_PROTECTED = frozenset(
    {
        "ops.logs_today",
        "vips.show",
        "admin.sessions",
        "admin.readers",
        "admin.vips",
        "admin.signals",
        "admin.gaps",
        "debug.tasks",
    }
)


_ARGUMENT: Final = re.compile(r"<(?:\w+:)?(\w+)>")  # of a route
_PARAMETERS: Final = openapi.query_parameters()
_WITH_KEY: Final = {"POST": " with the same Idempotency-Key"}


def create_app(services: Services) -> QuartTrio:
    """Build the ASGI application over open components."""
    app = QuartTrio(__name__, static_folder=None)
    app.asgi_http_class = RequestConnection
    app.asgi_websocket_class = WebSocketConnection
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect with an address made of what the client sent
    rate_limit = RateLimit(services.settings, services.access)
    for routes in (
        control(services),
        market(services),
        multiplex(services),
        history(services),
        ops(services, Registry(lambda: families(services, rate_limit))),
        pages(),
        admin(services),
        debug(services),
        publish(services),
        vips(services),
        vip(services),
        market_socket(services),
        doors(services),
    ):
        app.register_blueprint(routes)
    _guard(app, services, rate_limit)
    _keep_account(app, services)
    _explain(app)
    return app


def _guard(app: QuartTrio, services: Services, rate_limit: RateLimit) -> None:
    @app.before_request
    async def check() -> Response | None:
        if (busy := await rate_limit.check(_caller())) is not None:
            return busy
        if request.method == "OPTIONS":
            return _preflight(services)
        if request.blueprint == DOORS:
            return None  # who may call, with what and how often, is the venue's to say
        if request.routing_exception is None:
            await _check_caller(services)
        params.check_once(dict(request.args.lists()))
        _check_spelling()
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
        is_change = request.method in _CHANGING and request.blueprint not in ("multiplex", DOORS)
        reads = not is_change and request.endpoint not in _PROTECTED
        caller = _caller()
        rate_limit.note_known(caller)
        page = services.access.page_of(caller)
        varies = list(response.vary)  # a packed file depends on what the browser unpacks, too
        response.headers.update(cors.headers_of(page, origin_of(caller) or "", reads=reads))
        response.vary.update(varies)
        response.headers["X-Content-Type-Options"] = "nosniff"
        # All that is told here is of this moment, and a cache may keep even an error for a while (RFC 9110, 15.1).
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _keep_account(app: QuartTrio, services: Services) -> None:
    trail = AuditTrail(services.access, services.traffic)

    @app.after_request
    async def count(response: Response) -> Response:
        rule = request.url_rule
        services.traffic.answered(None if rule is None else rule.rule, request.method, response.status_code)
        is_protected = request.endpoint in _PROTECTED
        if is_protected or request.method in _CHANGING:
            trail.note(response.status_code, g.get("problem"), is_protected=is_protected)
        return response

    @app.teardown_request
    async def note_left(_error: BaseException | None) -> None:
        if request.method in _CHANGING:
            trail.note_left()


def _caller() -> Caller:
    return Caller.of(request.scope, request.headers)


async def _check_caller(services: Services) -> None:
    """Raise a problem unless who calls may do so; what is not the market's or publishers' is the administrator's."""
    if request.blueprint in _PROVEN_OTHERWISE:
        return
    caller = _caller()
    if request.blueprint == "control" and request.method in _CHANGING:
        await services.access.check_control(caller)
    elif request.method in _CHANGING or request.endpoint in _PROTECTED:
        services.access.check_admin(caller)
    else:
        return
    known_as(ADMINISTRATOR if services.access.is_admin(caller) else LOCAL_PROGRAM)


def _check_spelling() -> None:
    """Refuse a parameter that is nearly one that the call has: what it was meant to say would not count."""
    params.check_spelling(request.args, _known_parameters())


def _known_parameters() -> frozenset[str]:
    rule = "" if request.url_rule is None else _ARGUMENT.sub(r"{\1}", request.url_rule.rule)
    return _PARAMETERS.get((rule, "GET" if request.method == "HEAD" else request.method), frozenset())


def _respond(problem: ProblemError) -> Response:
    """Answer with a problem document; where the client may mend it, it hears which parameters were ignored."""
    ignored: tuple[str, ...] = ()
    if has_request_context():
        g.problem = problem.detail  # for the log
    if has_request_context() and request.url_rule is not None and problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        known = _known_parameters()
        ignored = query.shown(name for name in query.unknown(request.args, known) if not query.meant(name, known))
    return problems.respond(problem, ignored)


def _preflight(services: Services) -> Response:
    """Answer a browser that asks before it calls, or anybody who asks what may be called."""
    if "Access-Control-Request-Method" in request.headers:
        headers = cors.preflight_of(services.access.page_of(_caller()))
    else:
        allowed = current_app.url_map.bind("").allowed_methods(request.path)
        headers = {"Allow": ", ".join(sorted({*allowed, "OPTIONS"}))}
    response = Response(b"", HTTPStatus.NO_CONTENT, headers)
    for name in ("Content-Length", "Content-Type"):  # RFC 9110, 8.6: there is no content to speak of
        del response.headers[name]
    return response


def _explain(app: QuartTrio) -> None:
    @app.errorhandler(ProblemError)
    async def problem(error: ProblemError) -> Response:
        return _respond(error)

    @app.errorhandler(CallerError)
    async def caller(error: CallerError) -> Response:
        return _respond(problems.from_caller(error))

    @app.errorhandler(VenueError)
    async def venue(error: VenueError) -> Response:
        return _respond(problems.from_venue(error))

    @app.errorhandler(Forbidden)
    async def forbidden(error: Forbidden) -> Response:
        return _respond(ProblemError(HTTPStatus.FORBIDDEN, str(error)))

    @app.errorhandler(StoreUnavailable)
    async def unavailable(_error: StoreUnavailable) -> Response:
        detail = "the store of signals is unavailable; try again" + _WITH_KEY.get(request.method, "")
        return _respond(ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"}))

    @app.errorhandler(WebsocketMismatch)
    async def mismatch(_error: WebsocketMismatch) -> Response:
        detail = (
            "this path is for WebSockets: Upgrade: websocket and Connection: Upgrade must arrive, also through a proxy"
            if has_request_context()
            else "this path is no WebSocket"
        )
        return _respond(ProblemError(HTTPStatus.BAD_REQUEST, detail))

    @app.errorhandler(HTTPException)
    async def http(error: HTTPException) -> Response:
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        return _respond(ProblemError(status, error.description or "", headers=headers))

    @app.errorhandler(Exception)
    async def bug(error: Exception) -> Response:
        # What was routed, not the path: that may hold anything.
        where = request.endpoint if has_request_context() else "websocket"
        log.error("request failed", exc_info=error, extra={"in": where})
        return _respond(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "komas failed; its log says why"))
