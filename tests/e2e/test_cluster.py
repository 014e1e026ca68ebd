"""Two processes with one feed over a real Redis, as those who use and administer them see it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from komas.model.codec import read_object
from tests.e2e.processes import PATIENCE_S, Exchange, Process, events, komas, running, simulating, wait_for
from tests.e2e.redis_server import RedisServer, redis_server

TOKEN = "cluster-token-1234567"
LEASE_S = 1.5


class Node:
    """One ``komas serve``."""

    def __init__(self, process: Process, url: str, name: str) -> None:
        self.process = process
        self.url = url
        self.name = name

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call it as an administrator; the answer's JSON, with the digits of numbers."""
        answer = httpx.request(
            method,
            f"{self.url}{path}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=PATIENCE_S,
            trust_env=False,
            **options,
        )
        assert answer.is_success, answer.text
        return read_object(answer.content)

    def is_ready(self) -> bool:
        """Whether a balancer would send readers here."""
        return bool(httpx.get(f"{self.url}/readyz", timeout=PATIENCE_S, trust_env=False).is_success)

    def leads(self) -> bool:
        """Whether it is connected to the exchange, as it says itself."""
        return bool(self.call("GET", "/api/ws/status")["cluster"]["leader"] == self.name)

    def answers(self) -> float:
        """How often the exchange has answered it over REST."""
        answer = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S, trust_env=False).text
        return sum(float(count) for count in re.findall(r"^komas_rest_seconds_count\S* (\S+)", answer, re.MULTILINE))

    def events(self, path: str, count: int, position: str | None = None) -> list[tuple[str, Any]]:
        """So many events with an ``id``, which it has too; a gap is one without."""
        found: list[tuple[str, Any]] = []
        headers = {} if position is None else {"Last-Event-ID": position}
        with httpx.stream("GET", f"{self.url}{path}", headers=headers, timeout=PATIENCE_S, trust_env=False) as answer:
            for name, data, place in events(answer):
                assert name not in ("gap", "busy"), data
                if name == "message":
                    found.append((place, json.loads(data)))
                if len(found) >= count:
                    break
        return found


@contextmanager
def node(folder: Path, name: str, exchange: Exchange, redis: RedisServer, *options: str) -> Iterator[Node]:
    """A process that takes part."""
    variables = {
        "KOMAS_DATA_DIR": str(folder / name),
        "KOMAS_BACKPLANE": f"unix://{redis.socket}",
        "KOMAS_BINANCE_UPSTREAM": exchange.ws_url,
        "KOMAS_ADMIN_TOKEN": TOKEN,
        "KOMAS_NODE_NAME": name,
        "KOMAS_LEASE_S": str(LEASE_S),
        "KOMAS_DATABASE_URL": f"sqlite:///{folder}/signals.db",
        "KOMAS_REQUEST_RATE": "0",
    }
    with running(komas("serve", "--bind", "127.0.0.1:0", *options), variables) as process:
        each = Node(process, process.line(r"komas listens on (http://\S+)")[1], name)
        wait_for(each.is_ready, f"{name} ready")
        yield each


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """One for all."""
    with simulating() as found:
        yield found


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """One for each test: they do to it what they like."""
    with redis_server() as found:
        yield found


@pytest.fixture
def nodes(tmp_path: Path, exchange: Exchange, redis: RedisServer) -> Iterator[tuple[Node, Node]]:
    """The leader, and an edge."""
    with ExitStack() as stack:
        leader = stack.enter_context(node(tmp_path, "leader", exchange, redis))
        edge = stack.enter_context(node(tmp_path, "edge", exchange, redis, "--role", "edge"))
        wait_for(leader.leads, "somebody leads")
        yield leader, edge


def test_what_is_asked_of_any_process_is_done_by_the_leader(nodes: tuple[Node, Node]) -> None:
    """Control, prices, streams, books, candles: the same answers as from a process that is alone."""
    leader, edge = nodes
    asked = {"symbols": ["BTCUSDT", "ETHUSDT"], "stream_type": "ticker"}
    assert edge.call("POST", "/api/ws/subscribe", json=asked)["subscribed"] == ["btcusdt@ticker", "ethusdt@ticker"]
    wait_for(lambda: edge.call("GET", "/api/ws/prices")["count"] == 2, "prices at the edge")
    streams = leader.call("GET", "/api/ws/streams")["streams"]
    assert {(row["stream"], row["pinned"]) for row in streams} == {("btcusdt@ticker", True), ("ethusdt@ticker", True)}
    assert len(edge.call("GET", "/api/ws/depth?symbol=BTCUSDT&limit=300")["bids"]) > 20
    assert len(edge.call("GET", "/api/ws/depth?symbol=BTCUSDT&limit=5")["bids"]) == 5
    assert edge.call("GET", "/api/ws/klines?symbol=BTCUSDT&limit=3")["count"] == 3
    assert edge.call("POST", "/api/ws/rotate")["replacing"] == 1
    every = edge.call("POST", "/api/ws/subscribe", json={"symbols": ["*"], "stream_type": "mini_ticker"})
    assert len(every["subscribed"]) > 2
    gone = leader.call("POST", "/api/ws/unsubscribe", json={"symbols": ["*"], "stream_type": "mini_ticker"})
    assert gone["unsubscribed"] == every["subscribed"]
    assert edge.call("POST", "/api/ws/disconnect")["state"] == "disconnected"
    assert edge.call("POST", "/api/ws/connect")["connected"] is True
    edge.call("POST", "/api/ws/quick/stop")
    wait_for(lambda: not any(row["pinned"] for row in edge.call("GET", "/api/ws/streams")["streams"]), "no pins")
    wait_for(lambda: leader.call("GET", "/api/ws/status")["state"] == "disconnected", "nobody is connected")


def test_a_price_has_the_same_digits_at_every_process(nodes: tuple[Node, Node]) -> None:
    """Bytes are handed on; what is made of them again is what they said."""
    leader, edge = nodes
    edge.events("/api/ws/sse/trades?symbol=BTCUSDT", 3)
    first = leader.events("/api/ws/sse/trades?symbol=BTCUSDT", 5)
    again = edge.events("/api/ws/sse/trades?symbol=BTCUSDT", 5, _before(first[0][0]))
    assert again == first


@pytest.mark.parametrize(
    "path", ["/api/ws/sse/trades?symbol=BTCUSDT", "/api/ws/sse/stream?streams=btcusdt@trade/ethusdt@trade"]
)
def test_a_reader_goes_on_at_another_process(path: str, nodes: tuple[Node, Node]) -> None:
    """With its last id: nothing twice, nothing left out, no gap; also where that process is a moment behind."""
    found: list[tuple[str, Any]] = []
    for turn in range(8):
        found += nodes[turn % 2].events(path, 12, found[-1][0] if found else None)
    for symbol in {message["data"]["symbol"] for _, message in found}:
        numbers = [message["data"]["trade_id"] for _, message in found if message["data"]["symbol"] == symbol]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_connection_is_changed_through_any_process(nodes: tuple[Node, Node]) -> None:
    """The page's requests may arrive at a process that does not have its event stream."""
    leader, edge = nodes
    url = f"{edge.url}/api/ws/sse/stream?streams=btcusdt@trade"
    with httpx.stream("GET", url, timeout=PATIENCE_S, trust_env=False) as answer:
        found = events(answer)
        name, data, _ = next(found)
        assert name == "open"
        path = f"/api/ws/sse/stream/{json.loads(data)['connection']}"
        changed = leader.call("POST", path, json={"subscribe": ["ethusdt@trade"], "unsubscribe": ["btcusdt@trade"]})
        assert changed == {"streams": ["ethusdt@trade"]}
        assert any(json.loads(data).get("stream") == "ethusdt@trade" for _, data, _ in found)
    missing = httpx.post(f"{leader.url}/api/ws/sse/stream/nobody", json={}, timeout=PATIENCE_S, trust_env=False)
    assert missing.status_code == 404


def test_another_process_leads_when_the_leader_is_killed(
    tmp_path: Path, exchange: Exchange, redis: RedisServer
) -> None:
    """The reader of the other one gets each trade once; what came meanwhile is asked for."""
    path = "/api/ws/sse/trades?symbol=BTCUSDT"
    with (
        node(tmp_path, "first", exchange, redis) as first,
        node(tmp_path, "second", exchange, redis) as second,
    ):
        wait_for(first.leads, "the first one leads")
        before = second.events(path, 5)
        first.process.signal(signal.SIGKILL)
        wait_for(second.leads, "the second one leads")
        after = second.events(path, 40, before[-1][0])
    numbers = [message["data"]["trade_id"] for _, message in before + after]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_process_that_stands_by_goes_on_without_rest(tmp_path: Path, redis: RedisServer) -> None:
    """Its reader gets each trade once, none of them asked for, and its order book is true at once."""
    path = "/api/ws/sse/trades?symbol=BTCUSDT"
    with (
        simulating() as exchange,
        node(tmp_path, "first", exchange, redis) as first,
        node(tmp_path, "second", exchange, redis, "--standby", "hot") as second,
    ):
        wait_for(first.leads, "the first one leads")
        rows = second.call("GET", "/api/ws/status")["cluster"]["nodes"]
        assert {row["node"]: row["standby"] for row in rows}["second"] == "hot"
        answers = second.answers()
        second.call("POST", "/api/ws/subscribe", json={"symbols": ["BTCUSDT"], "stream_type": "depth"})
        before = second.events(path, 5)
        wait_for(lambda: exchange.state()["subscriptions"] == 4, "both hold both streams")
        wait_for(lambda: second.answers() > answers, "the second one has asked for the book")
        before += second.events(path, 40, before[-1][0])
        exchange.fault(fault="rest", status=503, requests=None)
        first.process.signal(signal.SIGKILL)
        wait_for(second.leads, "the second one leads")
        after = second.events(path, 40, before[-1][0])
        assert len(second.call("GET", "/api/ws/depth?symbol=BTCUSDT&limit=5")["bids"]) == 5
    numbers = [message["data"]["trade_id"] for _, message in before + after]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert not any(message.get("backfilled") for _, message in after)


def test_a_redis_that_is_away_is_told_and_nothing_is_lost(nodes: tuple[Node, Node], redis: RedisServer) -> None:
    """After two seconds readers hear of it; a restarted, empty Redis is filled again."""
    leader, edge = nodes
    path = "/api/ws/sse/trades?symbol=BTCUSDT"
    before = edge.events(path, 5)
    redis.kill()
    wait_for(lambda: edge.call("GET", "/api/ws/status")["state"] == "reconnecting", "readers are told")
    wait_for(lambda: not edge.is_ready(), "not ready")
    time.sleep(1)
    redis.start()
    wait_for(edge.is_ready, "ready again")
    after = edge.events(path, 60, before[-1][0])
    numbers = [message["data"]["trade_id"] for _, message in before + after]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert leader.call("GET", "/api/ws/status")["cluster"]["leader"] == "leader"


def _before(position: str) -> str:
    epoch, _, number = position.partition("-")
    return f"{epoch}-{int(number) - 1}"
