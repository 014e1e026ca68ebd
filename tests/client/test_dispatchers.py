"""One task for each subscribed stream: who shares it, who ends it, and what is heard of its troubles."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
import trio
import trio.testing

from komas import BinanceWebSocket, Gap, SlowConsumer, VenueError
from komas.client.dispatchers import SLOW
from komas.model.market import Event, Trade
from tests.builders import mark_price_frame, trade_frame
from tests.venues.exchange import REFUSED, Peer, ScriptedExchange, obeying, saying

URL = "ws://exchange.test:9443"


def _trading(*numbers: int, after_s: float = 0.0) -> Callable[[Peer], Awaitable[None]]:
    """An act: acknowledge one request after a while, send trades, stay."""

    async def act(peer: Peer) -> None:
        await trio.sleep(after_s)
        await peer.acknowledge()
        await peer.say(*map(trade_frame, numbers))
        await trio.sleep_forever()

    return act


async def test_a_cancelled_caller_takes_no_shared_task_with_it(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """At whichever scheduler pass the first of two callers is cancelled, the second hears the trade."""
    for scheduler_passes in range(12):
        exchange.script(_trading(1, after_s=1))
        heard: list[Event] = []
        async with BinanceWebSocket(URL, open_stream=exchange) as ws:
            first = trio.CancelScope()

            async def subscribe_first(ws: BinanceWebSocket, scope: trio.CancelScope) -> None:
                with scope:
                    await ws.subscribe_trade("BTCUSDT", print)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscribe_first, ws, first)
                nursery.start_soon(ws.subscribe_trade, "BTCUSDT", heard.append)
                for _ in range(scheduler_passes):
                    await trio.lowlevel.checkpoint()
                first.cancel("by the test")
            await trio.sleep(1)
        assert [event["trade_id"] for event in heard] == [1]


async def test_a_cancelled_caller_without_a_callback_ends_no_stream_of_another(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Two that have on_message alone wait for one stream, and one of them gives up."""
    exchange.script(_trading(1, after_s=9))
    heard: list[Event] = []
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_message(heard.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.subscribe_trade, "BTCUSDT")
            with trio.move_on_after(2):
                await ws.subscribe_trade("BTCUSDT")
        await trio.sleep(1)
    assert [event["trade_id"] for event in heard] == [1]


async def test_a_refusal_is_reported_to_a_coroutine_function(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Which may take its time, and subscribe again: the refused stream is not subscribed any more."""

    async def cut_off(peer: Peer) -> None:
        await peer.acknowledge()
        await peer.say(trade_frame(1))

    async def refuse(peer: Peer) -> None:
        if "streams=" in peer.path:
            await peer.socket.aclose(1008, "Invalid request")
            return
        request = await peer.hear()
        await peer.say(json.dumps({"error": {"code": 2, "msg": "delisted"}, "id": request["id"]}))
        await peer.acknowledge()
        await peer.say(trade_frame(2))
        await trio.sleep_forever()

    exchange.script(cut_off, then=refuse)
    heard: list[Event] = []
    refusals: list[str] = []
    ws = BinanceWebSocket(URL, open_stream=exchange)

    @ws.on_error
    async def report(error: Exception) -> None:
        await trio.sleep(1)
        if "delisted" in str(error):
            refusals.append(str(error))
            await ws.subscribe_trade("BTCUSDT", heard.append)

    async with ws:
        await ws.subscribe_trade("BTCUSDT", heard.append)
        await trio.sleep(200)
    assert refusals == ["the exchange refused btcusdt@trade: delisted"]
    assert [event["trade_id"] for event in heard] == [1, 2]


async def test_a_refused_subscription_raises_and_leaves_no_callback(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Asked again, when the exchange takes it, one trade is one call."""

    async def reluctant(peer: Peer) -> None:
        request = await peer.hear()
        await peer.say(json.dumps({"error": {"code": 2, "msg": "not yet"}, "id": request["id"]}))
        await _trading(1)(peer)

    exchange.script(reluctant)
    heard: list[Event] = []
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        with pytest.raises(VenueError, match="not yet"):
            await ws.subscribe_trade("BTCUSDT", heard.append)
        await ws.subscribe_trade("BTCUSDT", heard.append)
        await trio.sleep(1)
    assert [event["trade_id"] for event in heard] == [1]


async def test_gaps_are_told_in_their_place(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """Between the trades around them."""
    heard: list[object] = []
    exchange.script(saying(), saying(trade_frame(1), trade_frame(4), then=obeying))
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_gap(heard.append)
        await ws.subscribe_trade("BTCUSDT", lambda trade: heard.append(trade.trade_id))
        await trio.sleep(100)
    assert heard == [1, Gap(stream="btcusdt@trade", first=2, last=3, reason="no such endpoint"), 4]


@pytest.mark.parametrize(
    ("burst", "lost", "recovered"),
    [
        (28, [], [*range(2, 30)]),  # the history has them all
        (5000, [Gap(stream="btcusdt@trade", first=2, last=905, reason=SLOW)], [*range(906, 5002)]),
    ],
)
async def test_a_callback_that_falls_behind_is_told_what_it_lost(
    autojump_clock: trio.testing.MockClock,
    exchange: ScriptedExchange,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    burst: int,
    lost: list[Gap],
    recovered: list[int],
) -> None:
    """70,000 trades were lost, ``on_gap`` was not called, and nothing was logged; the newest are in the history."""
    monkeypatch.setattr("komas.client.dispatchers.BACKLOG", 16)

    async def act(peer: Peer) -> None:
        await peer.acknowledge()
        await peer.say(trade_frame(1))
        await trio.sleep(1)
        await peer.say(*map(trade_frame, range(2, burst + 2)))
        await trio.sleep(20)
        await peer.say(trade_frame(burst + 2))
        await trio.sleep_forever()

    exchange.script(act)
    heard: list[object] = []
    errors: list[Exception] = []

    async def slow(trade: Trade) -> None:
        heard.append(trade.trade_id)
        await trio.sleep(10 if trade.trade_id == 1 else 0)

    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_error(errors.append)
        ws.on_gap(heard.append)
        await ws.subscribe_trade("BTCUSDT", slow)
        await trio.sleep(60)
    assert heard == [1, *lost, *recovered, burst + 2]
    assert [type(error) for error in errors] == [SlowConsumer] * len(lost)
    assert sum("slower than btcusdt@trade" in record.getMessage() for record in caplog.records) == 1


async def test_a_burst_before_the_first_callback_is_a_gap_without_an_end(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was delivered, nothing is known of what is missing, but that it is."""
    monkeypatch.setattr("komas.client.dispatchers.BACKLOG", 16)

    async def act(peer: Peer) -> None:
        await peer.acknowledge()
        await trio.sleep(1)
        await peer.stream.send_all(b"".join(_text_frame(trade_frame(number)) for number in range(1, 30)))
        await trio.sleep(1)
        await peer.say(trade_frame(30))
        await trio.sleep_forever()

    exchange.script(act)
    heard: list[object] = []
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_gap(heard.append)
        await ws.subscribe_trade("BTCUSDT", lambda trade: heard.append(trade.trade_id))
        await trio.sleep(60)
    assert heard == [Gap(stream="btcusdt@trade", first=None, last=None, reason=SLOW), 30]


def _text_frame(text: str) -> bytes:
    """A text message of a server, of 126 to 65535 bytes."""
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text.encode()


async def test_a_callback_may_end_its_own_stream(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """It was cancelled at its next await; it comes to its end, is not called again, and may subscribe anew."""
    heard: list[object] = []

    async def act(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.obey)
            await trio.sleep(1)
            await peer.say(*map(trade_frame, range(1, 4)))
            await trio.sleep(10)
            await peer.say(*map(trade_frame, range(4, 6)))

    exchange.script(act)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def once(trade: Trade) -> None:
        await ws.unsubscribe("btcusdt@trade")
        await trio.sleep(5)
        heard.append(trade.trade_id)
        await ws.subscribe_trade("BTCUSDT", lambda later: heard.append((later.trade_id,)))
        heard.append("subscribed")

    async with ws:
        await ws.subscribe_trade("BTCUSDT", once)
        await trio.sleep(30)
    assert heard == [1, "subscribed", (4,), (5,)]


async def test_a_stream_that_is_ended_from_outside_lets_its_callback_finish(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """A callback that was writing to a database when another task unsubscribed was cut in two."""
    heard: list[object] = []
    exchange.script(_trading(1, 2))
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:

        async def slow(trade: Trade) -> None:
            await trio.sleep(5)
            heard.append(trade.trade_id)

        await ws.subscribe_trade("BTCUSDT", slow)
        await trio.sleep(1)
        await ws.unsubscribe("btcusdt@trade")
        await trio.sleep(20)
        assert heard == [1]


async def test_mark_prices_are_of_a_connection_of_their_own(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Dialled with the first of them, and not before; a failure of it is told to ``on_error``."""
    heard: list[object] = []
    errors: list[Exception] = []
    exchange.script(obeying, REFUSED, saying(mark_price_frame(1000), then=obeying))
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_error(errors.append)
        await trio.sleep(100)
        assert len(exchange.dialled_at) == 1
        name = await ws.subscribe_mark_price("BTCUSDT", lambda mark: heard.append(mark["price"]))
        await trio.sleep(10)
        assert exchange.peers[1].path.startswith("/market/stream")
        assert heard == [Decimal("61837.5")]
        assert [str(error) for error in errors] == ["btcusdt@markPrice@1s: refused"]
        await ws.unsubscribe(name)
