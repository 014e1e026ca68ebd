"""One task for each subscribed stream: who shares it, who ends it, and what is heard of its troubles."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from komas import BinanceWebSocket, CallbackError, Gap, SlowConsumer, VenueError
from komas.model.market import Event, Trade
from tests.builders import trade_frame
from tests.venues.exchange import Peer, ScriptedExchange, obeying, saying

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
    exchange.script(_trading(1, after_s=10))
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


async def test_a_callback_that_falls_behind_is_told_so_and_goes_on(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what comes after; in between nothing is lost in silence."""
    monkeypatch.setattr("komas.client.dispatchers.BACKLOG", 16)

    async def act(peer: Peer) -> None:
        await peer.acknowledge()
        await peer.say(trade_frame(1))
        await trio.sleep(1)
        await peer.say(*map(trade_frame, range(2, 30)))
        await trio.sleep(20)
        await peer.say(trade_frame(30))
        await trio.sleep_forever()

    exchange.script(act)
    heard: list[int] = []
    errors: list[Exception] = []

    async def slow(trade: Trade) -> None:
        heard.append(trade.trade_id)
        await trio.sleep(10 if trade.trade_id == 1 else 0)

    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_error(errors.append)
        await ws.subscribe_trade("BTCUSDT", slow)
        await trio.sleep(60)
    assert heard == [1, 30]
    [error] = errors
    assert isinstance(error, CallbackError)
    assert (error.stream, type(error.__cause__)) == ("btcusdt@trade", SlowConsumer)
