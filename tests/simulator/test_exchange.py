"""The exchange over streams in memory, on a clock that jumps."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
import wsproto.events as ws
from hypothesis import given, settings
from hypothesis import strategies as st

from komas.simulator.options import Limits
from komas.simulator.player import SyntheticPlayer

from .peer import NO_LIMITS, START_MS, Peer, opened

SHAKE = (
    b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = b"\x89\x81\0\0\0\0x"
TEXT = b"\x81\x82\0\0\0\0[]"


def limits(**changes: Any) -> Limits:
    """The rules, but for some."""
    return msgspec.structs.replace(NO_LIMITS, **changes)


async def test_wraps_events_on_stream_and_not_on_ws(autojump_clock: trio.testing.MockClock) -> None:
    """The path decides whether events are wrapped; everybody gets the same event."""
    async with opened() as world:
        wrapped = await world.dial("/stream?streams=btcusdt@trade/ethusdt@trade")
        bare = await world.dial("/ws/btcusdt@trade/ethusdt@trade")
        world.publish("btcusdt@trade", '{"t":1}')
        assert await wrapped.message() == {"stream": "btcusdt@trade", "data": {"t": 1}}
        assert await bare.message() == {"t": 1}


@pytest.mark.parametrize(
    "path", ["/ws", "/ws/0", "/ws/btcusdt@trade", "/stream", "/stream?streams=", "/stream?streams=a%40b&timeUnit=x"]
)
async def test_accepts_the_paths_of_the_exchange(autojump_clock: trio.testing.MockClock, path: str) -> None:
    """Junk names connect too, and stay silent."""
    async with opened() as world:
        peer = await world.dial(path)
        with trio.move_on_after(19) as silence:
            await peer.event()
        assert silence.cancelled_caught


@pytest.mark.parametrize("path", ["/", "/wss", "/streams", "/api/v3/ping", "/streamx/btcusdt@trade"])
async def test_other_paths_are_not_found(autojump_clock: trio.testing.MockClock, path: str) -> None:
    """A handshake on any other path gets 404."""
    async with opened() as world:
        status, _, _ = await world.refused(path)
        assert status == 404


async def test_understands_percent_encoded_names(autojump_clock: trio.testing.MockClock) -> None:
    """Symbols are UTF-8, and a plus in a URL must be encoded."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=%E5%B8%81usdt%40trade/btcusdt@kline_1d@%2B08:00")
        reply = await peer.ask(method="LIST_SUBSCRIPTIONS", id=3)
        assert reply == {"result": ["币usdt@trade", "btcusdt@kline_1d@+08:00"], "id": 3}


async def test_writes_microseconds_where_they_are_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """Times have sixteen digits on that connection alone, ids stay as they are."""
    async with opened() as world:
        micro = await world.dial("/stream?streams=a@trade&timeUnit=microsecond")
        milli = await world.dial("/stream?streams=a@trade")
        world.publish("a@trade", f'{{"E":{START_MS},"t":3735683259,"T":{START_MS}}}')
        assert (await micro.message())["data"] == {"E": START_MS * 1000, "t": 3735683259, "T": START_MS * 1000}
        assert (await milli.message())["data"]["T"] == START_MS


async def test_acknowledges_unknown_names_and_stays_silent(autojump_clock: trio.testing.MockClock) -> None:
    """Unknown, upper-case and retired streams are acknowledged, listed, and never heard of again."""
    async with opened(SyntheticPlayer(("BTCUSDT",), 1, START_MS)) as world:
        peer = await world.dial()
        names = ["BTCUSDT@trade", "nonsense@trade", "!ticker@arr", "!bookTicker", "btcusdt@mistake"]
        assert await peer.subscribe(*names, identity="x1") == {"result": None, "id": "x1"}
        assert (await peer.ask(method="LIST_SUBSCRIPTIONS", id=None)) == {"result": names, "id": None}
        with trio.move_on_after(100) as silence:
            await peer.message()
        assert silence.cancelled_caught


async def test_strict_mode_refuses_unknown_names(autojump_clock: trio.testing.MockClock) -> None:
    """The other behaviour that was reported: an error reply, then the end."""
    async with opened(limits=limits(strict_names=True)) as world:
        peer = await world.dial()
        assert await peer.subscribe("btcusdt@trade") == {"result": None, "id": 1}
        reply = await peer.subscribe("nonsense@trade", identity=2)
        assert reply == {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 2}
        assert await peer.closed() == (1008, "Invalid request")


async def test_answers_what_is_not_json(autojump_clock: trio.testing.MockClock) -> None:
    """Code 3, and the connection lives."""
    async with opened() as world:
        peer = await world.dial()
        await peer.send(ws.TextMessage(data="nonsense"))
        assert (await peer.message())["error"]["code"] == 3
        assert (await peer.subscribe("a@trade"))["result"] is None


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("/ws/0", []),
        ("/stream?streams=", []),
        ("/stream?streams=btcusdt@trade/ethusdt@trade?timeUnit=MICROSECOND", ["btcusdt@trade", "ethusdt@trade"]),
        ("/stream?streams=btcusdt@trade%3FtimeUnit=MICROSECOND", ["btcusdt@trade"]),
        ("/ws/btcusdt@trade?timeUnit=microsecond", ["btcusdt@trade"]),
    ],
)
async def test_what_clients_write_into_a_url_is_understood(
    autojump_clock: trio.testing.MockClock, path: str, listed: list[str]
) -> None:
    """No stream yet, in two ways; a second query glued to the last name. In strict mode, too."""
    async with opened(limits=limits(strict_names=True)) as world:
        peer = await world.dial(path)
        assert (await peer.ask(method="LIST_SUBSCRIPTIONS", id=1))["result"] == listed
        assert await peer.subscribe("btcusdt@trade", identity=2) == {"result": None, "id": 2}
        world.publish("btcusdt@trade", f'{{"T":{START_MS}}}')
        message = await peer.message()
        assert message.get("data", message)["T"] == START_MS * (1000 if "timeUnit" in path else 1)


async def test_a_stream_of_the_url_may_be_subscribed_to_again(autojump_clock: trio.testing.MockClock) -> None:
    """One copy, and one UNSUBSCRIBE ends it."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=a@trade")
        assert await peer.subscribe("a@trade") == {"result": None, "id": 1}
        world.publish("a@trade", '{"t":1}')
        world.publish("a@trade", '{"t":2}')
        assert [(await peer.message())["data"]["t"] for _ in range(2)] == [1, 2]
        await peer.ask(method="UNSUBSCRIBE", params=["a@trade"], id=2)
        assert world.exchange.listeners == {}


async def test_subscribing_twice_does_not_double_events(autojump_clock: trio.testing.MockClock) -> None:
    """Names are a set: one copy, and one UNSUBSCRIBE ends it."""
    async with opened() as world:
        peer = await world.dial()
        await peer.subscribe("a@trade", "a@trade")
        await peer.subscribe("a@trade", identity=2)
        world.publish("a@trade", '{"t":1}')
        world.publish("a@trade", '{"t":2}')
        assert [(await peer.message())["data"]["t"] for _ in range(2)] == [1, 2]
        assert await peer.ask(method="UNSUBSCRIBE", params=["a@trade", "never@trade"], id=3) == {
            "result": None,
            "id": 3,
        }
        world.publish("a@trade")
        assert (await peer.ask(method="LIST_SUBSCRIPTIONS", id=4))["result"] == []
        assert world.exchange.listeners == {}


async def test_set_property_unwraps_later_events(autojump_clock: trio.testing.MockClock) -> None:
    """``combined`` may be switched while events flow."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=a@trade")
        assert (await peer.ask(method="GET_PROPERTY", params=["combined"], id=1))["result"] is True
        assert (await peer.ask(method="SET_PROPERTY", params=["combined", False], id=2))["result"] is None
        world.publish("a@trade", '{"t":1}')
        assert await peer.message() == {"t": 1}


async def test_pings_every_twenty_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """A client that answers stays for hours; the payload is a time in milliseconds."""
    async with opened() as world:
        peer = await world.dial()
        with trio.move_on_after(3601):
            await peer.message()
        assert len(peer.pings) == 180
        assert peer.pings[0] == str(START_MS + 20_000).encode()


async def test_closes_on_a_client_that_answers_no_ping(autojump_clock: trio.testing.MockClock) -> None:
    """A minute after the first unanswered ping: 1008."""
    async with opened() as world:
        begun = trio.current_time()
        peer = await world.dial(deaf=True)
        assert await peer.closed() == (1008, "Pong timeout")
        assert trio.current_time() - begun == 80


async def test_an_unsolicited_pong_keeps_nothing_alive(autojump_clock: trio.testing.MockClock) -> None:
    """Only the payload of a ping counts."""
    async with opened() as world:
        peer = await world.dial(deaf=True)

        async def wave() -> None:
            for _ in range(7):
                await trio.sleep(10)
                await peer.send(ws.Pong(payload=b""))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wave)
            assert await peer.closed() == (1008, "Pong timeout")


async def test_answers_pings(autojump_clock: trio.testing.MockClock) -> None:
    """A client's ping comes back."""
    async with opened() as world:
        peer = await world.dial()
        await peer.send(ws.Ping(payload=b"echo"))
        event = await peer.event()
        assert isinstance(event, ws.Pong)
        assert bytes(event.payload) == b"echo"


async def test_the_sixth_message_in_a_second_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Pings, pongs and requests all count, in a rolling second."""
    async with opened() as world:
        peer = await world.dial()
        for _ in range(20):
            for _ in range(5):
                await peer.send(ws.Ping())
            await trio.sleep(1)
        for frame in (ws.Ping(), ws.Pong(), ws.Ping(), ws.Ping(), ws.Ping()):
            await peer.send(frame)
        await trio.sleep(0.9)
        await peer.send(ws.TextMessage(data='{"method":"LIST_SUBSCRIPTIONS","id":1}'))
        assert await peer.closed() == (1008, "Too many requests")
        await trio.testing.wait_all_tasks_blocked()
        assert world.exchange.snapshot().refused_for_rate == 1
        assert world.exchange.snapshot().messages_received == 106


async def test_the_1025th_stream_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Code 4, then 1008, and all that was subscribed is lost."""
    async with opened(limits=limits(messages=100)) as world:
        peer = await world.dial()
        for hundred in range(10):
            await peer.subscribe(*(f"s{hundred}x{one}@trade" for one in range(100)))
        await peer.subscribe(*(f"t{one}@trade" for one in range(24)))
        reply = await peer.subscribe("one@more", identity=9)
        assert reply == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 9}
        assert await peer.closed() == (1008, "Invalid request")
        await trio.testing.wait_all_tasks_blocked()
        assert world.exchange.listeners == {}


async def test_a_subscribe_over_8_kb_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """No reply and no effect, but it counts as a message."""
    async with opened() as world:
        peer = await world.dial()
        await peer.say(method="SUBSCRIBE", params=[f"symbol{n:04}usdt@trade" for n in range(437)], id=1)
        assert await peer.ask(method="LIST_SUBSCRIPTIONS", id=2) == {"result": [], "id": 2}
        assert world.exchange.snapshot().messages_received == 2


async def test_ends_a_connection_after_a_day(autojump_clock: trio.testing.MockClock) -> None:
    """24 hours, then 1001."""
    async with opened(limits=limits(life_s=86_400.0)) as world:
        begun = trio.current_time()
        peer = await world.dial()
        code, _ = await peer.closed()
        assert code == 1001
        assert trio.current_time() - begun == 86_400


async def test_refuses_the_301st_dial_of_one_address(autojump_clock: trio.testing.MockClock) -> None:
    """300 in five minutes; another address is not concerned, and time heals."""
    async with opened(limits=limits(dials=3)) as world:
        for _ in range(3):
            await world.dial()
        status, _, body = await world.refused()
        assert status == 429
        assert json.loads(body)["code"] == -1003
        await world.dial(address="10.0.0.2")
        await trio.sleep(301)
        await world.dial()


async def test_answers_a_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    """The client's close comes back with its code, and the connection is forgotten."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=btcusdt@trade")
        await peer.send(ws.CloseConnection(code=1000, reason="bye"))
        assert await peer.closed() == (1000, "bye")
        await peer.ended()
        await trio.testing.wait_all_tasks_blocked()
        assert world.exchange.snapshot().connections == 0
        assert world.exchange.market.wanted == {}


async def test_a_binary_message_is_not_welcome(autojump_clock: trio.testing.MockClock) -> None:
    """The exchange speaks text."""
    async with opened() as world:
        peer = await world.dial()
        await peer.send(ws.BytesMessage(data=b"\0"))
        assert (await peer.closed())[0] == 1003


async def test_a_message_that_is_too_big_is_not_welcome(autojump_clock: trio.testing.MockClock) -> None:
    """A megabyte is enough, in one frame or in many."""
    async with opened() as world:
        peer = await world.dial()
        with trio.move_on_after(1):
            for _ in range(3):
                await peer.send(ws.TextMessage(data="x" * 400_000, message_finished=False))
        assert (await peer.closed())[0] == 1009


async def test_forgets_a_client_that_just_goes(autojump_clock: trio.testing.MockClock) -> None:
    """No goodbye, only the end of the stream; also half-way through a handshake, or before a word."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=btcusdt@trade")
        for stream in (peer.stream, await world.line(), await world.line()):
            await stream.send_all(b"GET /ws HT" if stream is not peer.stream else b"\x81")
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert world.exchange.connections == {}
        assert world.exchange.listeners == {}


async def test_a_goodbye_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """A client that neither reads nor answers is left after five seconds."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="close")
        begun = trio.current_time()
        await peer.ended_whatever()
        assert trio.current_time() - begun == 5


async def test_a_frozen_connection_reads_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """A request on a dead line is not heard."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="half_open")
        await peer.say(method="SUBSCRIBE", params=["a@trade"], id=1)
        await trio.sleep(1)
        assert world.exchange.listeners == {}


async def test_a_frame_that_breaks_the_protocol_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """An unmasked client frame is a protocol error."""
    async with opened() as world:
        peer = await world.dial()
        await peer.stream.send_all(b"\x81\x02hi")
        assert (await peer.closed())[0] == 1002


async def test_drops_a_reader_that_is_too_slow(autojump_clock: trio.testing.MockClock) -> None:
    """What waits for a reader is bounded; past that it is cut off, and nobody else notices."""
    async with opened(limits=limits(outbox_bytes=10_000)) as world:
        slow = await world.dial("/stream?streams=a@trade")
        world.publish("a@trade", json.dumps({"padding": "x" * 900}), times=12)
        await slow.ended()
        quick = await world.dial("/stream?streams=a@trade")
        world.publish("a@trade", '{"t":1}')
        assert (await quick.message())["data"] == {"t": 1}


async def test_the_synthetic_market_flows(autojump_clock: trio.testing.MockClock) -> None:
    """Subscribed streams deliver at their cadence, with no snapshot before the first change."""
    names = ["btcusdt@trade", "btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@kline_1m", "btcusdt@ticker"]
    async with opened(SyntheticPlayer(("BTCUSDT", "ETHUSDT"), 1, START_MS)) as world:
        peer = await world.dial()
        await peer.subscribe(*names, "!miniTicker@arr", "btcusdt@depth@100ms", "btcusdt@depth5")
        seen = await heard(peer, 30)
        assert seen["btcusdt@trade"] > 300
        assert 0 < seen["btcusdt@aggTrade"] < seen["btcusdt@trade"]
        assert 25 <= seen["btcusdt@ticker"] <= 30
        assert 25 <= seen["!miniTicker@arr"] <= 30
        assert 14 <= seen["btcusdt@kline_1m"] <= 16
        assert 25 <= seen["btcusdt@depth5"] <= 30
        assert 250 <= seen["btcusdt@depth@100ms"] <= 301


async def heard(peer: Peer, seconds: float) -> dict[str, int]:
    """How many events of each stream came in so many seconds."""
    seen: dict[str, int] = {}
    with trio.move_on_after(seconds):
        while True:
            stream = (await peer.message())["stream"]
            seen[stream] = seen.get(stream, 0) + 1
    return seen


async def test_speed_is_a_factor(autojump_clock: trio.testing.MockClock) -> None:
    """At sixty times the speed a second holds a minute of market time; pings keep their own time."""
    async with opened(SyntheticPlayer(("BTCUSDT",), 1, START_MS), speed=60.0) as world:
        peer = await world.dial("/stream?streams=btcusdt@kline_1m")
        closed = []
        with trio.move_on_after(9):
            while True:
                candle = (await peer.message())["data"]["k"]
                closed += [candle["t"]] if candle["x"] else []
        assert len(closed) in (8, 9)
        assert {later - earlier for earlier, later in pairwise(closed)} == {60_000}
        assert peer.pings == []


async def test_reports_its_state(autojump_clock: trio.testing.MockClock) -> None:
    """Dials are counted with their times, also the refused ones."""
    async with opened() as world:
        await world.dial("/stream?streams=a@trade")
        await trio.sleep(5)
        await world.refused("/nowhere")
        world.publish("a@trade", times=3)
        status, state, _ = await world.call("GET", "/sim/state")
        assert status == 200
        assert state["dials"] == [0.0, 5.0]
        assert (state["connections"], state["frames_sent"], state["subscriptions"]) == (1, 3, 1)
        assert state["replay_finished"] is False


async def test_the_control_endpoint_can_be_closed(autojump_clock: trio.testing.MockClock) -> None:
    """Without control there is nothing under /sim/."""
    async with opened() as world:
        world.exchange.http_api.options = msgspec.structs.replace(world.exchange.options, control=False)
        assert (await world.call("GET", "/sim/state"))[0] == 404


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\r\n", b"GET /ws HTTP/1.1\r\n", SHAKE, PING, TEXT]), max_size=8
    )
)
@settings(deadline=None, max_examples=60)
def test_nothing_that_is_sent_brings_it_down(pieces: list[bytes]) -> None:
    """Whatever arrives, in whatever state: only that connection ends, and nothing of it is left."""

    async def main() -> None:
        async with opened() as world:
            stream = await world.line()
            with suppress(trio.BrokenResourceError):
                await stream.send_all(SHAKE if pieces[:1] == [PING] else b"")
                await stream.send_all(b"".join(pieces))
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
            await trio.sleep(10)
            assert world.exchange.connections == {}
            assert world.exchange.listeners == {}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_stream_of_the_wrong_class_is_acknowledged_and_silent(autojump_clock: trio.testing.MockClock) -> None:
    """As on the exchange since 2026-04-23: mark prices are on ``/market`` alone, and nothing else is."""
    async with opened() as world:
        futures = await world.dial("/market/stream?streams=btcusdt@markPrice@1s")
        spot = await world.dial("/stream")
        assert await spot.subscribe("btcusdt@markPrice@1s") == {"result": None, "id": 1}
        assert await futures.subscribe("btcusdt@trade") == {"result": None, "id": 1}
        assert {name for name, who in world.exchange.listeners.items() if who} == {"btcusdt@markPrice@1s"}
        assert len(world.exchange.listeners["btcusdt@markPrice@1s"]) == 1
