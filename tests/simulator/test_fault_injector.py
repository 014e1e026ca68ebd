"""Every fault, as a client meets it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio
import wsproto.events as ws

from komas.simulator.fault_script import AnyFault, parse_faults
from komas.simulator.player import SyntheticPlayer

from .peer import START_MS, Ended, Peer, opened

STREAM = "/stream?streams=a@trade"


def faults(*entries: dict[str, object]) -> tuple[AnyFault, ...]:
    """Faults as a script would give them."""
    return parse_faults(json.dumps(entries).encode())


async def numbers(peer: Peer, count: int) -> list[int]:
    """The ``t`` of so many events."""
    return [(await peer.message())["data"]["t"] for _ in range(count)]


@pytest.mark.parametrize(("status", "code"), [(403, 0), (418, -1003), (429, -1003), (451, 0), (503, -1008)])
async def test_refuse_with_a_status(autojump_clock: trio.testing.MockClock, status: int, code: int) -> None:
    """So many dials get the status, the exchange's JSON and Retry-After; the next is accepted."""
    async with opened() as world:
        await world.fault(fault="refuse", dials=2, status=status, retry_after=7)
        for _ in range(2):
            found, headers, body = await world.refused()
            assert (found, headers["retry-after"], json.loads(body)["code"]) == (status, "7", code)
        await world.dial()


async def test_refuse_with_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    """Without a status the line is cut."""
    async with opened() as world:
        await world.fault(fault="refuse")
        peer = await world.knock()
        await peer.ended()
        await world.dial()


async def test_refuse_one_dial_of_many(autojump_clock: trio.testing.MockClock) -> None:
    """A script may name the dial."""
    async with opened(faults=faults({"fault": "refuse", "dial": 2, "status": 503})) as world:
        await world.dial()
        assert (await world.refused())[0] == 503
        await world.dial()


async def test_hang(autojump_clock: trio.testing.MockClock) -> None:
    """The handshake is answered late, or never."""
    async with opened() as world:
        await world.fault(fault="hang", seconds=40)
        begun = trio.current_time()
        await world.dial()
        assert trio.current_time() - begun == 40
        await world.fault(fault="hang")
        peer = await world.knock()
        with trio.move_on_after(10_000) as never:
            await peer.event()
        assert never.cancelled_caught


async def test_abort(autojump_clock: trio.testing.MockClock) -> None:
    """All connections are cut without a goodbye."""
    async with opened() as world:
        peers = [await world.dial(STREAM) for _ in range(3)]
        await world.fault(fault="abort")
        for peer in peers:
            await peer.ended()
        await trio.testing.wait_all_tasks_blocked()
        assert world.exchange.snapshot().connections == 0


async def test_abort_of_one_dial_after_some_frames(autojump_clock: trio.testing.MockClock) -> None:
    """What was sent before the cut arrives, and the other connection lives."""
    async with opened(faults=faults({"fault": "abort", "dial": 1, "after_frames": 2})) as world:
        cut, kept = await world.dial(STREAM), await world.dial(STREAM)
        for t in range(5):
            world.publish("a@trade", f'{{"t":{t}}}')
        assert await numbers(cut, 2) == [0, 1]
        await cut.ended()
        assert await numbers(kept, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("code", "reason"), [(1001, ""), (1008, "Invalid request"), (4999, "anything"), (1012, "x")])
async def test_close(autojump_clock: trio.testing.MockClock, code: int, reason: str) -> None:
    """Any code and reason."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="close", code=code, reason=reason, after_frames=1)
        world.publish("a@trade", '{"t":1}', times=2)
        assert await numbers(peer, 1) == [1]
        assert await peer.closed() == (code, reason)


async def test_close_without_a_code(autojump_clock: trio.testing.MockClock) -> None:
    """An empty close frame: 1005 for whoever reads it."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="close", code=None)
        assert (await peer.closed())[0] == 1005


async def test_half_open(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing comes any more, no ping, no pong, no goodbye, and the line stays."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="half_open")
        world.publish("a@trade")
        await peer.send(ws.Ping())
        with trio.move_on_after(500) as silence:
            await peer.event()
        assert silence.cancelled_caught
        assert world.exchange.snapshot().connections == 1


async def test_stall(autojump_clock: trio.testing.MockClock) -> None:
    """Data stops, pings go on and are answered; what happened meanwhile is lost."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="stall", seconds=50)
        world.publish("a@trade", '{"t":1}')
        assert await peer.ask(method="LIST_SUBSCRIPTIONS", id=1)
        with trio.move_on_after(51):
            await peer.message()
        assert len(peer.pings) == 2
        world.publish("a@trade", '{"t":2}')
        assert await numbers(peer, 1) == [2]


async def test_stall_of_one_stream_until_it_is_deleted(autojump_clock: trio.testing.MockClock) -> None:
    """The other streams go on; DELETE mends it."""
    async with opened() as world:
        peer = await world.dial("/stream?streams=a@trade/b@trade")
        await world.fault(fault="stall", streams=["a@trade"])
        world.publish("a@trade", '{"t":1}')
        world.publish("b@trade", '{"t":2}')
        assert await numbers(peer, 1) == [2]
        assert (await world.call("DELETE", "/sim/faults"))[0] == 200
        world.publish("a@trade", '{"t":3}')
        assert await numbers(peer, 1) == [3]


async def test_shutdown(autojump_clock: trio.testing.MockClock) -> None:
    """The notice comes in both shapes, the close after the delay."""
    began_s = trio.current_time()
    async with opened() as world:
        combined, bare = await world.dial("/stream"), await world.dial("/ws")
        await world.fault(fault="shutdown", delay=5)
        notice = await bare.message()
        assert notice == {"e": "serverShutdown", "E": START_MS}
        assert await combined.message() == {"stream": "!serverShutdown", "data": notice}
        assert (await bare.closed())[0] == (await combined.closed())[0] == 1001
        assert trio.current_time() == pytest.approx(began_s + 5)


async def test_shutdown_that_is_not_clean(autojump_clock: trio.testing.MockClock) -> None:
    """The notice, then nothing but the end of the line."""
    async with opened() as world:
        peer = await world.dial("/ws")
        await world.fault(fault="shutdown", clean=False)
        assert (await peer.message())["e"] == "serverShutdown"
        await peer.ended()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"fault": "drop", "frames": 2}, [2, 3, 4, 5]),
        ({"fault": "drop", "frames": 2, "after_frames": 1}, [0, 3, 4, 5]),
        ({"fault": "repeat", "frames": 2}, [0, 0, 1, 1, 2, 3]),
        ({"fault": "reorder"}, [1, 0, 2, 3]),
        ({"fault": "reorder", "frames": 3, "after_frames": 1}, [0, 3, 2, 1, 4]),
        ({"fault": "fragment", "frames": 2}, [0, 1, 2, 3]),
        ({"fault": "drop", "stream": "b@trade"}, [0, 1, 2]),
    ],
)
async def test_tampering(autojump_clock: trio.testing.MockClock, fault: dict[str, object], expected: list[int]) -> None:
    """Events are lost, doubled, turned round or cut up: on this connection and this stream."""
    async with opened() as world:
        peer, other = await world.dial(STREAM), await world.dial("/stream?streams=a@trade")
        await world.fault(**fault, dial=1)
        for t in range(6):
            world.publish("a@trade", f'{{"t":{t}}}')
        assert await numbers(peer, len(expected)) == expected
        assert await numbers(other, 6) == list(range(6))


async def test_unknown_keys(autojump_clock: trio.testing.MockClock) -> None:
    """The event has keys that nobody announced, and all that it had before."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="unknown", frames=1)
        world.publish("a@trade", '{"t":1}', times=2)
        strange, plain = await peer.message(), await peer.message()
        assert strange["data"]["t"] == 1
        assert set(strange["data"]) > {"t"}
        assert plain["data"] == {"t": 1}


@pytest.mark.parametrize("kind", ["event", "stream"])
async def test_unknown_events_and_streams(autojump_clock: trio.testing.MockClock, kind: str) -> None:
    """An event type, or a stream, that does not exist."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="unknown", kind=kind)
        message = await peer.message()
        assert message["data"]["e"] == "somethingNew"
        assert (message["stream"] == "a@trade") == (kind == "event")


@pytest.mark.parametrize("kind", ["json", "truncated", "binary", "fragmented", "huge", "utf8", "reserved"])
async def test_garbage(autojump_clock: trio.testing.MockClock, kind: str) -> None:
    """Frames that are not the exchange's protocol, or not WebSocket at all."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="garbage", kind=kind)
        try:
            seen = await outcome(peer)
        except ValueError as broken:
            seen = type(broken).__name__
        assert (
            seen
            == {
                "json": "JSONDecodeError",
                "truncated": "JSONDecodeError",
                "binary": "BytesMessage",
                "fragmented": "message",
                "huge": "message",
                "utf8": "CloseConnection",  # what a client's parser makes of it
                "reserved": "CloseConnection",
            }[kind]
        )


async def outcome(peer: Peer) -> str:
    """What the next thing is: a message, or the name of something else."""
    text = ""
    while True:
        event = await peer.event()
        if not isinstance(event, ws.TextMessage):
            if isinstance(event, ws.Ping):
                continue
            return type(event).__name__
        text += event.data
        if event.message_finished:
            json.loads(text)
            return "message"


async def test_delayed_and_lost_acks(autojump_clock: trio.testing.MockClock) -> None:
    """The subscription holds at once, its ack comes late, and another's never."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="delay_acks", seconds=3)
        await world.fault(fault="lose_acks")
        await peer.say(method="SUBSCRIBE", params=["a@trade"], id=1)
        await trio.sleep(1)
        world.publish("a@trade", '{"t":1}')
        assert await numbers(peer, 1) == [1]
        assert await peer.message() == {"result": None, "id": 1}
        await peer.say(method="SUBSCRIBE", params=["b@trade"], id=2)
        assert (await peer.ask(method="LIST_SUBSCRIPTIONS", id=3)) == {"result": ["a@trade", "b@trade"], "id": 3}


async def test_refused_subscription(autojump_clock: trio.testing.MockClock) -> None:
    """An error reply with the words of the fault; other methods are not concerned."""
    async with opened() as world:
        peer = await world.dial()
        await world.fault(fault="refuse_subscriptions", code=7, message="No more")
        assert (await peer.ask(method="LIST_SUBSCRIPTIONS", id=1))["result"] == []
        assert await peer.subscribe("a@trade", identity=2) == {"error": {"code": 7, "msg": "No more"}, "id": 2}
        assert await peer.subscribe("a@trade", identity=3) == {"result": None, "id": 3}
        await world.fault(fault="refuse_subscriptions", close=True)
        await peer.subscribe("b@trade", identity=4)
        assert await peer.closed() == (1008, "Invalid request")


async def test_rest_failures(autojump_clock: trio.testing.MockClock) -> None:
    """One endpoint fails once, then answers late, then works."""
    async with opened() as world:
        await world.fault(fault="rest", path="time", status=503, retry_after=3)
        await world.fault(fault="rest", path="time", delay=12)
        assert (await world.call("GET", "/api/v3/ping"))[0] == 200
        status, body, head = await world.call("GET", "/api/v3/time")
        assert (status, body["code"]) == (503, -1008)
        assert "retry-after: 3" in head
        begun = trio.current_time()
        assert (await world.call("GET", "/api/v3/time"))[0] == 200
        assert trio.current_time() - begun == 12
        assert (await world.call("GET", "/api/v3/time"))[0] == 200


@pytest.mark.parametrize("offset_ms", [-1300, 1300])
async def test_clock_offset(autojump_clock: trio.testing.MockClock, offset_ms: int) -> None:
    """REST time and event times are those of the exchange's clock."""
    began_s = trio.current_time()
    async with opened(SyntheticPlayer(("BTCUSDT",), 1, START_MS)) as world:
        await world.fault(fault="clock", offset_ms=offset_ms)
        await trio.sleep(10)
        _, body, _ = await world.call("GET", "/api/v3/time")
        assert body["serverTime"] == START_MS + 10_000 + offset_ms
        peer = await world.dial("/ws/btcusdt@trade")
        event = await peer.message()
        elapsed_ms = (trio.current_time() - began_s) * 1000
        assert event["T"] == pytest.approx(START_MS + elapsed_ms + offset_ms, abs=2)


async def test_trading_halt(autojump_clock: trio.testing.MockClock) -> None:
    """A halted symbol is silent, says so in exchangeInfo, and goes on with the next id."""
    async with opened(SyntheticPlayer(("BTCUSDT", "ETHUSDT"), 1, START_MS)) as world:
        peer = await world.dial("/ws/btcusdt@trade")
        await peer.message()
        await world.fault(fault="status", symbol="BTCUSDT", status="HALT")
        _, info, _ = await world.call("GET", "/api/v3/exchangeInfo?symbol=BTCUSDT")
        assert info["symbols"][0]["status"] == "HALT"
        last = await last_id(peer, 5)
        with trio.move_on_after(60) as silence:
            await peer.message()
        assert silence.cancelled_caught
        await world.fault(fault="status", symbol="BTCUSDT", status="TRADING")
        event = await peer.message()
        assert event["t"] == (last + 1 if last else event["t"])


async def last_id(peer: Peer, seconds: float) -> int:
    """Read what is still on its way; the id of the last trade, or 0."""
    last = 0
    with trio.move_on_after(seconds):
        while True:
            last = (await peer.message())["t"]
    return last


async def test_faults_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """``at`` counts from the start in a script, and from the handshake with ``dial``."""
    script = faults({"fault": "close", "code": 4001, "at": 30}, {"fault": "close", "code": 4002, "dial": 2, "at": 7})
    async with opened(faults=script) as world:
        begun = trio.current_time()
        first = await world.dial()
        await trio.sleep(10)
        second = await world.dial()
        assert (await second.closed())[0] == 4002
        assert trio.current_time() - begun == 17
        assert (await first.closed())[0] == 4001
        assert trio.current_time() - begun == 30


async def test_deleting_faults_forgets_what_is_to_come(autojump_clock: trio.testing.MockClock) -> None:
    """Plans, waiting faults, tampering and the clock: all as if nothing had been said."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="close", at=10)
        await world.fault(fault="refuse", dials=None)
        await world.fault(fault="drop", frames=None)
        await world.fault(fault="clock", offset_ms=5000)
        await world.fault(fault="abort", dial=2)
        await world.fault(fault="status", symbol="BTCUSDT", status="BREAK")
        await world.call("DELETE", "/sim/faults")
        world.publish("a@trade", '{"t":1}')
        assert await numbers(peer, 1) == [1]
        await world.dial()
        with trio.move_on_after(15) as quiet:
            await peer.message()
        assert quiet.cancelled_caught
        assert world.exchange.now_ms == START_MS + 15_000
        assert world.exchange.market.pairs["BTCUSDT"].status == "TRADING"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "this is not JSON"),
        ("[" * 500_000, "this is not JSON"),
        ('{"\xff":1}', "this is not JSON"),
        ('{"fault":"sneeze"}', "entry 1: 'sneeze' is no fault; accepted: abort close"),
        ('{"fault":7}', "got 7; accepted: "),
        ("[7]", "entry 1: 7 is no fault"),
        ('{"fault":"abort","after":1}', "entry 1: abort has no 'after'; accepted: at dial after_frames"),
        ('{"fault":"rest","status":9000}', "entry 1: rest: status: got 9000"),
        ('[{"fault":"abort"},{"fault":"outage"}]', "entry 2: outage needs seconds"),
        ('{"fault":"status","symbol":"NOPE","status":"HALT"}', "NOPE"),
        ('"refuse"', "got 'refuse'; accepted: "),
        ('{"faults":[]}', "got {'faults': []}; accepted: "),
    ],
)
async def test_a_wrong_fault_is_a_clear_400(autojump_clock: trio.testing.MockClock, body: str, words: str) -> None:
    """The answer says what is wrong, and nothing happens."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        status, answer, _ = await world.call("POST", "/sim/faults", body.encode("latin-1"))
        assert status == 400
        assert answer["msg"].startswith("faults: ")
        assert words in answer["msg"], answer
        world.publish("a@trade", '{"t":1}')
        assert await numbers(peer, 1) == [1]


async def test_an_unknown_control_path_says_what_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    """404 with the three that exist."""
    async with opened() as world:
        status, answer, _ = await world.call("PUT", "/sim/faults")
        assert status == 404
        assert "DELETE /sim/faults" in answer["msg"]


async def test_an_outage_cuts_every_line(autojump_clock: trio.testing.MockClock) -> None:
    """WebSockets end without a goodbye; whoever asked hears that it begins, and the listener closes."""
    async with opened() as world:
        peer = await world.dial(STREAM)
        await world.fault(fault="outage", seconds=3)
        with pytest.raises(Ended):
            await peer.message()
        assert world.exchange.listening.cancel_called
        assert world.exchange.outage_s == 3


def test_script_entries_keep_their_order() -> None:
    """A list is carried out from its first to its last."""
    found: Any = faults({"fault": "abort", "at": 1}, {"fault": "refuse"})
    assert [msgspec.to_builtins(fault)["fault"] for fault in found] == ["abort", "refuse"]
