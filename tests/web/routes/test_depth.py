"""The order book over REST and SSE."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind
from komas.model.market import Depth, Health, HealthNotice
from komas.model.streams import Stream
from komas.settings import Settings
from tests.venues.exchange import Peer, listening, obeying
from tests.web.harness import Events, web_harness

pytestmark = pytest.mark.usefixtures("both_ways")


def _frame(first: int, last: int, bid: str = "99.0", size: str = "1.50") -> str:
    data = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": first, "u": last, "b": [[bid, size]], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": data})


async def _changing(peer: Peer) -> None:
    """Each second one change: of the best level, then of one far from it."""
    await peer.say(_frame(9, 11))
    for number in range(12, 1000):
        await trio.sleep(1)
        await peer.say(_frame(number, number, "99.0" if number % 2 else "50.0", f"{number}.0"))


async def test_a_book_is_there_for_whoever_asks(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """The first call subscribes and waits; prices and quantities are numbers with the exchange's digits."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(listening(_changing))
        answer = await harness.call("GET", "/api/ws/depth?symbol=btcusdt")
        assert answer.status == 200
        assert answer.body == (
            b'{"type":"depth","symbol":"BTCUSDT","update_id":11,"bids":[[100.0,1.0],[99.0,1.50]],'
            b'"asks":[[101.0,2.00]],"timestamp":1}'
        )
        narrow = json.loads((await harness.call("GET", "/api/ws/depth?symbol=BTCUSDT&limit=1")).body)
        assert narrow["bids"] == [[100.0, 1.0]]
        rows = json.loads((await harness.call("GET", "/api/ws/streams")).body)["streams"]
        assert [(row["stream"], row["type"], row["health"]) for row in rows] == [
            ("btcusdt@depth@100ms", "depth", "live")
        ]
        await trio.sleep(31)
        assert json.loads((await harness.call("GET", "/api/ws/streams")).body)["count"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "symbol"),
        ("symbol=NOPEUSDT", "symbol"),
        ("symbol=BTCUSDT&limit=0", "limit"),
        ("symbol=BTCUSDT&limit=1001", "limit"),
        ("symbol=BTCUSDT&limit=x", "limit"),
    ],
)
async def test_a_wrong_question_is_named(
    query: str, field: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Before anything is subscribed."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", f"/api/ws/depth?{query}")
        assert answer.status == 400
        assert [error["field"] for error in json.loads(answer.body)["errors"]] == [field]
        assert harness.exchange.dialled_at == []


async def test_a_book_that_does_not_come_is_said_in_time(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Subscribed, and no snapshot comes: 504, and komas goes on trying."""
    async with web_harness(tmp_path, has_snapshots=False) as harness:
        harness.exchange.script(obeying)
        answer = await harness.call("GET", "/api/ws/depth?symbol=BTCUSDT")
        assert answer.status == 504
        assert b"no order book within 10 s" in answer.body


async def test_a_book_in_which_nothing_changes_is_there(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Of a halted or an illiquid symbol: the snapshot is asked for once the stream is acknowledged."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        answer = await harness.call("GET", "/api/ws/depth?symbol=BTCUSDT")
        assert answer.status == 200
        assert json.loads(answer.body)["update_id"] == 10


async def test_a_browser_sees_the_levels_that_it_asked_for_when_they_change(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A change below them is no event for it."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(listening(_changing))
        async with harness.stream("/api/ws/sse/depth?symbol=BTCUSDT&limit=2") as events:
            seen: list[dict[str, object]] = []
            while len(seen) < 4:
                lines = (await events.chunk()).split(b"\n")
                seen += [json.loads(line[6:])["data"] for line in lines if line.startswith(b'data: {"type":"depth"')]
        assert [fact["update_id"] for fact in seen] == [11, 13, 15, 17]
        assert all(len(fact["bids"]) == 2 for fact in seen)  # type: ignore[arg-type]  # lists
        async with harness.stream("/api/ws/sse/depth?symbol=BTCUSDT&limit=1") as events:
            chunk = b""
            while b'"type":"depth"' not in chunk:
                chunk = await events.chunk()
            assert b'"bids":[[100.0,1.0]]' in chunk


def _book(number: int) -> Depth:
    deep = Decimal(number)
    bids = (Decimal(9), Decimal(1)), (Decimal(8), deep)
    return Depth(symbol="BTCUSDT", update_id=number, bids=bids, asks=(), timestamp=0)


async def test_readers_of_a_top_that_does_not_change_hear_comments(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """However often what they are not shown changes: a silent connection would be taken for dead."""
    stream, target = Stream(Kind.DEPTH, "BTCUSDT"), "/api/ws/sse/depth?symbol=BTCUSDT&limit=1"
    async with web_harness(tmp_path) as harness, harness.stream(target) as one, harness.stream(target) as other:
        heard: list[list[float]] = [[], []]

        async def read(events: Events, times: list[float]) -> None:
            while True:
                await events.chunk()
                times.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, one, heard[0])
            await trio.sleep(3)
            nursery.start_soon(read, other, heard[1])
            for number in range(1000):
                harness.services.hub.publish(stream, _book(number), 0)
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        for times in heard:
            assert max(after - before for before, after in pairwise([*times, trio.current_time()])) < 16


async def test_who_comes_while_a_book_is_doubtful_is_shown_it_when_it_is_well(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Although its top is what others have seen before."""
    stream, target = Stream(Kind.DEPTH, "BTCUSDT"), "/api/ws/sse/depth?symbol=BTCUSDT&limit=1"
    async with web_harness(tmp_path) as harness, harness.stream(target) as first:
        hub = harness.services.hub
        chunk = await first.chunk()  # it listens now
        hub.publish(stream, _book(1), 0)
        while b'"depth"' not in chunk:
            chunk = await first.chunk()
        hub.publish_health(stream, HealthNotice(stream=stream.name, health=Health.RECOVERING, reason="cut"))
        async with harness.stream(target) as second, trio.open_nursery() as nursery:
            nursery.start_soon(_read_on, first)
            said = b""
            with trio.move_on_after(5):
                said = await second.chunk()
                hub.publish_health(stream, HealthNotice(stream=stream.name, health=Health.LIVE, reason="well"))
                hub.publish(stream, _book(2), 0)
                while True:
                    said += await second.chunk()
            nursery.cancel_scope.cancel()
        assert said.count(b'"update_id":2') == 1


async def _read_on(events: Events) -> None:
    while True:
        await events.chunk()


async def test_order_books_of_one_address_have_a_bound_and_others_have_theirs(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """429 and when to come back, over REST; busy over SSE. Another address is served."""
    async with web_harness(tmp_path, Settings(max_books_per_address=1, linger_s=30)) as harness:
        harness.exchange.script(_changing, obeying)
        async with harness.stream("/api/ws/sse/depth?symbol=BTCUSDT", client="192.0.2.1"):
            answer = await harness.call("GET", "/api/ws/depth?symbol=ETHUSDT", client="192.0.2.1")
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0
            assert b"too many order books from this address" in answer.body
            answer = await harness.call("GET", "/api/ws/sse/depth?symbol=ETHUSDT", client="192.0.2.1")
            assert b"event: busy" in answer.body
            answer = await harness.call("GET", "/api/ws/depth?symbol=BTCUSDT", client="192.0.2.1")
            assert answer.status == 200
            assert (await harness.call("GET", "/api/ws/depth?symbol=ETHUSDT", client="192.0.2.2")).status != 429
