"""What one process of many says of the others, and whom it does not let in yet."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio.testing

from komas.model.codec import StreamPosition
from tests.web.cluster_stub import StubCluster
from tests.web.harness import ADMIN, web_harness


async def test_the_status_has_the_other_processes(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Who is there, and who is connected to the exchange; nothing of the kind where a process is alone."""
    async with web_harness(tmp_path, cluster=StubCluster()) as harness:
        answer = msgspec.json.decode((await harness.call("GET", "/api/ws/status")).body)
        assert answer["cluster"]["leader"] == "a"
        assert [row["node"] for row in answer["cluster"]["nodes"]] == ["a", "b"]
    async with web_harness(tmp_path / "alone") as harness:
        assert "cluster" not in msgspec.json.decode((await harness.call("GET", "/api/ws/status")).body)


async def test_a_process_that_hears_nobody_is_not_ready(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With the reason."""
    async with web_harness(tmp_path, cluster=StubCluster(reason="backplane: no process leads")) as harness:
        answer = await harness.call("GET", "/readyz")
        assert answer.status == 503
        assert msgspec.json.decode(answer.body)["reasons"] == ["backplane: no process leads"]


@pytest.mark.parametrize(
    "target",
    [
        "/api/ws/sse/trades?symbol=BTCUSDT",
        "/api/ws/sse/klines?symbol=BTCUSDT",
        "/api/ws/sse/stream?streams=btcusdt@trade",
    ],
)
async def test_a_reader_that_is_ahead_is_asked_to_come_again(
    target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It was at a process that had read more: a gap that is none would be told to it here."""
    cluster = StubCluster(has_passed=False)
    async with web_harness(tmp_path, cluster=cluster) as harness:
        answer = await harness.call("GET", target, headers=[("Last-Event-ID", "abcd1234-77")])
        assert b"event: busy" in answer.body
        assert b"id: abcd1234-77" in answer.body  # its place stays its own
        assert b"event: gap" not in answer.body
    assert cluster.asked[0][0] == StreamPosition("abcd1234", 77)


async def test_a_process_that_does_not_lead_does_not_count_what_the_leader_counts(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Or sums over all processes would be too high."""
    async with web_harness(tmp_path, cluster=StubCluster(is_leader=False)) as harness:
        text = (await harness.call("GET", "/metrics")).body
    assert b"komas_cluster_leader 0.0" in text
    assert b"komas_upstream" not in text
    assert b"komas_rest_weight" in text


async def test_a_connection_of_another_process_is_changed_there(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A balancer sends the request that changes a connection to any process; none has this one."""
    cluster = StubCluster()
    async with web_harness(tmp_path, cluster=cluster) as harness:
        body = b'{"subscribe": ["btcusdt@trade"]}'
        answer = await harness.call("POST", "/api/ws/sse/stream/abcdefgh", body=body)
        assert (answer.status, cluster.inquiries) == (404, ["change"])
        cluster.answers["change"] = lambda _body: b'{"streams": ["btcusdt@trade"], "why_full": null}'
        answer = await harness.call("POST", "/api/ws/sse/stream/abcdefgh", body=body)
        assert msgspec.json.decode(answer.body) == {"streams": ["btcusdt@trade"]}
        cluster.answers["change"] = lambda _body: b'{"streams": [], "why_full": "too many streams are open"}'
        assert (await harness.call("POST", "/api/ws/sse/stream/abcdefgh", body=body)).status == 429


@pytest.mark.parametrize("body", [b"nonsense", b'{"connection":"x","subscribe":["btcusdt@dreams"],"unsubscribe":[]}'])
async def test_an_inquiry_that_cannot_be_read_is_somebody_elses(
    body: bytes, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A newer release may ask for what this one does not have."""
    cluster = StubCluster()
    async with web_harness(tmp_path, cluster=cluster):
        assert cluster.answers["change"](body) is None


async def test_sessions_and_readers_are_those_of_all_processes(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """An administrator saw those of whichever process the balancer had picked."""
    cluster = StubCluster()
    async with web_harness(tmp_path, cluster=cluster) as harness:
        row = {"id": "k7Gq", "user_id": 123, "address": "203.0.113.7", "since": "", "behind": 0, "node": "b"}
        cluster.answers["sessions"] = lambda _body: msgspec.json.encode({"count": 1, "sessions": [row]})
        answer = msgspec.json.decode((await harness.call("GET", "/api/admin/sessions", headers=[ADMIN])).body)
        assert (answer["count"], answer["complete"]) == (2, True)
        assert [each["node"] for each in answer["sessions"]] == ["b", "b"]
        rows = [{"address": "203.0.113.7", "streams": 2, "subscriptions": 3}]
        cluster.answers["readers"] = lambda _body: msgspec.json.encode({"count": 1, "readers": rows})
        answer = msgspec.json.decode((await harness.call("GET", "/api/admin/readers", headers=[ADMIN])).body)
        assert answer["readers"] == [{"address": "203.0.113.7", "streams": 4, "subscriptions": 6}]
        assert answer["count"] == 1
        cluster.answers_itself = False
        answer = msgspec.json.decode((await harness.call("GET", "/api/admin/sessions", headers=[ADMIN])).body)
        assert (answer["count"], answer["complete"]) == (1, False)


@pytest.mark.parametrize("path", ["/api/admin/sessions", "/api/admin/readers"])
async def test_where_the_others_cannot_be_asked_an_administrator_sees_this_process(
    path: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The backplane is away, or they are of a release that says other things."""
    cluster = StubCluster()
    async with web_harness(tmp_path, cluster=cluster) as harness:
        cluster.is_away = True
        answer = await harness.call("GET", path, headers=[ADMIN])
        assert (answer.status, msgspec.json.decode(answer.body)["complete"]) == (200, False)
        cluster.is_away = False
        cluster.answers[path.rpartition("/")[2]] = lambda _body: b'{"other": 1}'
        answer = await harness.call("GET", path, headers=[ADMIN])
        assert (answer.status, msgspec.json.decode(answer.body)["complete"]) == (200, False)
