"""What an administrator sees of others: who is connected, who reads what, who is VIP, what was missed."""

from __future__ import annotations

from typing import Final

import msgspec
import trio
from quart import Blueprint, Response, request

from komas.model.codec import iso_ms
from komas.model.signals import Signal
from komas.web import params
from komas.web.audit import concerns
from komas.web.problems import ProblemError
from komas.web.routes.control import JSON, json_response
from komas.web.routes.signals_rest import VipBody, vip_body
from komas.web.services import Services

HOUR_S: Final = 3600.0
MOST: Final = 1000  # rows of an answer; the longest ids make a MiB of them
VIPS: Final = 100  # of an answer, where a client does not say
SIGNALS: Final = 100


class SessionRow(msgspec.Struct, frozen=True):
    """One signal socket."""

    id: str
    user_id: int | str
    address: str
    since: str
    behind: int
    admitted: bool = True


class SessionsBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/sessions``; ``count`` is of all, of which some are shown."""

    count: int
    sessions: tuple[SessionRow, ...]


class ReaderRow(msgspec.Struct, frozen=True):
    """One address that reads the market, or for which streams linger."""

    address: str
    streams: int
    subscriptions: int


class ReadersBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/readers``; those with most streams first."""

    count: int
    readers: tuple[ReaderRow, ...]


class VipsBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/vips``; ask again with ``next_after`` for what follows."""

    count: int
    vips: tuple[VipBody, ...]
    next_after: str | None


class NewestSignalsBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/signals``; ask again with ``next_before_id`` for older ones, ``None`` when there is none."""

    count: int
    signals: tuple[Signal, ...]
    next_before_id: int | None


def admin(services: Services) -> Blueprint:
    """The routes; who calls was checked before."""
    routes = Blueprint("admin", __name__, url_prefix="/api/admin")
    registry = services.signals.registry

    @routes.get("/sessions")
    async def sessions() -> Response:
        rows = tuple(
            SessionRow(name, each.user_id, each.address, iso_ms(each.since_ms), each.behind)
            for name, each in list(registry.sessions.items())[:MOST]
        )
        return json_response(SessionsBody(len(registry.sessions), rows))

    @routes.delete("/sessions/<session>")
    async def disconnect(session: str) -> Response:
        if (found := registry.sessions.get(session)) is not None:
            concerns(user=str(found.user_id))
        is_disconnected = await services.signals.disconnect(session)
        if is_disconnected is None:
            return json_response({"passed_on": session}, 202)
        if not is_disconnected:
            raise ProblemError(404, "there is no such session; it may have ended")
        return json_response({"disconnected": session})

    @routes.get("/readers")
    async def readers() -> Response:
        rows = [
            ReaderRow(address, len(held), sum(held.values()))
            for address, held in services.hub.interest.holders().items()
            if address
        ]
        rows.sort(key=lambda row: -row.streams)
        return json_response(ReadersBody(len(rows), tuple(rows[:MOST])))

    @routes.get("/vips")
    async def vips() -> Response:
        after, limit = params.together(
            lambda: params.read_user(request.args.get("after"), "after"),
            lambda: params.read_count(request.args.get("limit"), "limit", default=VIPS, most=MOST),
        )
        found = await services.signals.store.read(lambda database: database.vips_by_user(after or "", limit))
        now_s = services.signals.clock_ms() / 1000
        rows = tuple(vip_body(vip.user_id, vip, now_s) for vip in found)
        return json_response(VipsBody(len(rows), rows, rows[-1].user_id if rows else after))

    @routes.get("/signals")
    async def signals() -> Response:
        before_id = request.args.get("before_id")
        before, limit = params.together(
            lambda: params.read_count(before_id, "before_id", default=params.LARGEST, most=params.LARGEST),
            lambda: params.read_count(request.args.get("limit"), "limit", default=SIGNALS, most=MOST),
        )
        found = await services.signals.store.read(lambda database: database.newest_signals(before, limit))
        body = NewestSignalsBody(len(found), tuple(found), found[-1].id if found else None)
        return Response(msgspec.json.encode(body), content_type=JSON)  # their data is text already

    @routes.get("/gaps")
    async def gaps() -> Response:
        now, now_ms = trio.current_time(), services.clock_ms()
        rows = [
            {**msgspec.to_builtins(gap), "at": iso_ms(now_ms - round((now - at) * 1000))}
            for at, gap in services.hub.gaps
            if now - at < HOUR_S
        ]
        return json_response({"count": len(rows), "gaps": rows})

    return routes
