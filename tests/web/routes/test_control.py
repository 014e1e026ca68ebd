"""REST: each row of the contract, with right and wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from komas.hub.latest import Latest
from komas.hub.open_streams import OpenStreams
from komas.model.kinds import Kind
from komas.model.streams import Stream
from komas.settings import Settings
from komas.web.shared_answer import FRESH_S
from komas.web.sliced_json import SLICE
from tests.builders import TICKER, ticker, ticker_frame
from tests.venues.exchange import REFUSED, Peer, obeying, saying
from tests.web.harness import ADMIN, Answer, WebHarness, web_harness


def _json(answer: Answer) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(answer.body))


def _wish(*symbols: object, **more: object) -> bytes:
    return json.dumps({"symbols": symbols, **more}).encode()


async def test_the_users_first_three_curl_lines(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Connect, subscribe, status."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        assert _json(await harness.call("POST", "/api/ws/connect"))["state"] == "connected"
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT", "ETHUSDT", stream_type="ticker"))
        assert _json(answer) == {"subscribed": ["btcusdt@ticker", "ethusdt@ticker"], "streams": 2}
        status = _json(await harness.call("GET", "/api/ws/status"))
        assert status["connected"] is True
        assert (status["streams"], status["subscribers"], status["reconnects"]) == (2, 0, 0)
        assert status["url"] == "ws://exchange.test:9443/stream"
        rows = cast("list[dict[str, object]]", status["connections"])
        assert [row["streams"] for row in rows] == [2]
        assert status["gaps"] == {"found": 0, "filled": 0, "declared": 0}
        assert str(status["timestamp"]).endswith("Z")


async def test_connecting_twice_is_once_and_disconnecting_too(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Both are idempotent."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        for _ in range(2):
            assert (await harness.call("POST", "/api/ws/connect")).status == 200
        for _ in range(2):
            assert _json(await harness.call("POST", "/api/ws/disconnect"))["state"] == "disconnected"
        assert len(harness.exchange.dialled_at) == 1


async def test_connecting_without_a_network_says_why_and_goes_on_trying(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """502 with the reason after a bounded wait; the connection comes later by itself."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(*[REFUSED] * 6, then=obeying)
        answer = await harness.call("POST", "/api/ws/connect")
        assert (answer.status, answer.headers["content-type"]) == (502, "application/problem+json")
        assert _json(answer)["detail"] == "no connection within 10 s; komas goes on trying: refused"
        await trio.sleep(60)
        assert _json(await harness.call("GET", "/api/ws/status"))["connected"] is True


async def test_an_exchange_that_says_nothing_is_a_504(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Connected, and the subscription is not acknowledged."""
    async with web_harness(tmp_path) as harness:

        async def deaf(_peer: Peer) -> None:
            await trio.sleep_forever()

        harness.exchange.script(deaf)
        await harness.call("POST", "/api/ws/connect")
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT"))
        assert answer.status == 504
        assert "not acknowledged within 10 s" in str(_json(answer)["detail"])


async def test_a_refusal_carries_the_exchanges_words(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """And the stream is not listed."""
    async with web_harness(tmp_path) as harness:

        async def refuse(peer: Peer) -> None:
            request = await peer.hear()
            await peer.say(json.dumps({"error": {"code": 2, "msg": "Invalid request: no"}, "id": request["id"]}))
            await peer.obey()

        harness.exchange.script(refuse)
        await harness.call("POST", "/api/ws/connect")
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT"))
        assert answer.status == 502
        assert "Invalid request: no" in str(_json(answer)["detail"])
        assert _json(await harness.call("GET", "/api/ws/streams"))["count"] == 0


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (_wish(), "symbols", "at least one symbol"),
        (b'{"stream_type": "ticker"}', "symbols", "at least one symbol"),
        (_wish("NOPEUSDT"), "symbols", "NOPEUSDT is not a symbol of the exchange"),
        (_wish("BTC_USDT"), "symbols", "write 'BTCUSDT'"),
        (_wish(5), "symbols", "a text was expected, not int"),
        (_wish(*(f"COIN{index}" for index in range(5000))), "symbols", "5000 symbols in one request; at most 200"),
        (_wish("BTCUSDT", stream_type="tickr"), "stream_type", "one of: ticker mini_ticker"),
        (_wish("BTCUSDT", stream_type=["ticker"]), "stream_type", "a text was expected"),
        (_wish("BTCUSDT", stream_type="kline", interval="7m"), "interval", "one of: 1s 1m"),
        (_wish("BTCUSDT", symbol="x"), "symbol", "unknown field 'symbol'"),
        (b'{"symbols": "BTCUSDT"}', "symbols", "is a list"),
    ],
)
async def test_a_wrong_field_is_named(
    body: bytes, field: str, words: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """400, a problem document, a row for each field."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("POST", "/api/ws/subscribe", body=body)
        problem = _json(answer)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert problem["title"] == "Bad Request"
        rows = cast("list[dict[str, str]]", problem["errors"])
        assert any(row["field"] == field and words in row["message"] for row in rows), rows


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"NaN", b"\xff\xfe", b"[" * 60_000, b'{"symbols": NaN}']
)
async def test_what_is_not_json_is_said(body: bytes, autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Never a 500."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("POST", "/api/ws/subscribe", body=body)
        assert answer.status == 400
        assert "JSON" in str(_json(answer)["detail"])


async def test_all_wrong_fields_are_named_at_once(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """So that a user mends them in one go."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("B-C", stream_type="x", interval="y"))
        rows = cast("list[dict[str, str]]", _json(answer)["errors"])
        assert [row["field"] for row in rows] == ["symbols", "stream_type", "interval"]


async def test_candles_of_an_interval(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Lower case, default interval, and a symbol that is not Latin."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        answer = await harness.call(
            "POST", "/api/ws/subscribe", body=_wish("btcusdt", stream_type="kline", interval="1M")
        )
        assert _json(answer)["subscribed"] == ["btcusdt@kline_1M"]
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("币安人生usdt", stream_type="kline"))
        assert _json(answer)["subscribed"] == ["币安人生usdt@kline_1m"]


async def test_unsubscribing_leaves_what_others_use(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A stream that an SSE client still reads stays open for it."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(obeying)
        await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT", "ETHUSDT"))
        async with harness.stream("/api/ws/sse/prices?symbols=BTCUSDT") as events:
            await events.chunk()
            answer = await harness.call("POST", "/api/ws/unsubscribe", body=_wish("BTCUSDT", "ETHUSDT"))
            assert _json(answer) == {"unsubscribed": ["btcusdt@ticker", "ethusdt@ticker"], "streams": 1}
        answer = await harness.call("POST", "/api/ws/unsubscribe", body=_wish("BTCUSDT"))
        assert _json(answer)["unsubscribed"] == []


async def test_a_star_is_every_symbol_of_the_exchange(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """For tickers and mini tickers; the others would be too much of everything."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("*", stream_type="mini_ticker"))
        names = ["btcusdt@miniTicker", "ethusdt@miniTicker", "币安人生usdt@miniTicker"]
        assert _json(answer) == {"subscribed": names, "streams": 3}
        refused = await harness.call("POST", "/api/ws/subscribe", body=_wish("*", stream_type="trade"))
        assert refused.status == 400
        assert b"ticker and mini_ticker alone, not for trade" in refused.body
        answer = await harness.call("POST", "/api/ws/unsubscribe", body=_wish("*", stream_type="mini_ticker"))
        assert _json(answer) == {"unsubscribed": names, "streams": 0}
        await harness.call("POST", "/api/ws/subscribe", body=_wish("*"))
        await harness.call("POST", "/api/ws/quick/stop")
        assert _json(await harness.call("GET", "/api/ws/status"))["streams"] == 0


async def test_connections_can_be_replaced_on_demand(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """One after another dial, no reconnect."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(then=obeying)
        await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT"))
        assert _json(await harness.call("POST", "/api/ws/rotate")) == {"replacing": 1}
        await trio.sleep(5)
        status = _json(await harness.call("GET", "/api/ws/status"))
        assert (status["rotations"], status["reconnects"], status["connected"]) == (1, 0, True)
        assert len(harness.exchange.dialled_at) == 2


async def test_prices_are_numbers_with_all_their_digits(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Of all tickers, or of those that were asked for."""
    async with web_harness(tmp_path) as harness:
        frames = [ticker_frame("BTCUSDT", "61837.63000000"), ticker_frame("ETHUSDT", "0.00000001")]
        harness.exchange.script(saying(*frames, then=obeying))
        await harness.call("POST", "/api/ws/quick/start-prices?symbols=BTCUSDT,ETHUSDT")
        await trio.sleep(1)
        answer = await harness.call("GET", "/api/ws/prices")
        assert b'"count":2' in answer.body
        assert b'"price":61837.63000000' in answer.body
        assert b'"price":0.00000001' in answer.body
        assert answer.body.endswith(b'"timestamp":"2026-02-02T02:40:00.000Z"}')
        narrow = _json(await harness.call("GET", "/api/ws/prices?symbols=ethusdt,XRPUSDT"))
        assert list(cast("dict[str, object]", narrow["prices"])) == ["ETHUSDT"]
        assert (await harness.call("GET", "/api/ws/prices?symbols=")).status == 400


async def test_streams_show_their_health(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Pending before the first event, live after it."""
    async with web_harness(tmp_path) as harness:
        harness.exchange.script(saying(ticker_frame("BTCUSDT"), then=obeying))
        await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT", "ETHUSDT"))
        rows = cast("list[dict[str, object]]", _json(await harness.call("GET", "/api/ws/streams"))["streams"])
        assert [(row["stream"], row["health"], row["pinned"]) for row in rows] == [
            ("btcusdt@ticker", "live", True),
            ("ethusdt@ticker", "pending", True),
        ]
        assert rows[0]["last_event_at"] == "2026-02-02T02:40:00.000Z"


async def test_quick_start_and_stop(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """The user's quick actions; without symbols, the configured list."""
    async with web_harness(tmp_path, Settings(default_symbols=("ETHUSDT",))) as harness:
        harness.exchange.script(then=obeying)
        started = _json(await harness.call("POST", "/api/ws/quick/start-prices"))
        assert started == {
            "status": "started",
            "symbols": ["ETHUSDT"],
            "sse_url": "/api/ws/sse/prices?symbols=ETHUSDT",
        }
        assert _json(await harness.call("POST", "/api/ws/quick/stop")) == {"status": "stopped"}
        status = _json(await harness.call("GET", "/api/ws/status"))
        assert (status["state"], status["streams"]) == ("disconnected", 0)
        assert _json(await harness.call("POST", "/api/ws/quick/start-prices")) == started
        status = _json(await harness.call("GET", "/api/ws/status"))
        assert (status["state"], status["streams"]) == ("connected", 1)


async def test_no_more_streams_than_the_exchange_takes(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """409, and what is open stays open."""
    async with web_harness(tmp_path, Settings(max_streams=1)) as harness:
        harness.exchange.script(obeying)
        await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT"))
        answer = await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT", "ETHUSDT"))
        assert answer.status == 409
        assert "at most 1" in str(_json(answer)["detail"])
        assert (await harness.call("POST", "/api/ws/subscribe", body=_wish("BTCUSDT"))).status == 200


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/ws/connect", 405),
        ("DELETE", "/api/ws/prices", 405),
        ("BREW", "/api/ws/prices", 405),
        ("GET", "/%ff%fe", 404),
        ("GET", "/api/logs/today?level=loud", 400),
        ("GET", "/api/logs/today?limit=0", 400),
        ("GET", "/api/logs/today?limit=1e3", 400),
    ],
)
async def test_a_wrong_call_is_a_problem(
    method: str, target: str, status: int, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """With the status that says what was wrong."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call(method, target, headers=[("Host", "localhost"), ADMIN])
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert _json(answer)["status"] == status


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/api/ws/sse/prices?symbols=BTCUSDT&symbols=ETHUSDT", "symbols is given more than once"),
        ("/ws/signals", "Upgrade: websocket"),
        ("/api/vip/%ff", "UTF-8"),
    ],
)
async def test_what_is_wrong_is_named(
    target: str, words: str, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nothing is read by halves, and a proxy that lets no upgrade through is found."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("GET", target, headers=[("Host", "localhost"), ADMIN])
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert words in str(_json(answer)["detail"])


async def test_a_body_without_end_is_refused(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """413, by what was sent and by what was announced."""
    async with web_harness(tmp_path) as harness:
        answer = await harness.call("POST", "/api/ws/subscribe", body=b"x" * 100_000)
        assert answer.status == 413


async def test_a_bug_is_a_problem_without_details(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the traceback, the client has not."""
    async with web_harness(tmp_path) as harness:
        monkeypatch.setattr(harness.services.hub.latest, "prices", lambda _symbols: 1 // 0)
        answer = await harness.call("GET", "/api/ws/prices")
        assert answer.status == 500
        assert b"ZeroDivision" not in answer.body


async def test_latest_is_what_prices_shows(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Nothing before the first event."""
    async with web_harness(tmp_path) as harness:
        assert _json(await harness.call("GET", "/api/ws/prices"))["count"] == 0
        harness.services.hub.interest.pin([TICKER])
        harness.services.hub.publish(TICKER, ticker("5.10"), 0)
        assert b'"price":5.10,' in (await harness.call("GET", "/api/ws/prices")).body


COINS = tuple(f"COIN{number}USDT" for number in range(3 * SLICE))


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch) -> None:
    """More symbols than an answer of its own may have."""
    monkeypatch.setattr("tests.web.harness.SYMBOLS", COINS)


def _many(harness: WebHarness, count: int = 3 * SLICE) -> list[Stream]:
    streams = [Stream.of(Kind.TICKER, coin) for coin in COINS[:count]]
    harness.services.hub.interest.pin(streams)
    return streams


@pytest.mark.usefixtures("coins")
@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE])
async def test_an_answer_is_whole_however_long_it_is(
    count: int, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It is made in slices, so that thousands of rows hold nobody up."""
    async with web_harness(tmp_path) as harness:
        hub = harness.services.hub
        for stream in _many(harness, count):
            hub.publish(stream, ticker("0E-8"), 0)
        streams = _json(await harness.call("GET", "/api/ws/streams"))
        prices = _json(await harness.call("GET", "/api/ws/prices"))
        assert streams["count"] == len(cast("list[object]", streams["streams"])) == count
        assert prices["count"] == len(cast("dict[str, object]", prices["prices"])) == count
        assert b"0E-8" not in (await harness.call("GET", "/api/ws/prices")).body


@pytest.mark.usefixtures("coins")
@pytest.mark.parametrize("path", ["/api/ws/prices", "/api/ws/streams"])
async def test_a_large_answer_is_rendered_twice_a_second_and_shared(
    path: str, autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600 clients that did not read cost 413 MB; the bytes are the same object for all of them."""
    async with web_harness(tmp_path) as harness:
        _many(harness)
        renders = 0
        owner, name = (Latest, "prices") if path.endswith("prices") else (OpenStreams, "streams")
        original = getattr(owner, name)

        def count(*arguments: object) -> object:
            nonlocal renders
            renders += 1
            return original(*arguments)

        await trio.sleep(10)
        monkeypatch.setattr(owner, name, count)
        bodies = list[bytes]()
        async with trio.open_nursery() as nursery:
            for number in range(200):
                await trio.sleep(0.02)  # four seconds in all
                if number % 2:
                    nursery.start_soon(_read_into, harness, path, bodies)
        assert 4 <= renders <= 9
        assert len({id(body) for body in bodies}) == renders


async def _read_into(harness: WebHarness, path: str, bodies: list[bytes]) -> None:
    async with harness.stream(path) as events:
        bodies.append(await events.chunk())


@pytest.mark.usefixtures("coins")
async def test_what_was_just_subscribed_is_in_the_next_answer(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Also while answers are shared: it waits for its turn, rather than being what is not true any more."""
    async with web_harness(tmp_path) as harness:
        streams = _many(harness)
        for number in range(5):
            assert _json(await harness.call("GET", "/api/ws/streams"))["count"] == len(streams) - number
            harness.services.hub.interest.unpin([streams[number]])


@pytest.mark.usefixtures("coins")
async def test_what_is_shared_is_true_within_half_a_second(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A new price is no reason to render thousands anew, and not left out for long."""
    async with web_harness(tmp_path) as harness:
        stream = _many(harness)[0]
        await harness.call("GET", "/api/ws/prices")
        harness.services.hub.publish(stream, ticker("5.10"), 0)
        await trio.sleep(FRESH_S)
        assert b'"price":5.10,' in (await harness.call("GET", "/api/ws/prices")).body
