"""Liveness, readiness, metrics, logs, the API's own description, and the page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import trio
from prometheus_client import CONTENT_TYPE_LATEST
from quart import Blueprint, Response, request

from komas.model.market import FeedState
from komas.observability.metrics import Sample, render
from komas.web import openapi, params
from komas.web.problems import FieldError, invalid
from komas.web.routes.control import json_response
from komas.web.services import Rooms

LOG_LIMIT = 1000
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_PAGE = Path(__file__).parents[1] / "static" / "index.html"


def ops(rooms: Rooms) -> Blueprint:
    """The routes."""
    routes = Blueprint("ops", __name__)
    page = _PAGE.read_bytes()

    @routes.get("/")
    async def index() -> Response:
        unsafe = "'unsafe-inline'"
        policy = f"default-src 'self'; img-src data:; style-src {unsafe}; script-src {unsafe}"
        headers = {"Content-Security-Policy": policy}
        return Response(page, HTTPStatus.OK, headers, content_type="text/html; charset=utf-8")

    @routes.get("/healthz")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> Response:
        reasons = _why_not_ready(rooms)
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return json_response({"status": "not ready" if reasons else "ready", "reasons": reasons}, status)

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(render(lambda: _samples(rooms)), HTTPStatus.OK, content_type=CONTENT_TYPE_LATEST)

    @routes.get("/openapi.json")
    async def description() -> Response:
        return json_response(openapi.document())

    @routes.get("/api/logs/today")
    async def logs_today() -> Response:
        level = request.args.get("level", "DEBUG").upper()
        if level not in LEVELS:
            raise invalid([FieldError("level", f"level is one of {' '.join(LEVELS)}, not {level[:40]!r}")])
        limit = params.read_count(request.args.get("limit"), "limit", default=100, most=LOG_LIMIT)
        records = await trio.to_thread.run_sync(
            lambda: rooms.log.today(now=datetime.now(UTC), level=level, limit=limit)
        )
        return json_response({"count": len(records), "records": records})

    return routes


def _why_not_ready(rooms: Rooms) -> list[str]:
    """Reasons for which no load balancer should send clients here."""
    reasons = ["the server is shutting down"] if rooms.draining.is_set() else []
    wanted = sum(rooms.line_of(stream) is rooms.spot for stream in rooms.hub.interest.streams())
    state = rooms.feed.state
    if wanted and state is not FeedState.CONNECTED:
        because = f": {rooms.hub.status.reason}" if rooms.hub.status.reason else ""
        reasons.append(f"{wanted} streams are wanted and the exchange is {state}{because}")
    return reasons


def _samples(rooms: Rooms) -> Iterable[Sample]:
    feed, futures = (line.feed.statistics() for line in rooms.lines)
    hub, doors = rooms.hub.statistics(), rooms.doors.statistics()
    fill, books = rooms.spot.backfill.statistics(), rooms.spot.books.statistics()
    topic, sockets = rooms.signals.topic.statistics(), rooms.signals.register.statistics()
    yield Sample("upstream_connected", "1 while the exchange connection is up", rooms.feed.state is FeedState.CONNECTED)
    yield Sample(
        "upstream_messages", "Data frames received", feed.messages_received + futures.messages_received, is_counter=True
    )
    yield Sample(
        "upstream_unreadable", "Frames that could not be read", feed.unreadable + futures.unreadable, is_counter=True
    )
    yield Sample("upstream_unknown", "Frames of unknown streams", feed.unknown + futures.unknown, is_counter=True)
    yield Sample("upstream_repeated", "Facts received more than once", fill.repeated, is_counter=True)
    yield Sample("upstream_gaps", "Runs of missing trades or candles", fill.gaps, is_counter=True)
    yield Sample("upstream_backfilled", "Missing facts asked for and sent", fill.filled, is_counter=True)
    yield Sample("upstream_gaps_declared", "Gaps, or parts, not filled", fill.declared, is_counter=True)
    yield Sample("streams_recovering", "Streams that wait behind a gap", fill.recovering)
    yield Sample("order_books", "Order books kept now", books.books)
    yield Sample("order_books_untrue", "Of them, waiting for a snapshot or a missing update", books.untrue)
    yield Sample("order_book_snapshots", "Snapshots taken", books.snapshots, is_counter=True)
    yield Sample("tasks", "Tasks of the process now", trio.lowlevel.current_statistics().tasks_living)
    yield Sample("upstream_connections", "Connections to the exchange now", len(feed.connections + futures.connections))
    yield Sample(
        "upstream_reconnects",
        "Connections made because one was lost",
        feed.reconnects + futures.reconnects,
        is_counter=True,
    )
    yield Sample(
        "upstream_rotations", "Connections replaced without a seam", feed.rotations + futures.rotations, is_counter=True
    )
    yield Sample("streams", "Streams wanted now", hub.streams)
    yield Sample("published", "Facts published", hub.published, is_counter=True)
    yield Sample("journalled", "Facts kept for clients that come back", hub.journalled)
    yield Sample("dropped", "Facts dropped for slow clients", hub.dropped, is_counter=True)
    yield Sample("sse_clients", "SSE clients now", doors.inside)
    yield Sample("sse_entered", "SSE clients since the start", doors.entered, is_counter=True)
    yield Sample("sse_turned_away", "SSE clients turned away", doors.turned_away, is_counter=True)
    yield Sample("signal_sockets", "Signal sockets now", sockets.sockets)
    yield Sample("signal_users", "Users with a signal socket now", sockets.users)
    yield Sample("signal_sockets_entered", "Signal sockets since the start", sockets.entered, is_counter=True)
    yield Sample("signal_sockets_turned_away", "Signal sockets turned away", sockets.turned_away, is_counter=True)
    yield Sample("signal_events", "Signals and updates told", topic.published, is_counter=True)
    yield Sample("signal_position", "Position of the last signal or update", rooms.signals.topic.position)
    yield Sample("signal_dismissed", "VIPs dismissed because they read too slowly", topic.dismissed, is_counter=True)
    yield Sample(
        "signal_origins_refused",
        "Signal sockets of web pages that cors_origins does not list",
        rooms.access.statistics().origins_refused,
        is_counter=True,
    )
    yield Sample("store_failures", "Times the store of signals failed", rooms.signals.store.failures, is_counter=True)
