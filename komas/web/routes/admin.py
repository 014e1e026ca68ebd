"""What an administrator sees of others: who is connected, who reads what, what was missed."""

from __future__ import annotations

from typing import Final

import msgspec
import trio
from quart import Blueprint, Response

from komas.model.codec import iso_ms
from komas.web.problems import ProblemError
from komas.web.routes.control import json_response
from komas.web.services import Services

HOUR_S: Final = 3600.0
MOST: Final = 1000  # rows of an answer


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
        found = registry.sessions.get(session)
        if found is None:
            raise ProblemError(404, "there is no such session; it may have ended")
        found.disconnect()
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
