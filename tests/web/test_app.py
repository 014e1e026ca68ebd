"""What stands before every view: parameters that an endpoint does not have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio.testing

from komas.web import openapi
from tests.web.harness import ADMIN, WebHarness, web_harness

CALLS = sorted(call for call in openapi.query_parameters() if not call[0].startswith("/ws/"))


async def _call(harness: WebHarness, method: str, path: str, query: str) -> tuple[int, dict[str, object]]:
    """The status, and the body where it is an answer of JSON."""
    target = f"{re.sub(r'{.*}', '1', path)}?{query}"
    async with harness.stream(target, method=method, headers=[("Host", "localhost"), ADMIN]) as events:
        if "json" not in events.headers["content-type"]:
            return events.status, {}
        return events.status, json.loads(b"".join([chunk async for chunk in events.chunks()]))


@pytest.mark.parametrize(("path", "method"), [call for call in CALLS if openapi.query_parameters()[call]])
async def test_a_misspelt_parameter_is_refused_by_every_endpoint(
    path: str, method: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With the name that was meant: what it says would not count."""
    async with web_harness(tmp_path) as harness:
        for right in openapi.query_parameters()[path, method]:
            wrong = f"{right[0]}{right}"
            status, problem = await _call(harness, method, path, f"{wrong}=1")
            assert (status, problem["detail"]) == (400, f"{wrong}: did you mean {right}?")
            assert problem["errors"] == [{"field": wrong, "message": problem["detail"]}]
            assert "ignored" not in problem


@pytest.mark.parametrize(("path", "method"), CALLS)
async def test_any_other_parameter_is_ignored_by_every_endpoint(
    path: str, method: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Cache-busters and what proxies add change nothing; a problem document names them."""
    async with web_harness(tmp_path) as harness:
        plain, before = await _call(harness, method, path, "")
        status, after = await _call(harness, method, path, "_=123&utm_source=x")
        assert status == plain
        if plain >= 400:
            assert "ignored" not in before
            assert after.pop("ignored") == ["_", "utm_source"]
            assert after == before


async def test_a_problem_may_lie_in_what_was_ignored(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A token that belongs into a header; symbols that belong into the body. Values are not shown."""
    async with web_harness(tmp_path) as harness:
        status, problem = await _call(harness, "GET", "/api/signals", "token=secret")
        assert (status, problem["ignored"]) == (401, ["token"])
        assert "secret" not in json.dumps(problem)
        status, problem = await _call(harness, "POST", "/api/ws/subscribe", "symbols=BTCUSDT")
        assert (status, problem["ignored"]) == (400, ["symbols"])
        assert (await _call(harness, "GET", "/nowhere", "token=secret"))[1].keys() == {
            "type", "title", "status", "detail",
        }  # fmt: skip


async def test_a_head_request_is_refused_as_its_get_would_be(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It asks what GET would answer."""
    async with web_harness(tmp_path) as harness:
        target = "/api/ws/sse/trades?symbol=BTCUSDT&agregate=true"
        assert (await harness.call("HEAD", target)).status == (await harness.call("GET", target)).status == 400
