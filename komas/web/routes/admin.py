"""What an administrator sees of others: who is connected, who reads what, who is VIP, what was missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Final, TypeVar

import msgspec
import trio
from quart import Blueprint, Response, request

from komas.errors import VenueError
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
SESSIONS: Final = "sessions"  # what every process is asked for
READERS: Final = "readers"


class SessionRow(msgspec.Struct, frozen=True):
    """One signal socket; ``node`` is the process that has it, where there are several."""

    id: str
    user_id: int | str
    address: str
    since: str
    behind: int
    admitted: bool = True
    node: str | None = None


class SessionsBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/sessions``; ``count`` is of all, of which some are shown.

    It is not ``complete`` where a process of the cluster did not answer in time.
    """

    count: int
    sessions: tuple[SessionRow, ...]
    complete: bool = True


class ReaderRow(msgspec.Struct, frozen=True):
    """One address that reads the market, or for which streams linger."""

    address: str
    streams: int
    subscriptions: int


class ReadersBody(msgspec.Struct, frozen=True):
    """``GET /api/admin/readers``; those with most streams first, which count once for each process.

    It is not ``complete`` where a process of the cluster did not answer in time.
    """

    count: int
    readers: tuple[ReaderRow, ...]
    complete: bool = True


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


_Body = TypeVar("_Body", SessionsBody, ReadersBody)


def admin(services: Services) -> Blueprint:
    """The routes; who calls was checked before."""
    routes = Blueprint("admin", __name__, url_prefix="/api/admin")
    registry = services.signals.registry

    _answer_others(services)

    @routes.get("/sessions")
    async def sessions() -> Response:
        return json_response(await _all_sessions(services))

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
        return json_response(await _all_readers(services))

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


def _answer_others(services: Services) -> None:
    """Tell other processes what this one has."""
    if services.cluster is not None:
        services.cluster.answer(SESSIONS, lambda _body: msgspec.json.encode(_sessions(services)))
        services.cluster.answer(READERS, lambda _body: msgspec.json.encode(_readers(services)))


async def _all_sessions(services: Services) -> SessionsBody:
    found, is_complete = await _everywhere(services, SESSIONS, SessionsBody, _sessions)
    rows = tuple(chain.from_iterable(body.sessions for body in found))
    return SessionsBody(sum(body.count for body in found), rows[:MOST], is_complete)


async def _all_readers(services: Services) -> ReadersBody:
    found, is_complete = await _everywhere(services, READERS, ReadersBody, _readers)
    streams, subscriptions = Counter[str](), Counter[str]()
    for row in chain.from_iterable(body.readers for body in found):
        streams[row.address] += row.streams
        subscriptions[row.address] += row.subscriptions
    rows = [ReaderRow(address, count, subscriptions[address]) for address, count in streams.most_common(MOST)]
    return ReadersBody(len(streams), tuple(rows), is_complete)


def _sessions(services: Services) -> SessionsBody:
    """Those of this process."""
    sessions = services.signals.registry.sessions
    node = None if services.cluster is None else services.cluster.body().node
    rows = tuple(
        SessionRow(name, each.user_id, each.address, iso_ms(each.since_ms), each.behind, node=node)
        for name, each in list(sessions.items())[:MOST]
    )
    return SessionsBody(len(sessions), rows)


def _readers(services: Services) -> ReadersBody:
    """Those of this process."""
    rows = [
        ReaderRow(address, len(held), sum(held.values()))
        for address, held in services.hub.interest.holders().items()
        if address
    ]
    rows.sort(key=lambda row: -row.streams)
    return ReadersBody(len(rows), tuple(rows[:MOST]))


async def _everywhere(
    services: Services, topic: str, kind: type[_Body], own: Callable[[Services], _Body]
) -> tuple[list[_Body], bool]:
    """What every process says; of this one alone where the others cannot be asked. And whether that is all."""
    if services.cluster is None:
        return [own(services)], True
    try:
        answers, is_complete = await services.cluster.inquire_all(topic, b"")
        return [msgspec.json.decode(answer, type=kind) for answer in answers], is_complete
    except (VenueError, msgspec.MsgspecError):  # of another release, it may say other things
        return [own(services)], False
