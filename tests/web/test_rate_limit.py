"""How many requests an address may make, and who is not counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.settings import Settings
from komas.web.rate_limit import PAUSE_S
from tests.web.harness import ADMIN, Answer, WebHarness, web_harness

HOST = ("Host", "localhost")
FEW = Settings(request_rate=0.1, request_burst=3, max_sse_per_address=2)
SSE = "/api/ws/sse/prices?symbols=NONEUSDT"  # 400, where it is not busy


async def _ask(
    harness: WebHarness,
    count: int,
    target: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    client: str = "192.0.2.1",
) -> list[Answer]:
    """So many answers to the same question."""
    return [await harness.call(method, target, headers=[HOST, *headers], client=client) for _ in range(count)]


def _refused(answers: Sequence[Answer]) -> int:
    return sum(answer.status == 429 for answer in answers)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/ws/signals"),
        ("GET", "/api/ws/status"),
        ("GET", "/api/ws/prices"),
        ("GET", "/api/ws/streams"),
        ("GET", "/api/ws/depth?symbol=NONEUSDT"),
        ("POST", "/api/ws/subscribe"),
        ("POST", "/api/ws/sse/prices"),
        ("OPTIONS", "/api/ws/prices"),
        ("GET", "/api/signals"),
        ("POST", "/api/signals"),
        ("GET", "/api/vip/1"),
        ("GET", "/api/logs/today"),
    ],
)
async def test_what_anybody_may_ask_is_limited(
    method: str, target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """429, and when to come back; other addresses are not concerned."""
    async with web_harness(tmp_path, FEW) as harness:
        autojump_clock.autojump_threshold = 0.2  # some answers are made in a thread, which is not to cost seconds
        answers = await _ask(harness, 5, target, method=method, headers=[("Origin", "https://example.com")])
        assert [answer.status == 429 for answer in answers] == [False] * 3 + [True] * 2
        refused = answers[-1]
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert refused.headers["content-type"] == "application/problem+json"
        if method in ("GET", "OPTIONS") and "signals" not in target and "vip" not in target and "logs" not in target:
            assert refused.headers["access-control-allow-origin"] == "*"
        assert not _refused(await _ask(harness, 3, target, method=method, client="192.0.2.2"))
        autojump_clock.autojump_threshold = 0
        await trio.sleep(int(refused.headers["retry-after"]))
        assert not _refused(await _ask(harness, 1, target, method=method))
        assert b"komas_requests_refused_total 2.0" in (await harness.call("GET", "/metrics", client="192.0.2.3")).body


async def test_a_refusal_takes_its_time(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """It costs as much as an answer: who asks on and on over one connection is slowed down."""
    async with web_harness(tmp_path, Settings(request_rate=100, request_burst=1)) as harness:
        began = trio.current_time()
        answers = await _ask(harness, 8, "/api/ws/status")
        assert [answer.status for answer in answers] == [200, 429] * 4
        assert trio.current_time() - began == pytest.approx(4 * PAUSE_S)


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
async def test_a_probe_is_never_refused(target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Nor counted, nor kept waiting behind what is."""
    async with web_harness(tmp_path, FEW) as harness:
        await _ask(harness, 5, "/api/ws/status")
        assert not _refused(await _ask(harness, 50, target))


async def test_an_event_stream_is_told_busy(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """An EventSource gives up on 429; as many as an address may have can come back at once after a cut."""
    async with web_harness(tmp_path, FEW) as harness:
        await _ask(harness, 5, "/api/ws/status")  # is counted by itself
        assert [answer.status for answer in await _ask(harness, 5, SSE)] == [400] * 5
        (busy,) = await _ask(harness, 1, SSE)
        assert (busy.status, busy.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert busy.body.startswith(b"retry: ")
        assert b'event: busy\ndata: {"reason":"too many requests from this address"}\n\n' in busy.body
        (head,) = await _ask(harness, 1, SSE, method="HEAD")
        assert (head.status, head.body) == (200, b"")


async def test_the_administrator_is_not_counted(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Whatever else comes from that address; a wrong token is nobody's."""
    async with web_harness(tmp_path, FEW) as harness:
        wrong = [("Authorization", "Bearer wrong")]
        answers = await _ask(harness, 5, "/api/logs/today", headers=wrong)
        assert [answer.status for answer in answers] == [401] * 3 + [429] * 2
        assert not _refused(await _ask(harness, 20, "/api/logs/today", headers=[ADMIN]))


async def test_producers_and_vips_are_not_counted(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Once their token is known to be good; anonymous callers of their address take nothing from them."""
    async with web_harness(tmp_path, FEW) as harness:
        await harness.services.signals.service.ready.wait()
        await _ask(harness, 5, "/api/ws/status")
        good = [("Authorization", f"Bearer {harness.service.token()}")]
        assert [answer.status for answer in await _ask(harness, 20, "/api/signals", headers=good)] == [200] * 20
        bad = [("Authorization", "Bearer bad")]
        answers = await _ask(harness, 5, "/api/signals", headers=bad)
        assert [answer.status for answer in answers] == [401] * 3 + [429] * 2


async def test_clients_of_a_trusted_proxy_are_counted_one_by_one(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """And what a stranger says of itself is not believed."""
    async with web_harness(
        tmp_path, Settings(request_rate=0.1, request_burst=1, trusted_proxies=("10.0.0.1",))
    ) as harness:
        for peer, refused in (("10.0.0.1", 0), ("192.0.2.1", 3)):
            answers = [
                await harness.call("GET", "/api/ws/status", headers=[HOST, ("X-Forwarded-For", client)], client=peer)
                for client in ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4")
            ]
            assert _refused(answers) == refused


async def test_peers_of_a_unix_socket_are_one_unless_their_proxy_says_more(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They had no limit at all; that they count as one is said once."""
    async with web_harness(tmp_path, FEW) as harness:
        for number in range(4):
            of = [("X-Forwarded-For", f"198.51.100.{number}")]
            assert not _refused(await _ask(harness, 3, "/api/ws/status", client="", headers=of))
        assert not [record for record in caplog.records if "X-Forwarded-For" in record.getMessage()]
        assert _refused(await _ask(harness, 5, "/api/ws/status", client="")) == 2
    said = [record.getMessage() for record in caplog.records if "X-Forwarded-For" in record.getMessage()]
    assert len(said) == 1
    assert "count as one address" in said[0]


async def test_no_honest_program_reaches_the_default(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A room full of pages that are opened at once, and then look at prices every second."""
    async with web_harness(tmp_path) as harness:
        assert not _refused(await _ask(harness, 100, "/"))
        for _ in range(10):
            await trio.sleep(1)
            assert not _refused(await _ask(harness, 40, "/api/ws/prices"))


async def test_each_call_that_may_be_refused_is_described(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """All but probes and streams say so: a request that is no handshake may be one too many of a socket's path."""
    async with web_harness(tmp_path) as harness:
        document = json.loads((await harness.call("GET", "/openapi.json")).body)
        without = {
            path
            for path, calls in document["paths"].items()
            for call in calls.values()
            if "429" not in call["responses"]
        }
    assert {path for path in without if "/sse/" not in path} == {"/healthz", "/readyz"}
