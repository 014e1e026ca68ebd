"""What an administrator sees and does; nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from komas.model.market import Gap
from tests.builders import TRADE
from tests.venues.exchange import obeying
from tests.web.harness import ADMIN, NOW_MS, WebHarness, web_harness

AS_ADMIN = [("Host", "localhost"), ADMIN]


async def _get(harness: WebHarness, path: str) -> dict[str, Any]:
    answer = await harness.call("GET", f"/api/admin/{path}", headers=AS_ADMIN)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    body = json.loads(answer.body)
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "sessions"),
        ("DELETE", "sessions/1"),
        ("GET", "readers"),
        ("GET", "vips"),
        ("GET", "signals"),
        ("GET", "gaps"),
    ],
)
async def test_strangers_see_nothing(
    method: str, path: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Not from this machine either; no page of another origin reads it."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call(method, f"/api/admin/{path}")
        assert answer.status == 401
        page = [*AS_ADMIN, ("Origin", "https://elsewhere.test")]
        answer = await harness.call(method, f"/api/admin/{path}", headers=page)
        assert "access-control-allow-origin" not in answer.headers


async def test_a_vip_is_seen_and_can_be_disconnected(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With address and time; the socket is closed with words, and is seen no more."""
    async with web_harness(tmp_path) as harness, trio.open_nursery() as nursery:
        closed: list[object] = []

        async def visit() -> None:
            token = harness.service.token("7", vip_days=1)
            closed.append((await harness.socket(f"/ws/signals?token={token}", client="192.0.2.7", for_s=50)).closed)

        nursery.start_soon(visit)
        await trio.sleep(1)
        body = await _get(harness, "sessions")
        (row,) = body["sessions"]
        assert (body["count"], row["user_id"], row["address"], row["behind"]) == (1, 7, "192.0.2.7", 0)
        answer = await harness.call("DELETE", f"/api/admin/sessions/{row['id']}", headers=AS_ADMIN)
        assert answer.status == 200
        await trio.sleep(5)
        assert closed == [(1008, "Disconnected by an administrator")]
        assert (await _get(harness, "sessions"))["count"] == 0
        answer = await harness.call("DELETE", f"/api/admin/sessions/{row['id']}", headers=AS_ADMIN)
        assert answer.status == 404


async def test_readers_and_gaps_are_seen(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Who reads what, by address; what was declared in the last hour, with its moment."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream("/api/ws/sse/stream?streams=btcusdt@trade/ethusdt@trade", client="192.0.2.1"):
            await trio.sleep(1)
            body = await _get(harness, "readers")
            assert body["readers"] == [{"address": "192.0.2.1", "streams": 2, "subscriptions": 2}]
            assert (body["count"], body["complete"]) == (1, True)
            harness.services.hub.publish_gap(TRADE, Gap(stream=TRADE.name, first=3, last=4, reason="not given"))
            (gap,) = (await _get(harness, "gaps"))["gaps"]
            assert (gap["stream"], gap["from"], gap["to"], gap["reason"]) == ("btcusdt@trade", 3, 4, "not given")
            assert gap["at"] == "2026-02-02T02:40:00.000Z"
            await trio.sleep(3601)
            assert (await _get(harness, "gaps"))["count"] == 0
    assert NOW_MS == 1_770_000_000_000  # which that moment is


async def test_the_administrator_publishes(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """And changes what was published; to read signals it must be a VIP."""
    async with web_harness(tmp_path) as harness:
        body = b'{"signal_type":"mexc_dex","data":{"coin_name":"NB"}}'
        answer = await harness.call("POST", "/api/signals", body=body, headers=AS_ADMIN)
        assert answer.status == 201
        number = json.loads(answer.body)["id"]
        answer = await harness.call(
            "PATCH", f"/api/signals/{number}", body=b'{"data":{"spread":1.5}}', headers=AS_ADMIN
        )
        assert answer.status == 200
        assert (await harness.call("GET", "/api/signals", headers=AS_ADMIN)).status == 401


async def test_the_newest_signals_are_listed_to_choose_one(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """As they stand, with their digits, newest first, page by page; an administrator need not be a VIP for it."""
    async with web_harness(tmp_path) as harness:
        assert await _get(harness, "signals") == {"count": 0, "signals": [], "next_before_id": None}
        for number in range(1, 6):
            body = b'{"signal_type":"mexc_dex","data":{"coin_name":"C%d","spread":1.50}}' % number
            await harness.call("POST", "/api/signals", body=body, headers=AS_ADMIN)
        await harness.call("PATCH", "/api/signals/4", body=b'{"data":{"spread":2.00}}', headers=AS_ADMIN)
        answer = await harness.call("GET", "/api/admin/signals?limit=2", headers=AS_ADMIN)
        assert b'"spread":2.00' in answer.body
        first = json.loads(answer.body)
        assert ([each["id"] for each in first["signals"]], first["next_before_id"]) == ([5, 4], 4)
        rest = await _get(harness, "signals?before_id=4")
        assert [each["data"]["coin_name"] for each in rest["signals"]] == ["C3", "C2", "C1"]
        assert (await _get(harness, "signals?before_id=1"))["count"] == 0


async def test_vips_are_listed_page_by_page(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Granted, over and revoked, by their ids: a change in between neither hides one nor shows it twice."""
    async with web_harness(tmp_path) as harness:
        await harness.services.signals.service.ready.wait()
        assert await _get(harness, "vips") == {"count": 0, "vips": [], "next_after": None}
        now_s = harness.service.now_s()
        for user, days in (("b", 30), ("a", 1), ("\u0431", 30), ("a/b", 2)):
            harness.service.database.grant(user, days, now_s)
        harness.service.database.grant("over", 1, now_s - 2 * 86_400)
        harness.service.database.revoke("Z", now_s)
        first = await _get(harness, "vips?limit=3")
        assert first == {
            "count": 3,
            "vips": [
                {"user_id": "Z", "active": False, "revoked": True, "vip_until": now_s},
                {"user_id": "a", "active": True, "revoked": False, "vip_until": now_s + 86_400},
                {"user_id": "a/b", "active": True, "revoked": False, "vip_until": now_s + 2 * 86_400},
            ],
            "next_after": "a/b",
        }
        harness.service.database.grant("a", 90, now_s)
        second = await _get(harness, "vips?limit=3&after=a/b")
        assert [(row["user_id"], row["active"]) for row in second["vips"]] == [
            ("b", True),
            ("over", False),
            ("\u0431", True),
        ]
        assert await _get(harness, "vips?after=%D0%B1") == {"count": 0, "vips": [], "next_after": "\u0431"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=", "after"),
        ("after=a%20b", "after"),
        ("after=%00", "after"),
        ("after=" + "x" * 257, "after"),
        ("afer=a", "afer"),
        ("after=a&after=b", "after"),
    ],
)
async def test_a_page_of_vips_that_cannot_be_is_said(
    query: str, field: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """By the parameter's name; PostgreSQL takes no NUL in a text."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", f"/api/admin/vips?{query}", headers=AS_ADMIN)
        assert answer.status == 400
        assert [error["field"] for error in json.loads(answer.body)["errors"]] == [field]
