"""Liveness, readiness, metrics, logs, and the API's own description."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus

import trio
from quart import Blueprint, Response, request

from komas.model.codec import encode
from komas.model.market import FeedState, Health
from komas.observability.metrics import Registry
from komas.settings import Settings
from komas.web import asyncapi, openapi, params
from komas.web.problems import FieldError, invalid
from komas.web.routes.control import JSON, json_response
from komas.web.services import Services

LOG_LIMIT = 1000
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def ops(services: Services, registry: Registry) -> Blueprint:
    """The routes."""
    routes = Blueprint("ops", __name__)
    described = _Descriptions(services.settings)

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
        text, media_type = registry.render(request.headers.get("Accept", ""))
        return Response(text, HTTPStatus.OK, {"Vary": "Accept"}, content_type=media_type)

    @routes.get("/openapi.json")
    async def description() -> Response:
        return Response(await trio.to_thread.run_sync(described.api), HTTPStatus.OK, content_type=JSON)

    @routes.get("/asyncapi.json")
    async def description_of_messages() -> Response:
        return Response(await trio.to_thread.run_sync(described.messages), HTTPStatus.OK, content_type=JSON)

    @routes.get("/api/logs/today")
    async def logs_today() -> Response:
        level, limit = params.together(
            _level, lambda: params.read_count(request.args.get("limit"), "limit", default=100, most=LOG_LIMIT)
        )
        records = await trio.to_thread.run_sync(
            lambda: services.log.today(now=datetime.now(UTC), level=level, limit=limit)
        )
        return json_response({"count": len(records), "records": records})

    return routes


def _level() -> str:
    level = request.args.get("level", "DEBUG").upper()
    if level not in LEVELS:
        raise invalid([FieldError("level", f"level is one of {' '.join(LEVELS)}, not {level[:40]!r}")])
    return level


class _Descriptions:
    """Made when they are first asked for, not while the server starts; in a thread, for it takes up to 50 ms."""

    def __init__(self, settings: Settings) -> None:
        self._document = cache(
            partial(
                openapi.document,
                max_symbols=settings.max_symbols,
                max_names=settings.max_streams_per_address,
                signal_types=settings.signal_types,
            )
        )
        self.api = cache(lambda: encode(self._document()))
        self.messages = cache(lambda: encode(asyncapi.document(self._document())))


def _why_not_ready(services: Services) -> list[str]:
    """Reasons for which no load balancer should send clients here."""
    reasons = ["the server is shutting down"] if services.stopping.is_set() or services.draining.is_set() else []
    if services.cluster is not None and (reason := services.cluster.why_not_ready()) is not None:
        reasons.append(reason)
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
