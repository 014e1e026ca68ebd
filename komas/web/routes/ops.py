"""Liveness, readiness, metrics, logs, and the API's own description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus

import trio
from prometheus_client import CONTENT_TYPE_LATEST
from quart import Blueprint, Response, request

from komas.model.codec import encode
from komas.model.market import FeedState, Health
from komas.observability.metrics import Sample, render
from komas.web import asyncapi, openapi, params
from komas.web.hypercorn.shutdown import present
from komas.web.markets import Markets
from komas.web.problems import FieldError, invalid
from komas.web.rate_limit import RateLimit
from komas.web.routes.control import JSON, json_response
from komas.web.services import Services

LOG_LIMIT = 1000
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def ops(services: Services, rate_limit: RateLimit) -> Blueprint:
    """The routes."""
    routes = Blueprint("ops", __name__)
    settings = services.settings

    @cache  # when it is first asked for, not while the server starts
    def api() -> dict[str, object]:
        return openapi.document(
            max_symbols=settings.max_symbols,
            max_names=settings.max_streams_per_address,
            signal_types=settings.signal_types,
        )

    @cache
    def messages() -> dict[str, object]:
        return asyncapi.document(api())

    @routes.get("/healthz")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> Response:
        reasons = _why_not_ready(services)
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return json_response({"status": "not ready" if reasons else "ready", "reasons": reasons}, status)

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(render(lambda: _samples(services, rate_limit)), HTTPStatus.OK, content_type=CONTENT_TYPE_LATEST)

    @routes.get("/openapi.json")
    async def description() -> Response:
        return Response(encode(api()), HTTPStatus.OK, content_type=JSON)

    @routes.get("/asyncapi.json")
    async def description_of_messages() -> Response:
        return Response(encode(messages()), HTTPStatus.OK, content_type=JSON)

    @routes.get("/api/logs/today")
    async def logs_today() -> Response:
        level = request.args.get("level", "DEBUG").upper()
        if level not in LEVELS:
            raise invalid([FieldError("level", f"level is one of {' '.join(LEVELS)}, not {level[:40]!r}")])
        limit = params.read_count(request.args.get("limit"), "limit", default=100, most=LOG_LIMIT)
        records = await trio.to_thread.run_sync(
            lambda: services.log.today(now=datetime.now(UTC), level=level, limit=limit)
        )
        return json_response({"count": len(records), "records": records})

    return routes


def _why_not_ready(services: Services) -> list[str]:
    """Reasons for which no load balancer should send clients here."""
    reasons = ["the server is shutting down"] if services.stopping.is_set() or services.draining.is_set() else []
    for market, wanted in services.markets.split(services.hub.interest.streams()).items():
        status, failure = market.feed.status, market.feed.final_failure
        if failure is not None:
            continue  # said below, whether or not a stream is wanted
        if status.state is not FeedState.CONNECTED:
            because = f": {status.reason}" if status.reason else ""
            told = f"{len(wanted)} streams are wanted and the exchange is {status.state}{because}"
            reasons.append(f"{market.name}: {told}")
        elif market.health.totals.keys() == {Health.STALE}:
            reasons.append(f"{market.name}: all {len(wanted)} streams are stale")
    reasons += [
        f"{market.name}: the connection was given up: {failure}; POST /api/ws/connect tries again"
        for market in services.markets
        if (failure := market.feed.final_failure) is not None
    ]
    return reasons


def _samples(services: Services, rate_limit: RateLimit) -> Iterable[Sample]:
    yield Sample("requests_refused", "Requests over the rate of an address", rate_limit.refused, is_counter=True)
    yield from _connection_samples()
    yield from _market_samples(services.markets)
    yield from _subscriber_samples(services)
    yield from _signal_samples(services)


def _connection_samples() -> Iterable[Sample]:
    run = present()
    if run is None:
        return  # behind another ASGI server
    places = run.places.statistics()
    yield Sample("connections", "Connections of clients now", places.present)
    yield Sample("connections_refused", "Connections closed for want of a place", places.refused, is_counter=True)
    yield Sample("connections_gave_way", "Idle connections closed to make room", places.gave_way, is_counter=True)


def _market_samples(markets: Markets) -> Iterable[Sample]:
    feeds = [market.feed.statistics() for market in markets]
    fills = [market.gap_filler.statistics() for market in markets]
    books = [market.order_books.statistics() for market in markets]
    totals = sum((Counter(market.health.totals) for market in markets), Counter[Health]())
    yield Sample("upstream_connected", "1 while the exchange connection is up", markets.is_connected)
    for name, meaning, values in (
        ("upstream_messages", "Data frames received", [feed.messages_received for feed in feeds]),
        ("upstream_unreadable", "Frames that could not be read", [feed.unreadable for feed in feeds]),
        ("upstream_unknown", "Frames of unknown streams", [feed.unknown for feed in feeds]),
        ("upstream_reconnects", "Connections made because one was lost", [feed.reconnects for feed in feeds]),
        ("upstream_rotations", "Connections replaced without a gap", [feed.rotations for feed in feeds]),
        ("upstream_repeated", "Events received more than once", [fill.repeated for fill in fills]),
        ("upstream_gaps", "Runs of missing trades or candles", [fill.gaps for fill in fills]),
        ("upstream_backfilled", "Missing events asked for and sent", [fill.filled for fill in fills]),
        ("upstream_gaps_declared", "Gaps, or parts, not filled", [fill.declared for fill in fills]),
        ("order_book_snapshots", "Snapshots taken", [book.snapshots for book in books]),
    ):
        yield Sample(name, meaning, sum(values), is_counter=True)
    yield Sample(
        "upstream_connections", "Connections to the exchange now", sum(len(feed.connections) for feed in feeds)
    )
    yield Sample("order_books", "Order books kept now", sum(book.order_books for book in books))
    yield Sample(
        "order_books_untrue",
        "Of them, waiting for a snapshot or a missing update",
        sum(book.untrue for book in books),
    )
    for health in Health:
        yield Sample(f"streams_{health}", f"Streams whose health is {health}", totals[health])


def _subscriber_samples(services: Services) -> Iterable[Sample]:
    hub, limits, room = services.hub.statistics(), services.limits.statistics(), services.stream_limits.statistics()
    yield Sample("tasks", "Tasks of the process now", trio.lowlevel.current_statistics().tasks_living)
    yield Sample("streams", "Streams wanted now", hub.streams)
    yield Sample("published", "Events published", hub.published, is_counter=True)
    yield Sample("history_events", "Events kept for clients that come back", hub.history_events)
    yield Sample("history_bytes", "Memory that they are counted with", hub.history_bytes)
    yield Sample("history_evicted", "Events let go because of history_bytes", hub.history_evicted, is_counter=True)
    yield Sample("dropped", "Events dropped for slow clients", hub.dropped, is_counter=True)
    yield Sample("sse_clients", "SSE clients now", limits.present)
    yield Sample("sse_admitted", "SSE clients since the start", limits.admitted, is_counter=True)
    yield Sample("sse_refused", "SSE clients refused", limits.refused + room.refused, is_counter=True)
    yield Sample(
        "streams_made_room",
        "Streams without readers that were closed early, for others",
        room.made_room,
        is_counter=True,
    )


def _signal_samples(services: Services) -> Iterable[Sample]:
    channel, sockets = services.signals.channel.statistics(), services.signals.registry.statistics()
    yield Sample("signal_sockets", "Signal sockets now", sockets.sockets)
    yield Sample("signal_users", "Users with a signal socket now", sockets.users)
    yield Sample("signal_sockets_admitted", "Signal sockets since the start", sockets.admitted, is_counter=True)
    yield Sample("signal_sockets_refused", "Signal sockets refused", sockets.refused, is_counter=True)
    yield Sample("signal_events", "Signals and updates published", channel.published, is_counter=True)
    yield Sample("signal_position", "Position of the last signal or update", services.signals.channel.position)
    yield Sample(
        "signal_slow_consumers", "VIPs disconnected because they read too slowly", channel.disconnected, is_counter=True
    )
    yield Sample(
        "signal_origins_refused",
        "Signal sockets of web pages that cors_origins does not list",
        services.access.statistics().origins_refused,
        is_counter=True,
    )
    yield Sample(
        "database_failures", "Times the database of signals failed", services.signals.store.failures, is_counter=True
    )
