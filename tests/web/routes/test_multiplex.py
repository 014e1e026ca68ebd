"""Many streams over one SSE connection: what is heard, how it changes, and how a reader comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus
from komas.model.streams import Stream
from komas.settings import Settings
from tests.builders import KLINE, MINUTE_MS, TICKER, TRADE, kline, ticker, trade
from tests.venues.exchange import obeying
from tests.web.harness import NOW_MS, Events, WebHarness, web_harness

STREAM = "/api/ws/sse/stream?streams="
ETH = Stream.of(Kind.TRADE, "ETHUSDT")
FROM_ELSEWHERE = [("Host", "localhost"), ("Origin", "https://elsewhere.test")]

pytestmark = pytest.mark.usefixtures("both_ways")


class _Reader:
    """What a browser makes of an event stream."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._rest = b""
        self.last_id = ""

    async def next(self) -> tuple[str, dict[str, object]]:
        """The next event: its name, and its data."""
        while b"\n\n" not in self._rest:
            self._rest += await self._events.chunk()
        block, _, self._rest = self._rest.partition(b"\n\n")
        fields = dict(line.split(b": ", 1) for line in block.splitlines() if not line.startswith(b":"))
        self.last_id = fields.get(b"id", self.last_id.encode()).decode()
        return fields.get(b"event", b"message").decode(), json.loads(fields[b"data"])

    async def named(self, name: str) -> dict[str, object]:
        """The next event of a name."""
        with trio.fail_after(100):
            while True:
                found, data = await self.next()
                if found == name:
                    return data


def _data(event: dict[str, object]) -> dict[str, object]:
    data = event["data"]
    assert isinstance(data, dict)
    return data


def _change(**names: list[str]) -> bytes:
    return json.dumps(names).encode()


async def _open(harness: WebHarness, *streams: Stream) -> None:
    harness.exchange.script(obeying)
    harness.services.hub.interest.pin(streams)
    harness.services.markets.connect()
    await harness.services.markets.primary.feed.connected()


async def test_each_event_says_of_which_stream_it_is(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """First the connection's own name, then what is known, then what is live, with every digit."""
    async with web_harness(tmp_path) as harness:
        await _open(harness, TICKER)
        harness.services.hub.publish(TICKER, ticker("5.10"), 0)
        async with harness.stream(f"{STREAM}btcusdt@ticker/btcusdt@trade,ethusdt@trade") as events:
            reader = _Reader(events)
            opened = await reader.named("open")
            assert opened["streams"] == ["btcusdt@ticker", "btcusdt@trade", "ethusdt@trade"]
            assert (opened["simulated"], opened["server"]) == (False, harness.services.hub.epoch)
            first = await reader.named("message")
            assert (first["stream"], first["type"]) == ("btcusdt@ticker", "ticker")
            harness.services.hub.publish(TRADE, trade(7, "61840.10"), NOW_MS)
            live = await reader.named("message")
            assert (live["stream"], live["timestamp"]) == ("btcusdt@trade", "2026-02-02T02:40:00.000Z")
            assert re.fullmatch(r"[0-9a-f]{8}-1", reader.last_id)


async def test_a_reader_comes_back_to_all_of_its_streams(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With one id, to another set of streams; what a stream does not have is a gap of that stream."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        await _open(harness, TRADE)
        for number in range(1, 6):
            hub.publish(TRADE, trade(number), 0)
        headers = [("Host", "localhost"), ("Last-Event-ID", f"{hub.epoch}-2")]
        async with harness.stream(f"{STREAM}ethusdt@trade/btcusdt@trade", headers=headers) as events:
            reader = _Reader(events)
            gap = await reader.named("gap")
            assert (gap["stream"], gap["from"], gap["to"]) == ("ethusdt@trade", None, None)
            hub.publish(ETH, trade(40), 0)
            hub.publish(TRADE, trade(6), 0)
            heard = [await reader.named("message") for _ in range(5)]
            numbers = [(str(event["stream"])[:3], data["trade_id"]) for event in heard if (data := _data(event))]
            assert numbers == [("btc", 3), ("btc", 4), ("btc", 5), ("eth", 40), ("btc", 6)]
        answer = harness.stream(f"{STREAM}btcusdt@trade", headers=[*headers[:1], ("Last-Event-ID", "no id of ours")])
        async with answer as events:
            assert (await _Reader(events).named("gap"))[
                "reason"
            ] == "the id that this reader came back with cannot be read"


async def test_streams_come_and_go_without_a_new_connection(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """By the connection's name, from any page and without a token; in the order of the events."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        await _open(harness, TICKER)
        hub.publish(TICKER, ticker("5.10"), 0)
        async with harness.stream(f"{STREAM}btcusdt@trade") as events:
            reader = _Reader(events)
            name = (await reader.named("open"))["connection"]
            change = f"/api/ws/sse/stream/{name}"
            body = _change(subscribe=["btcusdt@ticker", "ETHUSDT@trade"], unsubscribe=["btcusdt@trade"])
            answer = await harness.call("POST", change, body=body, headers=FROM_ELSEWHERE, client="192.0.2.7")
            assert (answer.status, json.loads(answer.body)) == (200, {"streams": ["btcusdt@ticker", "ethusdt@trade"]})
            assert answer.headers["access-control-allow-origin"] == "*"
            hub.publish(TRADE, trade(1), 0)
            hub.publish(ETH, trade(40), 0)
            assert (await reader.named("streams"))["streams"] == ["btcusdt@ticker", "ethusdt@trade"]
            heard = [await reader.named("message") for _ in range(2)]
            assert [event["stream"] for event in heard] == ["btcusdt@ticker", "ethusdt@trade"]
        answer = await harness.call("POST", change, body=body)
        assert answer.status == 404
        assert hub.interest.subscribers(ETH) == 0
        assert len(harness.services.connections) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (_change(subscribe=["btcusdt"]), "subscribe"),
        (_change(unsubscribe=["btcusdt@tick"]), "unsubscribe"),
        (_change(subscribe=["nopeusdt@trade"]), "subscribe"),
        (b'{"subscribe": "btcusdt@trade"}', "subscribe"),
        (b'{"subscribed": []}', "subscribed"),
    ],
)
async def test_a_wrong_change_changes_nothing(
    body: bytes, field: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """And says what was wrong."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(f"{STREAM}btcusdt@trade") as events:
            name = str((await _Reader(events).named("open"))["connection"])
            answer = await harness.call("POST", f"/api/ws/sse/stream/{name}", body=body)
            assert answer.status == 400
            assert [error["field"] for error in json.loads(answer.body)["errors"]] == [field]
            connection = harness.services.connections.get(name)
            assert connection is not None
            assert [stream.name for stream in connection.streams] == ["btcusdt@trade"]


async def test_a_change_keeps_within_the_limits_of_its_reader(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """429, when to come back, and everything as it was; whoever sends it."""
    async with web_harness(tmp_path, Settings(max_streams_per_address=2)) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(f"{STREAM}btcusdt@trade", client="192.0.2.1") as events:
            name = (await _Reader(events).named("open"))["connection"]
            body = _change(subscribe=["ethusdt@trade", "ethusdt@ticker"])
            answer = await harness.call("POST", f"/api/ws/sse/stream/{name}", body=body, client="192.0.2.2")
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0
            body = _change(subscribe=["ethusdt@trade"])
            answer = await harness.call("POST", f"/api/ws/sse/stream/{name}", body=body, client="192.0.2.2")
            assert answer.status == 200


@pytest.mark.parametrize("streams", ["btcusdt@nothing", "@trade", "nopeusdt@trade", "btcusdt@kline_7m"])
async def test_a_wrong_name_is_refused_before_any_event(
    streams: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """400, for a retry cannot mend it."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", f"{STREAM}{streams}")
        assert answer.status == 400
        assert harness.exchange.dialled_at == []


async def test_past_candles_come_before_the_live_ones(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With ``history``: oldest first, without an id; the open one goes on where the past ends."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        harness.exchange.script(obeying)
        five = Stream.of(Kind.KLINE, "BTCUSDT", "5m")
        async with harness.stream(f"{STREAM}btcusdt@kline_5m&history=2") as events:
            reader = _Reader(events)
            past = [await reader.named("message") for _ in range(2)]
            assert [(_data(event)["timestamp"], _data(event)["is_closed"]) for event in past] == [
                (NOW_MS - 300_000, True),
                (NOW_MS, False),
            ]
            assert [event.get("backfilled") for event in past] == [True, True]
            assert reader.last_id == ""
            minute = NOW_MS // MINUTE_MS
            hub.publish(five, kline(minute, closed=True), 0)
            live = await reader.named("message")
            assert (_data(live)["is_closed"], reader.last_id) == (True, f"{hub.epoch}-1")


async def test_an_order_book_shows_the_levels_that_changed(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Each book of several by itself; nothing where the part that is shown is as before."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        depth = Stream.of(Kind.DEPTH, "BTCUSDT")
        async with harness.stream(f"{STREAM}btcusdt@depth@100ms&limit=1") as events:
            reader = _Reader(events)
            first = await reader.named("message")
            assert _data(first)["bids"] == [[100.0, 1.0]]
            book = await harness.services.markets.primary.order_books.known(depth, 100)
            harness.services.hub.publish(depth, book, 0)
            harness.services.hub.publish(KLINE, kline(1), 0)
            with trio.move_on_after(5) as silence:
                await reader.named("message")
            assert silence.cancelled_caught


async def test_a_book_that_is_what_it_was_is_shown_again_after_an_outage(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A page hides its book while the exchange is away, and waited for a change to show it again."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        harness.exchange.script(obeying)
        depth = Stream.of(Kind.DEPTH, "BTCUSDT")
        async with harness.stream(f"{STREAM}btcusdt@depth@100ms") as events:
            reader = _Reader(events)
            first = await reader.named("message")
            book = await harness.services.markets.primary.order_books.known(depth, 100)
            for state in (FeedState.RECONNECTING, FeedState.CONNECTED):
                hub.publish_status(FeedStatus(state=state))
                await reader.named("status")
            hub.publish(depth, book, 0)
            with trio.fail_after(5):
                again = await reader.named("message")
            assert _data(again) == _data(first)


async def test_who_is_not_let_in_hears_busy_and_has_no_name(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """200, for an EventSource gives up on anything else; HEAD has no stream."""
    async with web_harness(tmp_path, Settings(max_sse=1)) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(f"{STREAM}btcusdt@trade"):
            answer = await harness.call("GET", f"{STREAM}btcusdt@trade")
            assert (answer.status, b"event: busy" in answer.body) == (200, True)
            assert b"connection" not in answer.body
            assert len(harness.services.connections) == 1
        answer = await harness.call("HEAD", f"{STREAM}btcusdt@trade")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_one_without_streams_waits_for_them(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A page opens its connection before it knows what it shows."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream("/api/ws/sse/stream") as events:
            reader = _Reader(events)
            opened = await reader.named("open")
            assert opened["streams"] == []
            await harness.call(
                "POST", f"/api/ws/sse/stream/{opened['connection']}", body=_change(subscribe=["btcusdt@trade"])
            )
            harness.services.hub.publish(TRADE, trade(1), 0)
            assert (await reader.named("message"))["stream"] == "btcusdt@trade"


async def test_a_single_stream_of_candles_may_begin_with_the_past(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """In the form of its own endpoint; who comes back is given what it missed instead."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        harness.exchange.script(obeying)
        target = "/api/ws/sse/klines?symbol=BTCUSDT&interval=5m&history=2"
        five = Stream.of(Kind.KLINE, "BTCUSDT", "5m")
        async with harness.stream(target) as events:
            reader = _Reader(events)
            past = [await reader.named("message") for _ in range(2)]
            assert [(_data(event)["is_closed"], "stream" in event) for event in past] == [
                (True, False),
                (False, False),
            ]
            minute = NOW_MS // MINUTE_MS
            hub.publish(five, kline(minute, closed=True), 0)
            await reader.named("message")
            assert reader.last_id.endswith(f"-{minute * MINUTE_MS}")
            assert len(harness.services.connections) == 0
            hub.publish(five, kline(minute + 5, closed=True), 0)
        headers = [("Host", "localhost"), ("Last-Event-ID", reader.last_id)]
        async with harness.stream(target, headers=headers) as events:
            missed = await _Reader(events).named("message")
            assert _data(missed)["timestamp"] == (minute + 5) * MINUTE_MS
