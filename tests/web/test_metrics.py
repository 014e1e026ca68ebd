"""What ``/metrics`` says of everything behind it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from komas.errors import Cause
from komas.settings import Settings
from komas.venues.binance import limits
from tests.builders import TICKER, TRADE, trade
from tests.venues.exchange import REFUSED, obeying
from tests.web.cluster_stub import StubCluster
from tests.web.harness import ADMIN, NOW_MS, WebHarness, web_harness

ROOT: Final = Path(__file__).parents[2]
FEW: Final = {
    "venue", "kind", "reason", "code", "transport", "state", "health", "route", "method", "status", "action", "le",
    "version", "python", "trio", "implementation", "major", "minor", "patchlevel",
}  # fmt: skip


async def _metrics(harness: WebHarness) -> dict[str, Metric]:
    text = (await harness.call("GET", "/metrics")).body.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


async def _sample(harness: WebHarness, sample: str, **labels: str) -> float:
    """The sum of a sample's values with these labels, whatever its other ones."""
    found = [
        each.value
        for family in (await _metrics(harness)).values()
        for each in family.samples
        if each.name == sample and labels.items() <= each.labels.items()
    ]
    assert found, (sample, labels)
    return sum(found)


async def test_labels_stay_few(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """No symbol, user, path or address is one, whatever clients do."""
    async with web_harness(tmp_path) as harness, trio.open_nursery() as nursery:
        harness.exchange.script(then=obeying)
        token = harness.service.token("the-user", vip_days=1)
        nursery.start_soon(lambda: harness.socket(f"/ws/signals?token={token}", client="192.0.2.7", for_s=50))
        for target in ("/the-path", "/static/the-file", "/api/vip/the-user", "/api/ws/klines?symbol=BTCUSDT"):
            await harness.call("GET", target, client="192.0.2.9")
        await harness.call("BREW", "/api/ws/status")
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT", client="192.0.2.8"):
            await trio.sleep(1)
            text = (await harness.call("GET", "/metrics")).body.decode().lower()
        for word in ("btcusdt", "the-", "192.0.2", "brew", token.lower()):
            assert word not in text
        assert set(re.findall(r"[{,](\w+)=", text)) <= FEW
        nursery.cancel_scope.cancel()


async def test_requests_are_counted_by_route_method_and_status(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """By the rule that they were routed by; also those that are refused before any view."""
    async with web_harness(tmp_path) as harness:
        await harness.call("GET", "/api/vip/7")
        await harness.call("GET", "/api/vip/8", headers=[("Host", "localhost"), ADMIN])
        await harness.call("GET", "/nothing")
        await harness.call("GET", "/healthz?x=1&x=2")
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT"):
            for route, status in (
                ("/api/vip/<path:user_id>", "401"),
                ("/api/vip/<path:user_id>", "200"),
                ("other", "404"),
                ("/healthz", "400"),
                ("/api/ws/sse/prices", "200"),
            ):
                labels = {"route": route, "method": "GET", "status": status}
                assert await _sample(harness, "komas_http_requests_total", **labels) == 1, labels


async def test_what_administrators_did_is_counted(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """What was refused, or only looked at, is none."""
    async with web_harness(tmp_path) as harness:
        admin = [("Host", "localhost"), ADMIN, ("Content-Type", "application/json")]
        await harness.call("DELETE", "/api/vip/7")
        await harness.call("GET", "/api/vip/7", headers=admin)
        await harness.call("POST", "/api/vip/7", headers=admin, body=b'{"days": 1}')
        await harness.call("POST", "/api/ws/quick/stop")
        found = (await _metrics(harness))["komas_admin_actions"].samples
        assert {each.labels["action"]: each.value for each in found} == {"grant": 1, "stop": 1}


async def test_sockets_are_counted_by_how_they_ended(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Closed by us, with our reason; or left by the client."""
    async with web_harness(tmp_path) as harness:
        await harness.socket("/ws/signals")
        await harness.socket("/ws/market?streams=nonsense")
        await harness.socket("/ws/market", for_s=0.5)
        for transport, code, reason in (
            ("signals", "1008", "unauthorized"),
            ("market", "1008", "wrong_request"),
            ("market", "1006", "client"),
        ):
            labels = {"transport": transport, "code": code, "reason": reason}
            assert await _sample(harness, "komas_websocket_closes_total", **labels) == 1, labels


async def test_who_was_turned_away_is_counted_by_reason(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Each once, and the sums that were there before are what they were."""
    settings = Settings(max_sse_per_address=1, max_streams_per_address=1, max_books_per_address=1, max_sockets=0)
    async with web_harness(tmp_path, settings) as harness:
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT"):
            await harness.call("GET", "/api/ws/sse/prices?symbols=BTCUSDT")
        await harness.call("GET", "/api/ws/sse/prices?symbols=BTCUSDT,ETHUSDT")
        await harness.socket("/ws/signals")
        for reason in ("clients_per_address", "streams_per_address", "sockets"):
            assert await _sample(harness, "komas_refusals_total", reason=reason) == 1, reason
        assert await _sample(harness, "komas_sse_refused_total") == 2
        assert await _sample(harness, "komas_refusals_total") == 3


async def test_subscribers_are_told_by_what_they_read_over(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """SSE, WebSocket, signals; none of them stays when its client has left."""
    async with web_harness(tmp_path) as harness:
        async with trio.open_nursery() as nursery:
            token = harness.service.token("7", vip_days=1)
            nursery.start_soon(lambda: harness.socket(f"/ws/signals?token={token}", for_s=50))
            nursery.start_soon(lambda: harness.socket("/ws/market", for_s=50))
            await trio.sleep(1)
            async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT"):
                for transport in ("sse", "websocket", "signals"):
                    assert await _sample(harness, "komas_subscribers", transport=transport) == 1, transport
                assert await _sample(harness, "komas_sse_clients") == 2
            nursery.cancel_scope.cancel()
        assert await _sample(harness, "komas_subscribers") == 0


async def test_the_exchanges_side_by_venue(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """State, reconnects by reason, room for messages, REST weight and latency."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        harness.services.hub.interest.pin([TICKER, TRADE])
        harness.services.markets.connect()
        await trio.sleep(10)
        spot = {"venue": "binance"}
        assert await _sample(harness, "komas_upstream_state", **spot, state="connected") == 1
        assert await _sample(harness, "komas_upstream_state", venue="binance-usdm", state="connected") == 0
        assert await _sample(harness, "komas_upstream_state") == 2
        assert await _sample(harness, "komas_upstream_message_room", **spot) == limits.MESSAGES
        assert await _sample(harness, "komas_upstream_reconnects_total", **spot) == 0
        harness.exchange.script(REFUSED, then=obeying)
        for peer in harness.exchange.peers:
            await trio.aclose_forcefully(peer.stream)
        await trio.sleep(5)
        # By how the connection ended, whatever its successors met.
        assert await _sample(harness, "komas_upstream_reconnects_total", **spot, reason=Cause.NETWORK.value) == 1
        assert await _sample(harness, "komas_upstream_reconnects_total") == 1
        await harness.call("GET", "/api/ws/klines?symbol=BTCUSDT&limit=2")
        assert await _sample(harness, "komas_rest_seconds_count", **spot) >= 1
        assert await _sample(harness, "komas_rest_weight_limit", **spot) == 4800


async def test_gaps_by_kind_and_writes_by_their_latency(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A gap that nobody fills is found and declared; what is written at once took no time."""
    async with web_harness(tmp_path) as harness:
        harness.is_direct = True
        harness.exchange.script(then=obeying)
        harness.services.markets.connect()
        await trio.sleep(1)
        hub, filler = harness.services.hub, harness.services.markets.primary.gap_filler
        async with harness.stream("/api/ws/sse/trades?symbol=BTCUSDT") as events:
            await events.chunk()
            await trio.sleep(1)
            before = await _sample(harness, "komas_write_latency_seconds_count")
            hub.publish(TRADE, trade(1), NOW_MS - 30)
            await events.chunk()
            assert await _sample(harness, "komas_write_latency_seconds_count") == before + 1
            assert await _sample(harness, "komas_write_latency_seconds_bucket", le="0.025") == before
            assert await _sample(harness, "komas_write_latency_seconds_bucket", le="0.05") == before + 1
            assert hasattr(filler, "on_events")
            filler.on_events(TRADE, [trade(2)], NOW_MS)
            filler.on_events(TRADE, [trade(5)], NOW_MS)
            await trio.sleep(60)
        labels = {"venue": "binance", "kind": "trade"}
        assert await _sample(harness, "komas_upstream_gaps_total", **labels) == 1
        assert await _sample(harness, "komas_upstream_gaps_declared_total", **labels) == 1
        assert await _sample(harness, "komas_upstream_gaps_declared_total") == 1


async def test_what_is_conflated_and_what_is_dropped(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Of those who do not read; what waits for them."""
    async with web_harness(tmp_path, Settings(mailbox=10)) as harness:
        hub = harness.services.hub
        with hub.subscribe([TRADE], capacity=10):
            for number in range(15):
                hub.publish(TRADE, trade(number), NOW_MS)
            for _ in range(3):
                hub.publish_status(hub.status)
            assert await _sample(harness, "komas_dropped_total") == 5
            assert await _sample(harness, "komas_conflated_total") == 2
            assert await _sample(harness, "komas_buffered_events") == 11
        assert await _sample(harness, "komas_dropped_total") == 5
        assert await _sample(harness, "komas_buffered_events") == 0


async def test_promtool_finds_nothing_to_say(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Names, units, types and help texts are as Prometheus has them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    async with web_harness(tmp_path) as harness:
        await harness.socket("/ws/signals")
        await harness.call("POST", "/api/ws/quick/stop")
        text = (await harness.call("GET", "/metrics")).body
    done = await trio.run_process(
        [promtool, "check", "metrics"], stdin=text, capture_stdout=True, capture_stderr=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_the_table_of_metrics_has_each_of_them(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """``docs/operations.md``: no more and no less, but for what Python and the process say of themselves."""
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    table = page.partition("## Metrics")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(komas_\w+)", table))
    async with web_harness(tmp_path, cluster=StubCluster()) as harness:
        await harness.socket("/ws/signals")
        await harness.call("POST", "/api/ws/quick/stop")
        families = await _metrics(harness)
    hypercorn = {"komas_connections", "komas_connections_refused_total", "komas_connections_gave_way_total"}
    found = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families.items()
        if name.startswith("komas_")
    }
    assert told == found | hypercorn | {"komas_connections_cut_off_total"}
