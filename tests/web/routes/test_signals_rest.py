"""Signals in, and VIPs, over REST."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio.testing

from komas.errors import StoreUnavailable
from komas.model.signals import DAY_S, SignalInsert
from komas.settings import Settings
from komas.signals.database import SignalDatabase
from tests.web.harness import ADMIN_TOKEN, Answer, WebHarness, web_harness

HOST = ("Host", "localhost")
DRAFT = b'{"signal_type":"mexc_dex","data":{"coin_name":"NB","spread":8.840}}'


async def _ask(
    harness: WebHarness, method: str, target: str, body: bytes = b"", token: str = "", *more: tuple[str, str]
) -> Answer:
    await harness.services.signals.service.ready.wait()
    headers = [HOST, *more, *([("Authorization", f"Bearer {token}")] if token else [])]
    return await harness.call(method, target, body=body, headers=headers)


def _problem(answer: Answer) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = json.loads(answer.body)
    assert problem["status"] == answer.status
    return problem


async def test_a_signal_is_published_updated_and_read(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With its digits, by REST and by socket."""
    async with web_harness(tmp_path) as harness:
        producer, vip = harness.service.token("p", vip_days=None, publishes=True), harness.service.token()
        create_signal = await _ask(harness, "POST", "/api/signals", DRAFT, producer)
        assert create_signal.status == 201
        assert json.loads(create_signal.body)["id"] == 1
        assert b'"spread":8.840,' in create_signal.body
        changed = await _ask(harness, "PATCH", "/api/signals/1", b'{"data":{"spread":9.10,"coin_name":"NB"}}', producer)
        assert changed.status == 200
        assert b'"spread":9.10,' in changed.body
        listed = await _ask(harness, "GET", "/api/signals?since_id=0&limit=1", b"", vip)
        assert listed.status == 200
        assert b'"spread":9.10,' in listed.body
        assert json.loads(listed.body)["next_since_id"] == 1
        after = json.loads((await _ask(harness, "GET", "/api/signals?since_id=1", b"", vip)).body)
        assert after == {"count": 0, "signals": [], "next_since_id": 1}
        visit = await harness.socket(f"/ws/signals?token={vip}&since_id=0")
        assert [m["type"] for m in visit.heard] == ["connected", "new_signal", "signal_update"]
        assert visit.heard[2]["data"] == {"spread": 9.1}


async def test_a_page_ends_at_its_bytes_and_leads_on(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Sixty unread pages of a thousand long signals were a GiB; ``next_since_id`` leads through them all."""
    async with web_harness(tmp_path) as harness:
        vip = harness.service.token()
        await harness.services.signals.service.ready.wait()
        for number in range(100):
            draft = SignalInsert("mexc_dex", {"number": number, "filling": "x" * 16_000}, "p")
            harness.service.database.publish(draft, 0)
        seen, since = list[int](), 0
        while True:
            answer = await _ask(harness, "GET", f"/api/signals?since_id={since}&limit=1000", b"", vip)
            assert len(answer.body) < 1.1 * 2**20
            page = json.loads(answer.body)
            assert page["count"] == len(page["signals"])
            if not page["count"]:
                break
            seen += [signal["id"] for signal in page["signals"]]
            since = page["next_since_id"]
        assert seen == list(range(1, 101))


async def test_a_text_may_look_like_a_number(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """``E-`` and ``E+`` in a text are no exponents."""
    async with web_harness(tmp_path) as harness:
        producer, body = (
            harness.service.token(publishes=True),
            b'{"signal_type":"mexc_dex","data":{"note":"BTC-E-1 E+"}}',
        )
        for method, target, sent, status in (
            ("POST", "/api/signals", body, 201),
            ("PATCH", "/api/signals/1", b'{"data":{"other":"E-2"}}', 200),
            ("GET", "/api/signals", b"", 200),
        ):
            answer = await _ask(harness, method, target, sent, producer)
            assert answer.status == status
            assert b'"note":"BTC-E-1 E+"' in answer.body


async def test_a_user_of_any_name_can_be_revoked(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Some issuers name users by their addresses."""
    async with web_harness(tmp_path) as harness:
        answer = await _ask(harness, "DELETE", "/api/vip/https%3A%2F%2Fissuer%2Fuser", b"", ADMIN_TOKEN)
        assert json.loads(answer.body)["user_id"] == "https://issuer/user"


@pytest.mark.parametrize(("method", "body"), [("POST", b'{"days":30}'), ("DELETE", b""), ("GET", b"")])
async def test_a_slash_at_the_end_makes_no_other_user(
    method: str, body: bytes, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Whoever revokes user 123 with one too many is told so."""
    async with web_harness(tmp_path) as harness:
        answer = await _ask(harness, method, "/api/vip/123/", body, ADMIN_TOKEN)
        assert answer.status == 400
        assert _problem(answer)["errors"]


async def test_a_retry_with_a_key_gets_the_first_answer(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Byte for byte; another draft with the key is an error."""
    async with web_harness(tmp_path) as harness:
        producer, key = harness.service.token("p", publishes=True), ("Idempotency-Key", "k-1")
        first = await _ask(harness, "POST", "/api/signals", DRAFT, producer, key)
        again = await _ask(harness, "POST", "/api/signals", DRAFT, producer, key)
        assert (again.status, again.body) == (201, first.body)
        other = await _ask(harness, "POST", "/api/signals", DRAFT.replace(b"NB", b"XX"), producer, key)
        assert other.status == 422
        assert _problem(other)["errors"]
        assert harness.service.database.counters().position == 1


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/signals", DRAFT),
        ("PATCH", "/api/signals/1", b'{"data":{"a":1}}'),
        ("GET", "/api/signals", b""),
    ],
)
async def test_who_brings_no_token_or_the_wrong_one(
    method: str, target: str, body: bytes, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """401 without a good one, 403 without the right; the query is no place for it; an admin token reads nothing."""
    settings = Settings(admin_token="an admin token of ours")
    async with web_harness(tmp_path, settings) as harness:
        wrong = ["", "garbage", harness.service.token(ttl_s=0), "an admin token of ours of others"]
        for token in wrong if method != "GET" else [*wrong, "an admin token of ours"]:
            answer = await _ask(harness, method, target, body, token)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "valid access token" in str(_problem(answer)["detail"])
        in_query = await _ask(harness, method, f"{target}?token={harness.service.token(publishes=True)}", body)
        assert in_query.status == 401
        answer = await _ask(harness, method, target, body, harness.service.token("n", vip_days=None))
        assert answer.status == 403
        assert _problem(answer)["detail"] in (
            "this needs a token with the scope signals:publish",
            "VIP subscription required",
        )
        assert harness.service.database.counters().position == 0


async def test_a_revoked_vip_reads_nothing_whatever_the_token_says(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nor does one whose grant is over."""
    async with web_harness(tmp_path) as harness:
        await harness.services.signals.service.ready.wait()
        harness.service.database.revoke("123", 0)
        harness.service.database.grant("124", 1, harness.service.now_s() - 2 * DAY_S)
        for user in ("123", "124"):
            assert (await _ask(harness, "GET", "/api/signals", b"", harness.service.token(user))).status == 403


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "field"),
    [
        ("POST", "/api/signals", b"", 400, None),
        ("POST", "/api/signals", b"\xff", 400, None),
        ("POST", "/api/signals", b"[" * 60_000, 400, None),
        ("POST", "/api/signals", b"x" * 70_000, 413, None),
        ("POST", "/api/signals", DRAFT.replace(b"mexc_dex", b"other"), 400, "signal_type"),
        ("POST", "/api/signals", DRAFT.replace(b"8.840", b'"8.840"'), 400, "data.spread"),
        ("POST", "/api/signals", DRAFT.replace(b"8.840", b"1e999999999"), 400, "data.spread"),
        ("POST", "/api/signals", DRAFT.replace(b"8.840", b"1e99999999999999999999"), 400, None),
        ("PATCH", "/api/signals/1", b'{"data":{"a":1e99999999999999999999}}', 400, None),
        ("PATCH", "/api/signals/x", b'{"data":{"a":1}}', 400, "id"),
        ("PATCH", "/api/signals/-1", b'{"data":{"a":1}}', 400, "id"),
        ("PATCH", "/api/signals/99999999999999999999", b'{"data":{"a":1}}', 400, "id"),
        ("PATCH", "/api/signals/7", b'{"data":{"a":1}}', 404, None),
        ("PATCH", "/api/signals/1", b'{"data":{}}', 400, "data"),
        ("GET", "/api/signals?since_id=-1", b"", 400, "since_id"),
        ("GET", "/api/signals?since_id=x", b"", 400, "since_id"),
        ("GET", "/api/signals?limit=0", b"", 400, "limit"),
        ("GET", "/api/signals?limit=1001", b"", 400, "limit"),
        ("GET", "/api/signals?signal_type=other", b"", 400, "signal_type"),
        ("GET", "/api/signals?signal_type=mexc_dex,other", b"", 400, "signal_type"),
        ("GET", "/api/signals?signal_type=", b"", 400, "signal_type"),
        ("GET", "/api/signals?coin_name=", b"", 400, "coin_name"),
        ("GET", "/api/signals?coin_name=BTC,a%00", b"", 400, "coin_name"),
        ("GET", "/api/signals?coin_name=" + "x" * 65, b"", 400, "coin_name"),
        ("GET", "/api/signals?coin_name=" + "a," * 10_000, b"", 400, "coin_name"),
        ("GET", "/api/signals?coin_name=a&coin_name=b", b"", 400, "coin_name"),
        ("GET", "/api/signals?coin=a", b"", 400, "coin"),
        ("PUT", "/api/signals", b"", 405, None),
    ],
)
async def test_each_wrong_request_is_named(
    method: str,
    target: str,
    body: bytes,
    status: int,
    field: str | None,
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
) -> None:
    """And nothing is committed."""
    async with web_harness(tmp_path) as harness:
        answer = await _ask(harness, method, target, body, harness.service.token(publishes=True))
        assert answer.status == status
        errors = _problem(answer).get("errors")
        assert (None if errors is None else errors[0]["field"]) == field  # type: ignore[index]
        assert harness.service.database.counters().position == 0


async def test_vips_are_the_administrators_business(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Granted, shown, revoked; only with the admin token."""
    settings = Settings(admin_token="an admin token of ours")
    async with web_harness(tmp_path, settings) as harness:
        admin = "an admin token of ours"
        for method, body in (("POST", b'{"days":30}'), ("DELETE", b""), ("GET", b"")):
            assert (await _ask(harness, method, "/api/vip/123", body)).status == 401
            assert (
                await _ask(harness, method, "/api/vip/123", body, harness.service.token(publishes=True))
            ).status == 401
        unknown = json.loads((await _ask(harness, "GET", "/api/vip/123", b"", admin)).body)
        assert unknown == {"user_id": "123", "active": False, "revoked": False, "vip_until": None}
        granted = json.loads((await _ask(harness, "POST", "/api/vip/123", b'{"days":30.0}', admin)).body)
        assert granted["active"]
        assert granted["vip_until"] == harness.service.now_s() + 30 * DAY_S
        assert json.loads((await _ask(harness, "GET", "/api/vip/123", b"", admin)).body) == granted
        revoked = json.loads((await _ask(harness, "DELETE", "/api/vip/123", b"", admin)).body)
        assert (revoked["active"], revoked["revoked"]) == (False, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"days":1e99999999999999999999}',
        b"",
        b"[]",
        b"{}",
        b'{"days":"30"}',
        b'{"days":0}',
        b'{"days":1.5}',
        b'{"days":true}',
        b'{"days":1,"x":1}',
    ],
)
async def test_wrong_days_are_named(body: bytes, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Text in place of a number, nothing, nonsense."""
    async with web_harness(tmp_path) as harness:
        assert (await _ask(harness, "POST", "/api/vip/123", body, ADMIN_TOKEN)).status == 400
        assert harness.service.database.vips() == []


@pytest.mark.parametrize("user", ["a%20b", "%0a", "x" * 257, "%00"])
async def test_a_wrong_user_is_named(user: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Printable, without spaces, not too long."""
    async with web_harness(tmp_path) as harness:
        assert (await _ask(harness, "POST", f"/api/vip/{user}", b'{"days":1}', ADMIN_TOKEN)).status == 400


async def test_a_store_that_fails_is_503_and_prices_go_on(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time to come back at, and without the database's words."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("database or disk is full")

    async with web_harness(tmp_path) as harness:
        await harness.services.signals.service.ready.wait()
        producer = harness.service.token("p", publishes=True)
        for name in ("publish", "update", "vip", "grant", "revoke"):
            monkeypatch.setattr(SignalDatabase, name, fail)
        calls: Sequence[tuple[str, str, bytes]] = (
            ("POST", "/api/signals", DRAFT),
            ("PATCH", "/api/signals/1", b'{"data":{"a":1}}'),
            ("GET", "/api/signals", b""),
        )
        answers = [await _ask(harness, *call, producer) for call in calls]
        for method, body in (("POST", b'{"days":30}'), ("DELETE", b""), ("GET", b"")):
            answers.append(await _ask(harness, method, "/api/vip/123", body, ADMIN_TOKEN))
        for answer in answers:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            assert "disk" not in str(_problem(answer)["detail"])
        assert (await _ask(harness, "GET", "/api/ws/prices")).status == 200


async def test_a_quiet_filter_is_led_past_what_it_leaves_out(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Who asks again now and then walked through the same signals of others each time."""
    async with web_harness(tmp_path) as harness:
        vip = harness.service.token()
        producer = harness.service.token("p", vip_days=None, publishes=True)
        for coin in (b"NB", b"BTC", b"NB", b"ETH"):
            answer = await _ask(harness, "POST", "/api/signals", DRAFT.replace(b"NB", coin), producer)
            assert answer.status == 201
        pages = [
            json.loads((await _ask(harness, "GET", f"/api/signals?coin_name=nb&since_id={since}", b"", vip)).body)
            for since in (0, 3, 4, 9)
        ]
        assert [(page["count"], page["next_since_id"]) for page in pages] == [(2, 3), (0, 4), (0, 4), (0, 9)]
        changed = b'{"data":{"coin_name":"nb"}}'
        assert (await _ask(harness, "PATCH", "/api/signals/4", changed, producer)).status == 200
        answer = await _ask(harness, "GET", "/api/signals?coin_name=NB&limit=2&since_id=1", b"", vip)
        assert [signal["id"] for signal in json.loads(answer.body)["signals"]] == [3, 4]  # as they stand now
