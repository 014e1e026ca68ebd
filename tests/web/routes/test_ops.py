"""Health, metrics, logs and the description."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path

import openapi_spec_validator
import pytest
import trio
import trio.testing

from komas.settings import Settings
from tests.builders import TICKER
from tests.venues.exchange import REFUSED, obeying
from tests.web.harness import ADMIN, web_harness

ROOT = Path(__file__).parents[3]


async def test_liveness_and_readiness(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Ready until something is wanted and the exchange is away; then with the reason."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(REFUSED, REFUSED, then=obeying)
        assert (await harness.call("GET", "/healthz")).body == b'{"status":"ok"}'
        assert (await harness.call("GET", "/readyz")).status == 200
        harness.services.hub.interest.pin([TICKER])
        harness.services.markets.primary.feed.connect()
        await trio.sleep(0.5)
        answer = await harness.call("GET", "/readyz")
        assert answer.status == 503
        assert json.loads(answer.body)["reasons"] == [
            "spot: 1 streams are wanted and the exchange is reconnecting: refused"
        ]
        await trio.sleep(10)
        assert (await harness.call("GET", "/readyz")).status == 200
        harness.services.draining.set()
        assert (await harness.call("GET", "/readyz")).status == 503


async def test_a_server_that_has_given_up_says_so_and_goes_on_at_the_next_connect(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """On /readyz, in the status, and to everybody who reads (the page shows the notice)."""
    async with web_harness(tmp_path, Settings(reconnect_attempts=2)) as harness:
        harness.exchange.script(REFUSED, REFUSED, then=obeying)
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT") as events:
            await trio.sleep(30)
            assert len(harness.exchange.dialled_at) == 2
            answer = await harness.call("GET", "/readyz")
            assert answer.status == 503
            reasons = json.loads(answer.body)["reasons"]
            assert "spot: the connection was given up: refused; POST /api/ws/connect tries again" in reasons
            status = json.loads((await harness.call("GET", "/api/ws/status")).body)
            why = "given up after 2 failed attempts: refused; the next connect tries again"
            assert (status["state"], status["reason"]) == ("disconnected", why)
            seen = b""
            while b'"state":"disconnected"' not in seen:
                seen += await events.chunk()
            assert why.encode() in seen
            assert (await harness.call("POST", "/api/ws/connect")).status == 200
            assert (await harness.call("GET", "/readyz")).status == 200
            assert json.loads((await harness.call("GET", "/api/ws/status")).body)["reason"] is None


async def test_metrics_are_prometheus_text(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Counters and gauges from the components."""
    async with web_harness(tmp_path) as harness:
        harness.services.hub.interest.pin([TICKER])
        answer = await harness.call("GET", "/metrics")
        assert b"# TYPE komas_streams gauge\nkomas_streams 1.0" in answer.body
        assert b"# TYPE komas_published_total counter" in answer.body
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "Accept" in answer.headers["vary"].split(", ")
        openmetrics = [("Host", "localhost"), ("Accept", "application/openmetrics-text; version=1.0.0")]
        answer_to_prometheus = await harness.call("GET", "/metrics", headers=openmetrics)
        assert answer_to_prometheus.headers["content-type"].startswith("application/openmetrics-text")
        assert answer_to_prometheus.body.endswith(b"# EOF\n")
        for page in ("CHANGELOG.md", "docs/protocol.md", "docs/decisions/redesign.md"):
            for name in re.findall(r"`(komas_\w+)`", (ROOT / page).read_text("utf-8")):
                assert re.search(rf"^{name}(_bucket)?[{{ ]".encode(), answer.body, re.MULTILINE), (page, name)


async def test_todays_log_is_newest_last_and_filtered(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """By level and by number."""
    async with web_harness(tmp_path) as harness:
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            record = logging.LogRecord("komas.x", level, "", 0, f"at {level}", None, None)
            record.created = time.time()
            harness.services.log.emit(record)
        # Reading the file is a hop into a thread, which the deterministic clock cannot see.
        autojump_clock.autojump_threshold = 10
        body = json.loads((await harness.call("GET", "/api/logs/today?level=warning&limit=5", headers=[ADMIN])).body)
        assert [record["event"] for record in body["records"]] == ["at 30", "at 40"]
        body = json.loads((await harness.call("GET", "/api/logs/today?limit=1", headers=[ADMIN])).body)
        assert [record["level"] for record in body["records"]] == ["ERROR"]


async def test_the_description_describes_every_route(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Valid OpenAPI 3.1, and neither more nor less than there is."""
    async with web_harness(tmp_path) as harness:
        document = json.loads((await harness.call("GET", "/openapi.json")).body)
        openapi_spec_validator.validate(document)
        described = {(path, method.upper()) for path, calls in document["paths"].items() for method in calls}
        routes = {
            (rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}"), method)
            for rule in harness.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
        }
        assert described == routes


@pytest.mark.parametrize(
    "target", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/api/ws/status", "/api/ws/prices", "/nothing"]
)
async def test_nothing_is_kept_by_a_cache(target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """What is told is of this moment; also that something is not there."""
    async with web_harness(tmp_path) as harness:
        assert (await harness.call("GET", target)).headers["cache-control"] == "no-store"
