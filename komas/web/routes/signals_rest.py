"""Signals in, and VIPs; contract section 4."""

from __future__ import annotations

import math
from decimal import Decimal
from http import HTTPStatus
from typing import Final

import msgspec
from quart import Blueprint, Response, g, request

from komas.errors import Unauthorized
from komas.model.codec import read_object
from komas.model.signals import MOST_DAYS, Principal, Signal, Vip
from komas.signals.entitlements import is_vip
from komas.signals.service import check_scope
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import check_key, read_changes, read_new_signal
from komas.web import audit, params
from komas.web.access import Caller
from komas.web.audit import concerns, known_as
from komas.web.bearer import bearer_of
from komas.web.problems import FieldError, ProblemError, invalid
from komas.web.routes.control import JSON, body_of, json_response
from komas.web.services import Services

# May publish, and be told from producers in what is stored; VIP it is not.
ADMINISTRATOR: Final = Principal("admin", expires_at=math.inf, scopes=frozenset({SCOPE_PUBLISH}))
PAGE: int = 100
LONGEST_PAGE: int = 1000


class SignalsBody(msgspec.Struct, frozen=True):
    """``GET /api/signals``; ask again with ``next_since_id`` for what follows."""

    count: int
    signals: tuple[Signal, ...]
    next_since_id: int


class VipBody(msgspec.Struct, frozen=True):
    """What the store knows of a user's VIP."""

    user_id: str
    active: bool
    revoked: bool
    vip_until: int | None


def publish(services: Services) -> Blueprint:
    """The routes of producers and VIPs; they bring tokens."""
    routes = Blueprint("publish", __name__, url_prefix="/api/signals")
    service = services.signals.service

    @routes.post("")
    async def create_signal() -> Response:
        principal = await _publisher(services)
        wording = read_new_signal(await body_of(request), services.settings.signal_types)
        concerns(type=wording.signal_type)
        event = await service.publish(principal, wording, check_key(request.headers.get("Idempotency-Key")))
        concerns(signal=event.signal_id)
        body = {"id": event.signal_id, "signal_type": event.signal_type, "data": event.data}
        return _respond(body, HTTPStatus.CREATED)

    @routes.patch("/<signal_id>")
    async def changed(signal_id: str) -> Response:
        principal = await _publisher(services)
        changes = read_changes(await body_of(request))
        number = params.read_count(signal_id, "id", default=0, most=params.LARGEST)
        signal = await service.update(principal, number, changes)
        if signal is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no signal {number}")
        return _respond(signal)

    @routes.get("")
    async def listed() -> Response:
        principal = await _principal(services)
        if not is_vip(
            principal, await services.signals.vips.known(principal.subject), services.signals.clock_ms() / 1000
        ):
            raise ProblemError(HTTPStatus.FORBIDDEN, "VIP subscription required")
        given, settings = request.args, services.settings
        since_id, limit, wanted = params.together(
            lambda: params.read_count(given.get("since_id"), "since_id", default=0, least=0, most=params.LARGEST),
            lambda: params.read_count(given.get("limit"), "limit", default=PAGE, most=LONGEST_PAGE),
            lambda: params.read_signal_filter(given, settings.signal_types, settings.max_symbols),
        )
        # Read before the page: what is not on an empty one, up to there, was left out by the filter.
        newest_id, found = await services.signals.store.read(
            lambda database: (database.newest_signal_id(), database.signals_after(since_id, limit, wanted=wanted))
        )
        return _respond(SignalsBody(len(found), tuple(found), found[-1].id if found else max(since_id, newest_id)))

    return routes


def vips(services: Services) -> Blueprint:
    """The routes of administrators."""
    routes = Blueprint("vips", __name__, url_prefix="/api/vip")
    members = services.signals.vips

    def now_s() -> float:
        return services.signals.clock_ms() / 1000

    @routes.post("/<path:user_id>")
    async def grant(user_id: str) -> Response:
        subject, days = _subject(user_id), _days(await body_of(request))
        concerns(days=days)
        return json_response(vip_body(subject, await members.grant(subject, days), now_s()))

    @routes.delete("/<path:user_id>")
    async def revoke(user_id: str) -> Response:
        subject = _subject(user_id)
        return json_response(vip_body(subject, await members.revoke(subject), now_s()))

    @routes.get("/<path:user_id>")
    async def show(user_id: str) -> Response:
        subject = _subject(user_id)
        return json_response(vip_body(subject, await members.known(subject), now_s()))

    return routes


def _respond(body: object, status: int = HTTPStatus.OK) -> Response:
    """Answer with signals, whose data is text already."""
    return Response(msgspec.json.encode(body), status, content_type=JSON)


async def _publisher(services: Services) -> Principal:
    """Who publishes: a producer, by its token, or the administrator."""
    if services.access.is_admin(Caller.of(request.scope, request.headers)):
        known_as(audit.ADMINISTRATOR)
        return ADMINISTRATOR
    principal = await _principal(services)
    known_as(f"user {principal.subject}")
    check_scope(principal)
    return principal


async def _principal(services: Services) -> Principal:
    try:
        principal = await services.signals.authenticator.authenticate(bearer_of(request.headers))
    except Unauthorized:
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED,
            "this call needs 'Authorization: Bearer <token>' with a valid access token",
            headers={"WWW-Authenticate": 'Bearer realm="komas"'},
        ) from None
    g.is_known = True  # for the rate limit
    return principal


def vip_body(subject: str, known: Vip | None, now_s: float) -> VipBody:
    """A user's VIP as it is shown."""
    if known is None:
        return VipBody(subject, active=False, revoked=False, vip_until=None)
    return VipBody(subject, known.is_active(now_s), known.revoked, known.until_s)


def _subject(text: str) -> str:
    if text.endswith("/"):  # elsewhere it makes no difference; here it would make another user
        raise invalid([FieldError("user_id", "user_id does not end in a slash")])
    subject = params.read_user(text, "user_id")
    assert subject is not None  # the path has one
    return subject


def _days(body: bytes) -> int:
    try:
        table = read_object(body)
    except msgspec.MsgspecError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is not a JSON object: {error}") from None
    days = table.get("days")
    if table.keys() == {"days"} and isinstance(days, int | Decimal) and not isinstance(days, bool):
        whole = int(days) if 1 <= days <= MOST_DAYS else 0
        if whole and whole == days:  # JSON has one kind of number: 30.0 is whole
            return whole
    raise invalid([FieldError("days", f'the body is {{"days": N}}, N a whole number from 1 to {MOST_DAYS}')])
