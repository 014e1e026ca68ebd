"""What administrators see of the server's tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio.testing

from tests.web.harness import ADMIN, web_harness


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer of-nobody-at-all")]])
async def test_tasks_are_the_administrators(
    headers: list[tuple[str, str]], autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Not this machine's programs' either; no page of another origin reads them."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", "/debug/tasks", headers=[("Host", "localhost"), *headers])
        assert (answer.status, b"root" in answer.body) == (401, False)
        page = [("Host", "localhost"), ADMIN, ("Origin", "https://elsewhere.test")]
        answer = await harness.call("GET", "/debug/tasks", headers=page)
        assert (answer.status, "access-control-allow-origin" in answer.headers) == (200, False)


async def test_the_tree_of_tasks_and_how_late_they_run(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """By name; a token that somebody is connected with is not in it."""
    async with web_harness(tmp_path) as harness, trio.open_nursery() as nursery:
        token = harness.service.token("7", vip_days=1)
        nursery.start_soon(lambda: harness.socket(f"/ws/signals?token={token}", for_s=50))
        await trio.sleep(1)
        harness.services.loop_lag.note(trio.current_time(), 0.25)
        harness.services.loop_lag.note(trio.current_time(), 0.125)
        answer = await harness.call("GET", "/debug/tasks", headers=[("Host", "localhost"), ADMIN])
        body = json.loads(answer.body)
        assert body["loop_lag"] == {"last_s": 0.125, "max_s": 0.25}
        assert (body["left_out"], body["count"] > 20) == (0, True)
        for name in ('"vip reader"', '"spot feed"', '"broadcaster"'):
            assert name in answer.body.decode()
        assert token not in answer.body.decode()
        nursery.cancel_scope.cancel()
