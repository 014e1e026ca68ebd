"""The Python client, against a scripted exchange on the deterministic clock."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from urllib.parse import unquote

import pytest
import trio
import trio.testing

import komas
from komas import BinanceWebSocket, CallbackError, CallerError, Gap, VenueError, open_binance
from komas.client.background import CALLBACKS_END_S
from komas.client.streams import Binance
from komas.errors import KomasError
from komas.model.kinds import Kind
from komas.model.market import Trade
from komas.model.streams import stream
from komas.venues.core.retry import RetryPolicy
from tests.builders import ticker_frame, trade_frame
from tests.venues.exchange import REFUSED, Peer, ScriptedExchange, obeying, saying

URL = "ws://exchange.test:9443"
ONCE = RetryPolicy(attempts=1)


async def _wait_for(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110 - a callback's effect has no event to wait for
            await trio.sleep(0.1)


async def test_the_users_example(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """Global callbacks, connect, subscribe with an async callback, run."""
    heard: list[object] = []

    async def act(peer: Peer) -> None:
        await peer.acknowledge()
        await peer.say(ticker_frame(price="42500.50000000"))
        await trio.sleep_forever()

    exchange.script(act)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    ws.on_connect(lambda: heard.append("Connected!"))
    ws.on_disconnect(lambda: heard.append("Disconnected!"))
    ws.on_error(heard.append)
    ws.on_message(lambda data: heard.append(data["type"]))
    await ws.connect()

    async def handle_price(data: komas.Ticker) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"{data['symbol']}: ${data['price']}")

    assert await ws.subscribe_ticker("BTCUSDT", handle_price) == "btcusdt@ticker"
    with trio.move_on_after(5):
        await ws.run_forever()
    assert heard == ["Connected!", "ticker", "BTCUSDT: $42500.50000000"]


async def test_a_callback_that_raises_hurts_no_other(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """It is reported with its stream; the next callback and the next event come all the same."""
    seen: list[int] = []
    errors: list[Exception] = []

    async def act(peer: Peer) -> None:
        await peer.acknowledge()
        await peer.say(trade_frame(1), trade_frame(2))
        await trio.sleep_forever()

    exchange.script(act)
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        ws.on_error(errors.append)
        ws.on_error(lambda _error: 1 // 0)

        def fail(_trade: Trade) -> None:
            raise KeyError("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.subscribe_trade, "BTCUSDT", fail)
            nursery.start_soon(ws.subscribe_trade, "BTCUSDT", lambda trade: seen.append(trade.trade_id))
        await _wait_for(lambda: seen == [1, 2])
    assert [type(error) for error in errors] == [CallbackError, CallbackError]
    assert isinstance(errors[0], CallbackError)
    assert errors[0].stream == "btcusdt@trade"
    assert isinstance(errors[0].__cause__, KeyError)


async def test_connections_are_told_in_order(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Up, down with the error, up again; also to a callback that takes its time."""
    heard: list[str] = []
    exchange.script(saying(), saying(), obeying)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    @ws.on_connect
    async def up() -> None:
        heard.append("up")
        await trio.sleep(10)

    ws.on_disconnect(lambda: heard.append("down"))
    ws.on_error(lambda error: heard.append(type(error).__name__))
    await ws.connect()
    await trio.sleep(60)
    await ws.disconnect()
    assert heard == ["up", "down", "VenueError", "up", "down", "VenueError", "up", "down"]


async def test_attempts_that_run_out_end_everything(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """connect(), run_forever() and a waiting subscribe all raise the last failure."""
    exchange.script(REFUSED)
    with pytest.raises(VenueError, match="refused"):
        await BinanceWebSocket(URL, open_stream=exchange, retry_policy=ONCE).connect()
    exchange.script(saying(), REFUSED)
    ws = BinanceWebSocket(URL, open_stream=exchange, retry_policy=ONCE)
    await ws.connect()
    with pytest.raises(VenueError):
        await ws.run_forever()
    with pytest.raises(CallerError, match="not connected"):
        await ws.subscribe_ticker("BTCUSDT")


async def test_nothing_waits_for_what_cannot_come(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """A subscription that is pending when the connection is let go, and run_forever() without connect()."""

    async def deaf(_peer: Peer) -> None:
        await trio.sleep_forever()

    exchange.script(deaf)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    with pytest.raises(CallerError, match="not connected"):
        await ws.run_forever()
    await ws.connect()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:

            async def subscribe() -> None:
                with pytest.raises((VenueError, CallerError)):
                    await ws.subscribe_trade("BTCUSDT", print)

            nursery.start_soon(subscribe)
            await trio.sleep(1)
            await ws.unsubscribe("btcusdt@trade")
    await ws.disconnect()
    await ws.disconnect()


async def test_a_cancelled_connect_leaves_nothing_running(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """With the network down, cancelled after five seconds: no dial follows."""
    exchange.script(*[REFUSED] * 1000)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    with trio.move_on_after(5):
        await ws.connect()
    dials = len(exchange.dialled_at)
    await trio.sleep(100)
    assert len(exchange.dialled_at) == dials


async def test_connecting_from_two_tasks_is_one_connection(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """And after run_forever() was left, connect() begins anew."""
    exchange.script(then=obeying)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ws.connect)
    assert len(exchange.dialled_at) == 1
    with trio.move_on_after(1):
        await ws.run_forever()
    await ws.connect()
    assert len(exchange.dialled_at) == 2
    assert await ws.subscribe_ticker("BTCUSDT") == "btcusdt@ticker"
    await ws.disconnect()


async def test_a_cancelled_subscribe_leaves_no_callback(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Subscribed again, one event is one call."""
    seen: list[int] = []

    async def deaf(peer: Peer) -> None:
        await peer.hear()
        await trio.sleep_forever()

    exchange.script(deaf, saying(trade_frame(1), then=obeying))
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        with trio.move_on_after(2):
            await ws.subscribe_trade("BTCUSDT", lambda trade: seen.append(trade.trade_id))
        await trio.sleep(2)
        await ws.subscribe_trade("BTCUSDT", lambda trade: seen.append(trade.trade_id))
        await _wait_for(lambda: seen)
        assert seen == [1]


async def test_unsubscribing_ends_the_stream_at_the_exchange(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """By kind, or by the name that subscribe returned; what is not subscribed is an error."""
    exchange.script(obeying)
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        await ws.subscribe_kline("BTCUSDT", print, interval="5m")
        await ws.subscribe_trade("BTCUSDT", print, aggregate=True)
        await ws.subscribe_book_ticker("BTCUSDT", print)
        name = await ws.subscribe_ticker("BTCUSDT", print, mini=True)
        assert name == "btcusdt@miniTicker"
        await ws.unsubscribe("BTCUSDT", "kline", interval="5m")
        await ws.unsubscribe(name)
        await trio.sleep(2)
        requests = [request for _, request in exchange.peers[0].requests]
        gone = [name for request in requests if request["method"] == "UNSUBSCRIBE" for name in request["params"]]  # type: ignore[attr-defined]
        assert sorted(gone) == ["btcusdt@kline_5m", "btcusdt@miniTicker"]
        with pytest.raises(CallerError, match="not subscribed"):
            await ws.unsubscribe("ETHUSDT")


@pytest.mark.parametrize("is_plain", [True, False])
async def test_iterating_is_the_other_way(
    autojump_clock: trio.testing.MockClock,
    exchange: ScriptedExchange,
    is_plain: bool,  # noqa: FBT001 - a table's column
) -> None:
    """In order, with gaps where they are, also for a coroutine function; leaving the block unsubscribes."""
    exchange.script(saying(), saying(trade_frame(1), trade_frame(4), then=obeying))
    gaps: list[Gap] = []
    seen = []

    async def note(gap: Gap) -> None:
        await trio.sleep(1)
        gaps.append(gap)

    async with (
        open_binance(URL, open_stream=exchange) as binance,
        binance.trades("btcusdt", on_gap=gaps.append if is_plain else note) as trades,
    ):
        async for trade in trades:
            seen.append(trade.trade_id)
            if len(seen) == 2:
                break
    assert seen == [1, 4]
    assert gaps == [Gap(stream="btcusdt@trade", first=2, last=3, reason="no such endpoint")]


async def test_what_the_block_raises_comes_out_as_it_is(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Not in a group, so that a caller's except works."""
    exchange.script(obeying)
    with pytest.raises(ZeroDivisionError):
        async with open_binance(URL, open_stream=exchange):
            raise ZeroDivisionError


async def test_a_block_whose_attempts_run_out_ends(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Wherever it waits."""
    exchange.script(saying(ticker_frame()), REFUSED)
    with trio.fail_after(100), pytest.raises(VenueError):
        async with (
            open_binance(URL, open_stream=exchange, retry_policy=ONCE) as binance,
            binance.ticker("BTCUSDT") as prices,
        ):
            async for _ in prices:
                continue


async def test_a_stream_that_is_refused_later_raises(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """On the next connection, with the exchange's words; the callbacks' way hears of it through on_error."""

    async def refuse(peer: Peer) -> None:
        if "streams=" in peer.path:
            await peer.socket.aclose(1008, "Invalid request")
            return
        request = await peer.hear()
        await peer.say(json.dumps({"error": {"code": 2, "msg": "delisted"}, "id": request["id"]}))
        await trio.sleep_forever()

    exchange.script(saying(), obeying_then_cut, then=refuse)
    with trio.fail_after(200), pytest.raises(VenueError, match="delisted"):
        async with open_binance(URL, open_stream=exchange) as binance, binance.trades("BTCUSDT") as trades:
            async for _ in trades:
                continue


async def obeying_then_cut(peer: Peer) -> None:
    """An act: acknowledge one request, send one trade, hang up."""
    if "streams=" not in peer.path:
        await peer.acknowledge()
    await peer.say(trade_frame(1))


async def test_a_wrong_address_is_the_callers_mistake(exchange: ScriptedExchange) -> None:
    """Said at once, as itself."""
    for url in ("stream.binance.com:9443", "http://x", "wss://a..b:1", "wss://stream.binance.com:9443/stream"):
        with pytest.raises(CallerError, match="not a WebSocket address"):
            await BinanceWebSocket(url, open_stream=exchange).connect()
        with pytest.raises(CallerError, match="not a WebSocket address"):
            async with open_binance(url, open_stream=exchange):
                pytest.fail("the block was entered")


def test_the_door_offers_what_programs_need() -> None:
    """Everything in ``__all__`` is there."""
    assert all(hasattr(komas, name) for name in komas.__all__)


async def test_what_is_asked_while_the_connection_is_let_go_is_answered(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """By an error of komas's or by a new connection, which the end of the old one does not touch; never by silence."""
    exchange.script(then=obeying)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def ask(call: Callable[[], Awaitable[object]]) -> None:
        with suppress(KomasError), trio.fail_after(30):
            await call()

    for scheduler_passes in range(12):
        await ws.connect()
        await ws.subscribe_trade("BTCUSDT", print)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.disconnect)
            for _ in range(scheduler_passes):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(ask, lambda: ws.subscribe_trade("ETHUSDT", print))
            nursery.start_soon(ask, ws.connect)
    await ws.connect()
    assert await ws.subscribe_trade("BTCUSDT", print) == "btcusdt@trade"
    await ws.disconnect()


async def test_what_is_kept_from_a_block_that_was_left_says_so(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """A helper that returns what it opened: nothing hangs, and nothing old passes for news."""
    exchange.script(saying(trade_frame(1), then=obeying))
    async with open_binance(URL, open_stream=exchange) as binance:
        entered = binance.trades("BTCUSDT")
        trades = await entered.__aenter__()
        assert (await anext(trades)).trade_id == 1
    with trio.fail_after(60):
        with pytest.raises(VenueError, match="let go"):
            await anext(trades)
        await entered.__aexit__(None, None, None)
        with pytest.raises(VenueError, match="let go"):
            async with binance.trades("BTCUSDT"):
                pytest.fail("there is nothing to hear")


async def _nine_trades(peer: Peer) -> None:
    """An act: acknowledge one request, send nine trades, stay."""
    await peer.acknowledge()
    await peer.say(*map(trade_frame, range(1, 10)))
    await trio.sleep_forever()


async def test_a_callback_may_let_go(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """It was cancelled at its next await; it comes to its end, is not called again, and run_forever() returns then."""
    heard: list[object] = []
    exchange.script(_nine_trades)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def enough(trade: Trade) -> None:
        heard.append(trade.trade_id)
        await ws.disconnect()
        heard.append("disconnected")
        await trio.sleep(5)
        heard.append("finished")

    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", enough)
    begun_at = trio.current_time()
    await ws.run_forever()
    assert 5 <= trio.current_time() - begun_at < 6
    assert heard == [1, "disconnected", "finished"]


async def test_a_callback_may_connect_anew(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """What it subscribes to then works, and run_forever() goes on with the new connection."""
    heard: list[object] = []
    exchange.script(_nine_trades, _nine_trades)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def again(trade: Trade) -> None:
        heard.append(trade.trade_id)
        await ws.disconnect()
        await ws.connect()
        await ws.subscribe_trade("BTCUSDT", lambda trade: heard.append((trade.trade_id,)))

    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", again)
    with trio.move_on_after(60) as waited:
        await ws.run_forever()
    assert waited.cancelled_caught
    assert heard == [1, *((number,) for number in range(1, 10))]


async def test_on_error_may_let_go(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """Every callback comes to its end, not those of streams alone."""
    heard: list[str] = []
    exchange.script(saying(), *[REFUSED] * 1000)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    @ws.on_error
    async def give_up(error: Exception) -> None:
        await ws.disconnect()
        await trio.sleep(1)
        heard.append(str(error))

    await ws.connect()
    with trio.fail_after(100):
        await ws.run_forever()
    assert heard == ["the connection was cut"]


async def test_run_forever_returns_when_there_is_nothing_to_run(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """After the last stream was unsubscribed, in its own callback, it waited for ever."""
    heard: list[int] = []
    exchange.script(_nine_trades)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def enough(trade: Trade) -> None:
        await ws.unsubscribe("btcusdt@trade")
        await trio.sleep(5)
        heard.append(trade.trade_id)

    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", enough)
    with trio.fail_after(60):
        await ws.run_forever()
    assert heard == [1]


async def test_one_stream_may_be_put_into_the_place_of_another(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """In between there is no stream, but there is something to run."""
    exchange.script(obeying)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", print)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws.run_forever)
        await trio.sleep(1)
        await ws.unsubscribe("btcusdt@trade")
        assert await ws.subscribe_trade("ETHUSDT", print) == "ethusdt@trade"
        await trio.sleep(60)
        await ws.disconnect()


async def test_a_disconnect_from_outside_gives_callbacks_two_seconds(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """One that takes longer is cancelled: nobody waits for it for ever."""
    heard: list[object] = []
    exchange.script(_nine_trades)
    ws = BinanceWebSocket(URL, open_stream=exchange)

    async def quick(_trade: Trade) -> None:
        await trio.sleep(1.5)
        heard.append("quick")

    async def slow(_trade: Trade) -> None:
        try:
            await trio.sleep_forever()
        finally:
            heard.append(trio.current_time() - begun_at)

    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", quick)
    await ws.subscribe_trade("BTCUSDT", slow)
    await trio.sleep(0.5)
    begun_at = trio.current_time()
    await ws.disconnect()
    assert heard == ["quick", CALLBACKS_END_S]


def _leave(_trade: Trade) -> None:
    sys.exit(3)


async def test_a_callback_may_exit(autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange) -> None:
    """By ``SystemExit``, as anywhere else in Python: it came out as a group."""
    exchange.script(_nine_trades)
    ws = BinanceWebSocket(URL, open_stream=exchange)
    await ws.connect()
    await ws.subscribe_trade("BTCUSDT", _leave)
    with pytest.raises(SystemExit) as left:
        await ws.run_forever()
    assert left.value.code == 3


async def test_a_callback_may_exit_from_a_block(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Wherever the block waits: it went on without a connection, for ever."""
    exchange.script(_nine_trades)
    with trio.fail_after(60), pytest.raises(SystemExit):
        async with BinanceWebSocket(URL, open_stream=exchange) as ws:
            await ws.subscribe_trade("BTCUSDT", _leave)
            await trio.sleep_forever()


async def test_a_block_of_callbacks_whose_attempts_run_out_ends(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """As the block of ``open_binance()`` does."""
    exchange.script(saying(ticker_frame()), REFUSED)
    with trio.fail_after(100), pytest.raises(VenueError, match="refused"):
        async with BinanceWebSocket(URL, open_stream=exchange, retry_policy=ONCE):
            await trio.sleep_forever()


def test_without_trio_it_is_said_what_to_do() -> None:
    """Under asyncio, as in a notebook, it was ``'RunContext' object has no attribute 'runner'``."""

    async def iterate() -> None:
        async with open_binance():
            pytest.fail("the block was entered")

    for call in (BinanceWebSocket().connect, BinanceWebSocket().disconnect, BinanceWebSocket().__aenter__, iterate):
        with pytest.raises(CallerError, match=r"trio\.run"):
            asyncio.run(call())


def test_what_is_advised_without_trio_works() -> None:
    """From a thread of asyncio's own."""

    async def main() -> str:
        await trio.lowlevel.checkpoint()
        return "ran"

    async def notebook() -> str:
        return await asyncio.to_thread(trio.run, main)

    assert asyncio.run(notebook()) == "ran"


EVERY_KIND: dict[Kind, tuple[Callable[[BinanceWebSocket], Awaitable[str]], Callable[[Binance], object]]] = {
    Kind.TICKER: (lambda ws: ws.subscribe_ticker("BTCUSDT"), lambda binance: binance.ticker("BTCUSDT")),
    Kind.MINI_TICKER: (
        lambda ws: ws.subscribe_ticker("BTCUSDT", mini=True),
        lambda binance: binance.mini_ticker("BTCUSDT"),
    ),
    Kind.KLINE: (lambda ws: ws.subscribe_kline("BTCUSDT"), lambda binance: binance.klines("BTCUSDT")),
    Kind.TRADE: (lambda ws: ws.subscribe_trade("BTCUSDT"), lambda binance: binance.trades("BTCUSDT")),
    Kind.AGG_TRADE: (
        lambda ws: ws.subscribe_trade("BTCUSDT", aggregate=True),
        lambda binance: binance.agg_trades("BTCUSDT"),
    ),
    Kind.BOOK_TICKER: (lambda ws: ws.subscribe_book_ticker("BTCUSDT"), lambda binance: binance.book_ticker("BTCUSDT")),
    Kind.DEPTH: (lambda ws: ws.subscribe_depth("BTCUSDT"), lambda binance: binance.depth("BTCUSDT")),
    Kind.AVG_PRICE: (lambda ws: ws.subscribe_avg_price("BTCUSDT"), lambda binance: binance.avg_price("BTCUSDT")),
    Kind.TICKER_1H: (
        lambda ws: ws.subscribe_rolling_ticker("BTCUSDT"),
        lambda binance: binance.rolling_ticker("BTCUSDT"),
    ),
    Kind.TICKER_4H: (
        lambda ws: ws.subscribe_rolling_ticker("BTCUSDT", window="4h"),
        lambda binance: binance.rolling_ticker("BTCUSDT", "4h"),
    ),
    Kind.TICKER_1D: (
        lambda ws: ws.subscribe_rolling_ticker("BTCUSDT", window="1d"),
        lambda binance: binance.rolling_ticker("BTCUSDT", "1d"),
    ),
    Kind.MARK_PRICE: (lambda ws: ws.subscribe_mark_price("BTCUSDT"), lambda binance: binance.mark_price("BTCUSDT")),
}


@pytest.mark.parametrize("kind", Kind)
async def test_the_client_has_every_kind_of_the_server(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange, kind: Kind
) -> None:
    """By callbacks and by iteration: ``mark_price`` was the server's alone."""
    subscribe, iterate = EVERY_KIND[kind]
    wanted = stream(kind, "BTCUSDT")
    exchange.script(then=obeying)
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        assert await subscribe(ws) == wanted.name
        await ws.unsubscribe(wanted.name)
        with pytest.raises(CallerError, match="not subscribed"):
            await ws.unsubscribe("BTCUSDT", kind)
    async with open_binance(URL, open_stream=exchange) as binance:
        events = iterate(binance)
        assert isinstance(events, AbstractAsyncContextManager)
        async with events:
            asked = {name for peer in exchange.peers for _, request in peer.requests for name in _names(request)}
            assert wanted.name in asked or wanted.name in unquote(exchange.peers[-1].path)


def _names(request: dict[str, object]) -> list[str]:
    names = request["params"]
    assert isinstance(names, list)
    return names


async def test_an_unknown_window_is_the_callers_mistake(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange
) -> None:
    """Those there are are named."""
    exchange.script(obeying)
    async with BinanceWebSocket(URL, open_stream=exchange) as ws:
        with pytest.raises(CallerError, match="1h 4h 1d"):
            await ws.subscribe_rolling_ticker("BTCUSDT", window="2h")


async def test_the_reason_is_in_the_text_of_the_log(
    autojump_clock: trio.testing.MockClock, exchange: ScriptedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    """``logging.basicConfig()`` prints the text alone: it showed "link lost"."""
    exchange.script(saying(), then=obeying)
    async with BinanceWebSocket(URL, open_stream=exchange):
        await trio.sleep(10)
    assert any(text.startswith("link lost: reason='the connection was cut'") for text in caplog.messages)
