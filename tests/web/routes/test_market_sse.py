"""SSE: what a browser gets, in what order, and what is left when it leaves."""

from __future__ import annotations

import gc
import itertools
import json
import re
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import httpx_sse
import pytest
import trio
import trio.testing

from komas.hub.history import TOO_SLOW
from komas.model.market import Trade
from komas.settings import Settings
from komas.web.sse import CHUNK_BYTES
from tests.builders import KLINE, TICKER, TRADE, kline, ticker, ticker_frame, trade, trade_frame
from tests.venues.exchange import Peer, obeying, saying
from tests.web.harness import Events, WebHarness, web_harness

PRICES = "/api/ws/sse/prices?symbols=BTCUSDT"
TRADES = "/api/ws/sse/trades?symbol=BTCUSDT"
KLINES = "/api/ws/sse/klines?symbol=BTCUSDT"
MANY = "/api/ws/sse/stream?streams=btcusdt@trade"

pytestmark = pytest.mark.usefixtures("both_ways")


async def _until(events: Events, words: bytes) -> bytes:
    seen = b""
    with trio.fail_after(600):  # of the clock's seconds; heartbeats would come for ever
        while words not in seen:
            seen += await events.chunk()
    return seen


async def _connected(harness: WebHarness) -> None:
    harness.services.markets.primary.feed.connect()
    await harness.services.markets.primary.feed.connected()


async def test_headers_keep_proxies_and_caches_away(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """As the contract lists them; no length, no compression, which Caddy 2.6 with `encode gzip` must be told."""
    async with web_harness(tmp_path) as harness, harness.stream(PRICES) as events:
        assert events.status == 200
        assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.headers["cache-control"] == "no-cache, no-transform"
        assert events.headers["x-accel-buffering"] == "no"
        assert events.headers["content-encoding"] == "identity"
        assert "content-length" not in events.headers


async def test_opening_one_connects_and_subscribes(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Without any call before; the first dial names the stream."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(saying(ticker_frame(), then=obeying))
        async with harness.stream(PRICES) as events:
            seen = await _until(events, b'data: {"type"')
            assert re.match(rb"retry: \d{4}\n\w+: ", seen)
            assert harness.exchange.peers[0].path == "/stream?streams=btcusdt@ticker"


async def test_what_is_known_comes_first(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """The latest ticker, in the first chunk, before any news."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        harness.services.hub.interest.pin([TICKER])
        harness.services.hub.publish(TICKER, ticker("5.10"), 0)
        async with harness.stream(PRICES) as events:
            first = await events.chunk()
            assert re.match(rb"retry: \d{4}\ndata: ", first)
            assert b'"price":5.10,' in first


async def test_no_client_gets_an_event_without_data(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Two popular clients hand out an event at each blank line, on which ``json.loads(event.data)`` raises."""
    async with web_harness(tmp_path, Settings(max_sse_per_address=1)) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(TRADES) as events:
            seen = await _until(events, b": keep-alive\n") + await _until(events, b": keep-alive\n")
            harness.services.hub.publish(TRADE, trade(1), 0)
            seen += await _until(events, b'"trade_id":1,')
            seen += (await harness.call("GET", TRADES)).body
    assert all("\ndata: " in f"\n{block}" for block in seen.decode().removesuffix("\n\n").split("\n\n"))
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=seen)
    received = list(httpx_sse.EventSource(response).iter_sse())
    assert {event.event for event in received} >= {"message", "busy"}
    assert all(json.loads(event.data) for event in received)
    assert [event.retry is not None for event in received].count(True) == 2


async def test_a_notice_does_not_take_a_clients_place_from_it(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """httpx-sse's README takes the id of each event for its place: without one, it came back with none."""
    async with web_harness(tmp_path, Settings(max_sse_per_address=1)) as harness:
        epoch = await _epoch(harness, trade(1))
        for target, position in ((TRADES, f"{epoch}-1"), (MANY, f"{harness.services.hub.epoch}-1")):
            headers = [("Host", "localhost"), ("Last-Event-ID", position)]
            async with harness.stream(target, headers=headers) as events:
                greeting = await _until(events, b"event: ")
                busy = (await harness.call("GET", target, headers=headers)).body
            for seen in (greeting, busy):
                response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=seen + b"\n\n")
                first = next(httpx_sse.EventSource(response).iter_sse())
                assert first.event != "message"
                assert first.id == position


async def test_clients_that_were_cut_off_together_come_back_one_by_one(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Each is given a time of its own."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        delays = set()
        for _ in range(20):
            async with harness.stream(TRADES) as events:
                delays.add(int((await events.chunk()).split()[1]))
    assert len(delays) > 10
    assert all(1000 <= delay <= 4000 for delay in delays)


async def test_silence_is_filled_with_comments(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Each fifteen seconds, for as long as nothing comes; after a minute the stream is said to be doubtful."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        async with harness.stream(TRADES) as events:
            await events.chunk()
            started = trio.current_time()
            for _ in range(3):
                assert await events.chunk() == b": keep-alive\n"
            assert trio.current_time() - started == 45
            while (chunk := await events.chunk()) == b": keep-alive\n":  # the fourth, unless the news is a moment ahead
                assert trio.current_time() - started == 60
            assert chunk == (
                b'event: health\ndata: {"stream":"btcusdt@trade","health":"quiet",'
                b'"reason":"acknowledged, and nothing has come for 60 s"}\n\n'
            )
            assert await events.chunk() == b": keep-alive\n"


async def test_a_stream_outlives_the_response_timeout(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Quart would cut it after a minute."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        harness.app.config["RESPONSE_TIMEOUT"] = 20
        async with harness.stream(TRADES) as events:
            for _ in range(20):
                assert await events.chunk()
            assert trio.current_time() > 200


async def test_leaving_frees_the_place_at_once(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """No subscriber, no door place; the stream closes after lingering."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(PRICES) as events:
            await events.chunk()
            assert harness.services.hub.subscribers == 1
            assert harness.services.limits.statistics().present == 1
        assert harness.services.hub.subscribers == 0
        assert harness.services.limits.statistics().present == 0
        await trio.sleep(31)
        assert len(harness.services.hub.interest) == 0


async def test_a_failing_after_request_leaves_no_listener(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """The body is never entered, so nothing was subscribed."""
    async with web_harness(tmp_path) as harness:

        @harness.app.after_request
        async def fail(response: object) -> object:
            raise ZeroDivisionError

        answer = await harness.call("GET", PRICES)
        assert answer.status == 500
        assert harness.services.hub.subscribers == 0


@pytest.mark.parametrize("target", [PRICES, TRADES, KLINES])
async def test_head_returns(target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """With the headers, and without a stream or a subscription."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("HEAD", target)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in answer.headers
        assert len(harness.services.hub.interest) == 0


@pytest.mark.parametrize(
    ("target", "field", "words"),
    [
        ("/api/ws/sse/prices", "symbols", "at least one symbol"),
        ("/api/ws/sse/prices?symbols=,,", "symbols", "at least one symbol"),
        ("/api/ws/sse/prices?symbols=NOPEUSDT", "symbols", "not a symbol of the exchange"),
        (f"{PRICES}&stream_type=trade", "stream_type", "endpoint of its own"),
        (f"{PRICES}&stream_type=x", "stream_type", "one of: ticker"),
        (f"{PRICES}&max_rate=fast", "max_rate", "from 0.1 to 1000"),
        (f"{PRICES}&max_rate=0", "max_rate", "from 0.1 to 1000"),
        (f"{PRICES}&max_rate=nan", "max_rate", "from 0.1 to 1000"),
        ("/api/ws/sse/prices?symbols=" + ",".join(f"C{index}" for index in range(300)), "symbols", "at most 200"),
        ("/api/ws/sse/klines", "symbol", "missing"),
        (f"{KLINES}&interval=2m", "interval", "one of: 1s 1m"),
        ("/api/ws/sse/trades?symbol=BTC_USDT", "symbol", "write 'BTCUSDT'"),
        (f"{TRADES}&aggregate=maybe", "aggregate", "true or false"),
    ],
)
async def test_wrong_parameters_are_a_problem_before_any_event(
    target: str, field: str, words: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """400 is for what a retry cannot mend."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", target)
        assert answer.status == 400
        rows = json.loads(answer.body)["errors"]
        assert any(row["field"] == field and words in row["message"] for row in rows), rows


async def test_the_state_of_the_exchange_is_told(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Down and up again, by named events; the client stays connected."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        async with harness.stream(TRADES) as events:
            await _until(events, b'"state":"connected"')
            await harness.call("POST", "/api/ws/disconnect")
            assert b'event: status\ndata: {"state":"disconnected"' in await _until(events, b"disconnected")
            await harness.call("POST", "/api/ws/connect")
            await _until(events, b'"state":"connected"')


async def test_a_gap_is_told_in_its_place(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Between the trades around it."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(saying(trade_frame(1), trade_frame(5), then=obeying))
        async with harness.stream(TRADES) as events:
            seen = await _until(events, b'"trade_id":5')
            first, gap, last = (seen.index(words) for words in (b'"trade_id":1,', b"event: gap", b'"trade_id":5,'))
            assert first < gap < last
            assert b'data: {"stream":"btcusdt@trade","from":2,"to":4,"filled":false,"reason":"the exch' in seen


async def _published(harness: WebHarness, *, last: int) -> str:
    """Trades of a pinned stream, from the first to the last id; returns their epoch."""
    hub = harness.services.hub
    hub.interest.pin([TRADE])
    epoch = await _epoch(harness, trade(1))
    for number in range(2, last + 1):
        hub.publish(TRADE, trade(number), 0)
    return epoch


async def _epoch(harness: WebHarness, first: Trade) -> str:
    """Publish a trade; the epoch of its id, as a reader sees it."""
    async with harness.stream(TRADES) as events:
        await _until(events, b"retry:")
        harness.services.hub.publish(TRADE, first, 0)
        found = re.search(rb"^id: (\w+)-%d$" % first.trade_id, await _until(events, b'"trade_id"'), re.MULTILINE)
    assert found is not None
    return found[1].decode()


async def test_a_return_with_a_position_is_exact(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """What was missed, once and in order; a browser sends the id in a header."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        epoch = await _published(harness, last=5)
        position = ("Last-Event-ID", f"{epoch}-3")
        async with harness.stream(TRADES, headers=[("Host", "localhost"), position]) as events:
            seen = await _until(events, b'"trade_id":5')
            assert b'"trade_id":3' not in seen
            assert seen.count(b'"trade_id":4') == seen.count(b'"trade_id":5') == 1
            assert b"event: gap" not in seen


@pytest.mark.parametrize(
    "name", ["last_event_id", "lastEventId", "lastEventID", "lasteventid", "Last-Event-ID", "last-event-id"]
)
async def test_a_position_in_the_query_counts_however_it_is_spelled(
    name: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Polyfills write ``lastEventId``; to take no notice of one loses trades in silence."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        epoch = await _published(harness, last=5)
        async with harness.stream(f"{TRADES}&{name}={epoch}-3") as events:
            seen = await _until(events, b'"trade_id":5')
            assert [number for number in range(1, 6) if b'"trade_id":%d,' % number in seen] == [4, 5]


@pytest.mark.parametrize(
    ("header", "query", "first"),
    [("-4", "&lastEventId={}-2", 5), ("-2", "&lastEventId={}-4", 3), ("", "&last_event_id={0}-2&lastEventId={0}-4", 5)],
)
async def test_of_several_positions_the_newest_counts(
    header: str, query: str, first: int, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A browser's header comes before what a page wrote into the address, a polyfill's before the rest."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        epoch = await _published(harness, last=6)
        headers = [("Host", "localhost"), ("Last-Event-ID", epoch + header if header else "")]
        async with harness.stream(TRADES + query.format(epoch), headers=headers) as events:
            seen = await _until(events, b'"trade_id":6')
            assert [number for number in range(1, 7) if b'"trade_id":%d,' % number in seen] == [*range(first, 7)]


@pytest.mark.parametrize("target", [TRADES, KLINES])
@pytest.mark.parametrize("position", ["nonsense", "3", "deadbeef-", "-3", "deadbeef-x", "deadbeef-" + "9" * 500])
async def test_a_position_that_cannot_be_read_is_answered_by_a_gap(
    position: str, target: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With neither end, for they are not known; silence would claim that nothing is missing."""
    name = "btcusdt@trade" if target == TRADES else "btcusdt@kline_1m"
    gap = b'event: gap\ndata: {"stream":"%b","from":null,"to":null,"filled":false,"reason":"' % name.encode()
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        async with harness.stream(target, headers=[("Host", "localhost"), ("Last-Event-ID", position)]) as events:
            assert gap in await events.chunk()
        async with harness.stream(f"{target}&lastEventId={position}") as events:
            assert gap in await events.chunk()
        async with harness.stream(f"{target}&lastEventId=") as events:
            assert b"event: gap" not in await events.chunk()


@pytest.mark.parametrize("position", ["deadbeef-3", "nonsense", "", "deadbeef-" + "9" * 500])
async def test_a_return_with_another_position_never_fails(
    position: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Another epoch is a gap whose ends are known; what komas never wrote, one without."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        hub = harness.services.hub
        hub.interest.pin([TRADE])
        hub.publish(TRADE, trade(7), 0)
        async with harness.stream(TRADES, headers=[("Host", "localhost"), ("Last-Event-ID", position)]) as events:
            seen = await events.chunk()
            hub.publish(TRADE, trade(8), 0)
            seen += await _until(events, b'"trade_id":8')
            assert (b'"from":4,"to":6' in seen) == (position == "deadbeef-3")


async def test_a_candle_listener_gets_the_current_candle(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Open candles have no id, closed ones have."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        harness.services.hub.interest.pin([KLINE])
        harness.services.hub.publish(KLINE, kline(1), 0)
        async with harness.stream(KLINES) as events:
            assert b"id: " not in await _until(events, b'"is_closed":false')
            harness.services.hub.publish(KLINE, kline(1, closed=True), 0)
            assert b"-60000\n\n" in await _until(events, b'"is_closed":true')


async def test_a_slow_reader_is_told_what_it_lost(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """The oldest trades go, the count is said, the newest come."""
    async with web_harness(tmp_path, Settings(mailbox=16)) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(TRADES) as events:
            await events.chunk()
            await trio.testing.wait_all_tasks_blocked()
            for number in range(1, 101):
                harness.services.hub.publish(TRADE, trade(number), 0)
            seen = await _until(events, b'"trade_id":100,')
            assert b'event: lagged\ndata: {"dropped":84}\n\n' in seen
            assert b'"trade_id":84,' not in seen


async def test_max_rate_merges(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Two events a second at most, always the newest."""
    async with web_harness(tmp_path) as harness:

        async def busy(peer: Peer) -> None:
            for number in range(1, 101):
                await peer.say(ticker_frame(price=f"{number}.0", event_ms=number))
                await trio.sleep(0.1)
            await trio.sleep_forever()

        harness.exchange.script(busy)
        started = trio.current_time()
        async with harness.stream(f"{PRICES}&max_rate=2") as events:
            seen = await _until(events, b'"price":100.0,')
            assert trio.current_time() - started <= 11
            assert 15 <= seen.count(b'data: {"type"') <= 24


async def test_what_is_known_counts_as_an_event(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """The next one comes after the pause that was asked for."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        harness.services.hub.interest.pin([TICKER])
        harness.services.hub.publish(TICKER, ticker("1.5"), 0)
        async with harness.stream(f"{PRICES}&max_rate=0.5") as events:
            await _until(events, b'"price":1.5,')
            known_at = trio.current_time()
            harness.services.hub.publish(TICKER, ticker("2.5"), 0)
            await _until(events, b'"price":2.5,')
            assert trio.current_time() - known_at >= 2


async def test_who_wants_few_events_hears_comments_as_often(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A pause that the client asked for is no silence; events come at its end all the same."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        async with harness.stream(f"{PRICES}&max_rate=0.1") as events:
            await events.chunk()
            await trio.sleep(9.5)
            heard: list[float] = []
            for number in range(1, 4):
                harness.services.hub.publish(TICKER, ticker(f"{number}.5"), 0)
                while f'"price":{number}.5,'.encode() not in await events.chunk():
                    heard.append(trio.current_time())
                heard.append(trio.current_time())
            for _ in range(3):
                await events.chunk()
                heard.append(trio.current_time())
            assert all(later - earlier <= 15 for earlier, later in itertools.pairwise(heard))


async def test_who_cannot_be_greeted_takes_no_place(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the middle of coming in is one client's alone, and leaves nothing behind."""

    class Broken:
        """What cannot be shown."""

        def __getattr__(self, _name: str) -> object:
            raise ZeroDivisionError

    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await _connected(harness)
        monkeypatch.setattr(harness.services.hub.latest, "get", lambda _stream: Broken())
        for _ in range(2):
            with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
                async with harness.stream(PRICES):
                    await trio.sleep(1)
        assert harness.services.limits.statistics().present == 0
        assert harness.services.hub.subscribers == 0


async def test_draining_ends_streams_cleanly(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """What waits is sent, then the body ends; newcomers are told to come back."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(TRADES) as events:
            await events.chunk()
            harness.services.hub.publish(TRADE, trade(1), 0)
            harness.services.draining.set()
            harness.services.hub.drain()
            seen = b"".join([chunk async for chunk in events.chunks()])
            assert b'"trade_id":1,' in seen
        answer = await harness.call("GET", TRADES)
        assert answer.status == 200
        assert answer.body.startswith(b"retry: ")
        assert b'event: busy\ndata: {"reason":"the server is shutting down"}' in answer.body


@pytest.mark.parametrize(
    "settings",
    [
        Settings(max_sse=1),
        Settings(max_sse_per_address=1),
        Settings(max_streams=1),
        Settings(max_streams_per_address=1),
    ],
    ids=["all", "address", "streams", "streams of an address"],
)
async def test_a_full_house_answers_200_and_busy(
    settings: Settings, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """EventSource gives up for good on any other status; the delays are spread."""
    async with web_harness(tmp_path, settings) as harness:
        harness.exchange.script(obeying)
        async with harness.stream(PRICES):
            delays = set()
            for _ in range(8):
                answer = await harness.call("GET", TRADES)
                assert answer.status == 200
                assert b"event: busy\ndata: " in answer.body
                delays.add(answer.body.split(b"\n")[0])
            assert len(delays) > 1
            assert all(5000 <= int(delay.removeprefix(b"retry: ")) <= 30000 for delay in delays)


async def test_a_replay_is_cut_into_chunks_that_fit_a_write(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A megabyte in one write would miss its deadline on a slow line."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        hub = harness.services.hub
        hub.interest.pin([TRADE])
        position = ("Last-Event-ID", f"{await _epoch(harness, trade(1))}-1")
        for number in range(2, 3001):
            hub.publish(TRADE, trade(number), 0)
        async with harness.stream(TRADES, headers=[("Host", "localhost"), position]) as events:
            sizes, seen = [], b""
            while b'"trade_id":3000,' not in seen:
                chunk = await events.chunk()
                sizes.append(len(chunk))
                seen += chunk
            assert max(sizes) <= 2**16
            assert seen.count(b'"trade_id"') == 2999


async def _away(harness: WebHarness, count: int) -> tuple[str, str]:
    """The header of a reader that was away while so many trades were published."""
    harness.services.hub.interest.pin([TRADE])
    position = f"{await _epoch(harness, trade(0))}-0"
    for number in range(1, count + 1):
        harness.services.hub.publish(TRADE, trade(number), 0)
    return "Last-Event-ID", position


def _trade_ids(text: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb'"trade_id":(\d+),', text)]


async def test_readers_that_come_back_and_do_not_read_have_nothing_of_their_own(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """400 of them had a megabyte each; a chunk of at most 20 KB waits for each, and the history has the rest."""
    async with web_harness(tmp_path, Settings(journal=8000)) as harness, AsyncExitStack() as stack:
        harness.exchange.script(obeying)
        position = await _away(harness, 4000)
        async with harness.stream(TRADES, headers=[("Host", "localhost"), position]) as events:
            # Now every event has its bytes, which all readers share.
            assert _trade_ids(await _until(events, b'"trade_id":4000,')) == list(range(1, 4001))
        gc.collect()
        tracemalloc.start()
        readers = [
            await stack.enter_async_context(harness.stream(TRADES, headers=[("Host", "localhost"), position]))
            for _ in range(20)
        ]
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < len(readers) * 64 * 1024  # the request, its tasks and the harness are the most of it
        for number in range(4001, 5001):
            harness.services.hub.publish(TRADE, trade(number), 0)
        for events in readers:
            sizes, seen = [], b""
            while b'"trade_id":5000,' not in seen:
                chunk = await events.chunk()
                sizes.append(len(chunk))
                seen += chunk
            assert b"event: " not in seen.replace(b"event: status", b"")
            numbers = _trade_ids(seen)
            assert numbers == list(range(numbers[0], 5001))
            assert max(sizes) < 20_000


async def test_a_replay_that_is_read_too_slowly_has_a_gap_in_its_place(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Exactly what went, with the reason; no trade is dropped in silence, and none comes twice."""
    async with web_harness(tmp_path, Settings(journal=500)) as harness:
        harness.exchange.script(obeying)
        position = await _away(harness, 400)
        async with harness.stream(TRADES, headers=[("Host", "localhost"), position]) as events:
            seen = await _until(events, b'"trade_id":64,')
            await trio.testing.wait_all_tasks_blocked()  # the next slice waits
            for number in range(401, 901):
                harness.services.hub.publish(TRADE, trade(number), 0)
            seen += await _until(events, b'"trade_id":900,')
    gap = rb'event: gap\ndata: {"stream":"btcusdt@trade","from":(\d+),"to":400,"filled":false,"reason":"([^"]+)"}'
    found = re.search(gap, seen)
    assert found is not None
    assert found[2] == TOO_SLOW.encode()
    first = int(found[1])
    assert first in (65, 129)  # one slice may have been taken already
    assert _trade_ids(seen) == [*range(1, first), *range(401, 901)]
    assert b"lagged" not in seen


async def test_a_replay_is_not_held_up_by_the_end_of_the_server(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nor holds it up: the stream ends, and what was not read is there for the next time."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        position = await _away(harness, 4000)
        async with harness.stream(TRADES, headers=[("Host", "localhost"), position]) as events:
            seen = await events.chunk()
            harness.services.hub.drain()
            seen += b"".join([chunk async for chunk in events.chunks()])
        numbers = _trade_ids(seen)
        assert numbers == list(range(1, numbers[-1] + 1))
        assert numbers[-1] < 4000


async def test_what_waits_for_a_reader_that_stalls_is_not_joined_for_it(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Half a megabyte each, twice: 2,000 trades that it had taken out of its buffer, as bytes of its own."""
    async with web_harness(tmp_path) as harness, AsyncExitStack() as stack:
        harness.exchange.script(obeying)
        hub = harness.services.hub
        readers = [await stack.enter_async_context(harness.stream(TRADES)) for _ in range(20)]
        first = await stack.enter_async_context(harness.stream(TRADES))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(2000):
            hub.publish(TRADE, trade(number), 0)
        seen = await _until(first, b'"trade_id":1999,')  # now every event has its bytes, which all readers share
        gc.collect()
        tracemalloc.start()
        for events in readers:
            seen = await events.chunk()
            while b'"trade_id":0,' not in seen:
                seen = await events.chunk()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < len(readers) * (2 * CHUNK_BYTES + 64 * 1024)  # a chunk as it is framed, and as it is read here
        for events in readers:
            assert _trade_ids(await _until(events, b'"trade_id":1999,'))[-1] == 1999
