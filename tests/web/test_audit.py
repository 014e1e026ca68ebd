"""The trail of administrative actions: one record each, in the same words as the metrics."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.observability.audit import TEXT, listed
from komas.observability.logs import COMPLAIN_EVERY_S, JsonFormatter, TextFormatter
from komas.web.audit import ACTIONS
from tests.venues.exchange import REFUSED, obeying
from tests.web.harness import ADMIN_TOKEN, WebHarness, web_harness

JSON = ("Content-Type", "application/json")
HOST = ("Host", "localhost")
SIGNAL = b'{"signal_type": "mexc_dex", "data": {"coin_name": "NB", "spread": 1.50}}'


def _trail(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What was recorded, as the log's file has it."""
    kept = [record for record in caplog.records if record.getMessage().startswith("admin action")]
    return [json.loads(JsonFormatter().format(record)) for record in kept]


async def _do(harness: WebHarness, method: str, target: str, body: bytes = b"", token: str | None = ADMIN_TOKEN) -> int:
    headers = [HOST, JSON, *([("Authorization", f"Bearer {token}")] if token else [])]
    return (await harness.call(method, target, body=body, headers=headers)).status


async def test_each_change_is_recorded_with_who_and_what(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishing, granting, revoking, disconnecting and the streams left no line behind."""
    caplog.set_level(logging.INFO)
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        producer = harness.service.token("producer-1", publishes=True)
        wish = b'{"symbols": ["BTCUSDT", "ETHUSDT"]}'
        for method, target, body, token in (
            ("POST", "/api/signals", SIGNAL, producer),
            ("PATCH", "/api/signals/1", b'{"data": {"spread": 2}}', ADMIN_TOKEN),
            ("POST", "/api/vip/7", b'{"days": 30}', ADMIN_TOKEN),
            ("DELETE", "/api/vip/7", b"", ADMIN_TOKEN),
            ("POST", "/api/ws/connect", b"", None),
            ("POST", "/api/ws/subscribe", wish, None),
            ("POST", "/api/ws/rotate", b"", ADMIN_TOKEN),
            ("POST", "/api/ws/unsubscribe", wish, None),
            ("POST", "/api/ws/disconnect", b"", None),
            ("POST", "/api/ws/quick/stop", b"", None),
        ):
            assert await _do(harness, method, target, body, token) < 400, target
        assert await _do(harness, "DELETE", "/api/admin/sessions/none") == 404
        await _do(harness, "GET", "/api/vip/7")
        trail = _trail(caplog)
        assert [str(each["event"]).removeprefix("admin action: ") for each in trail] == [
            "publish", "update", "grant", "revoke", "connect", "subscribe", "rotate", "unsubscribe", "disconnect",
            "stop", "disconnect_user",
        ]  # fmt: skip
        assert {(each["level"], each["address"]) for each in trail} == {("INFO", "127.0.0.1")}
        by_action = {str(each["event"]).removeprefix("admin action: "): each for each in trail}
        assert by_action["publish"]["by"] == "user producer-1"
        assert (by_action["publish"]["signal"], by_action["publish"]["outcome"]) == (1, "done")
        assert (by_action["grant"]["by"], by_action["grant"]["user"], by_action["grant"]["days"]) == (
            "administrator",
            "7",
            30,
        )
        assert by_action["subscribe"]["by"] == "a program of this machine"
        assert by_action["subscribe"]["streams"] == "btcusdt@ticker ethusdt@ticker"
        assert str(by_action["disconnect_user"]["outcome"]).startswith("not done: there is no such session")
        counted = harness.services.traffic.admin_actions
        assert counted == {name: 1 for name in by_action if name != "disconnect_user"}
        text = "\n".join(JsonFormatter().format(record) for record in caplog.records)
        assert ADMIN_TOKEN not in text
        assert producer not in text


async def test_refused_attempts_are_recorded_once_a_minute(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Strangers fill no log, and an administrator's own records are not left out because of them."""
    caplog.set_level(logging.INFO)
    async with web_harness(tmp_path) as harness:
        for _ in range(5):
            assert await _do(harness, "POST", "/api/vip/7", b'{"days": 1}', "wrong") == 401
        assert await _do(harness, "GET", "/api/admin/sessions", token="wrong") == 401
        assert await _do(harness, "POST", "/api/signals", SIGNAL, harness.service.token("8")) == 403
        assert await _do(harness, "DELETE", "/api/vip/7") == 200
        refused, done = _trail(caplog)
        assert (refused["level"], refused["event"], refused["not_logged"]) == (
            "WARNING",
            "admin action refused: grant",
            0,
        )
        assert (refused["by"], refused["user"], refused["status"]) == ("an unknown caller", "7", 401)
        assert done["event"] == "admin action: revoke"
        await trio.sleep(COMPLAIN_EVERY_S)
        assert await _do(harness, "GET", "/api/logs/today", token="wrong") == 401
        last = _trail(caplog)[-1]
        assert (last["event"], last["not_logged"]) == ("admin action refused: read ops.logs_today", 6)
        assert "wrong" not in json.dumps(_trail(caplog))


async def test_what_a_client_writes_forges_no_record(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that would move a terminal is written out; a long one is cut; a token in a path is hidden."""
    caplog.set_level(logging.INFO)
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl"
    async with web_harness(tmp_path) as harness:
        for user in ("7%1B%5B31m%20info%20forged", "x" * 256, token):
            await _do(harness, "DELETE", f"/api/vip/{user}")
        records = [record for record in caplog.records if record.getMessage().startswith("admin action")]
        for record in records:
            for line in (TextFormatter().format(record), JsonFormatter().format(record)):
                assert line.isprintable()
                assert token not in line
        forged, long, hidden = _trail(caplog)
        assert forged["status"] == 400
        assert len(str(long["user"])) == TEXT
        assert hidden["user"] == "(token)"


async def test_a_client_that_leaves_before_its_answer_is_in_the_trail(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it asked for may be done all the same."""
    caplog.set_level(logging.INFO)
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(*[REFUSED] * 9)
        with trio.move_on_after(1):  # it would wait for connect_wait_s
            await harness.call("POST", "/api/ws/connect")
        [record] = _trail(caplog)
        assert record["event"] == "admin action: connect"
        assert str(record["outcome"]).startswith("the client left")
        assert "status" not in record


async def test_no_change_is_without_a_name_in_the_trail(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Whoever adds a route that changes something adds it here; readers of many streams change only their own."""
    async with web_harness(tmp_path) as harness:
        changing = {
            rule.endpoint
            for rule in harness.app.url_map.iter_rules()
            if rule.methods and rule.methods & {"POST", "PUT", "PATCH", "DELETE"}
        }
        assert {name for name in changing if not name.startswith("multiplex.")} == set(ACTIONS)


def test_a_long_list_is_cut() -> None:
    """Two hundred symbols are one line that can be read."""
    assert listed([f"s{number}" for number in range(12)]).endswith(" s9 and 2 more")
    assert listed(["a"]) == "a"
