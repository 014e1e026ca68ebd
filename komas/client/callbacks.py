"""Binance streams for Python programs, by callbacks: ``BinanceWebSocket``, as in the user's document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

import trio

from komas.client.background import NOT_CONNECTED, BackgroundConnection
from komas.client.callback_registry import CallbackError, CallbackRegistry, EventCallback
from komas.client.streams import check_trio, open_components, rolling_kind
from komas.errors import CallerError
from komas.model.kinds import Kind, Venue
from komas.model.market import AggTrade, AvgPrice, BookTicker, Depth, Gap, Kline, MarkPrice, MiniTicker, Ticker, Trade
from komas.model.streams import Stream, stream
from komas.venues.binance.hosts import SPOT_STREAM
from komas.venues.binance.names import parse_name
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp

__all__ = ["BinanceWebSocket", "CallbackError"]

TickerCallback: TypeAlias = Callable[[Ticker], object] | Callable[[MiniTicker], object] | EventCallback


class BinanceWebSocket:
    """Binance with callbacks, which may be plain functions or coroutine functions.

    ``connect()`` starts a background task that lasts until ``disconnect()`` or the end of ``trio.run()``;
    ``run_forever()`` waits for it, and stops it when cancelled. Each stream's callbacks are called in order by a task
    of the stream's own, so a slow one delays no other.

    * One that raises is reported to ``on_error`` as a ``CallbackError``, or logged where there is no ``on_error``.
    * ``sys.exit()`` in one ends the connection; ``run_forever()``, or the ``async with`` block, raises it.
    * One may end its own stream, or disconnect: it comes to its end, and is not called again.
    * One that falls ``BACKLOG`` events behind goes on with what the history still has. What is lost is told to
      ``on_gap`` and, as ``SlowConsumer``, to ``on_error``.

    Prices and quantities are ``Decimal``; an event is a mapping: ``event.price`` and ``event["price"]`` are the same.
    """

    def __init__(
        self,
        url: str = SPOT_STREAM,
        *,
        rest_url: str | None = None,
        retry_policy: RetryPolicy | None = None,
        open_stream: OpenStream = open_tcp,
    ) -> None:
        self._registry = CallbackRegistry()
        self._new_connection = partial(
            BackgroundConnection,
            partial(open_components, url, rest_url=rest_url, retry_policy=retry_policy, open_stream=open_stream),
            self._registry,
            self._failed,
        )
        self._connection = self._new_connection()
        self._starting = trio.Lock()
        self._block: trio.CancelScope | None = None  # of ``async with``, while it lasts
        self._opened: AbstractAsyncContextManager[None] | None = None

    # What the program hears

    def on_connect(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back at each connection to the exchange, the first included."""
        self._registry.on_connect.append(callback)
        return callback

    def on_disconnect(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back when a connection is lost or let go."""
        self._registry.on_disconnect.append(callback)
        return callback

    def on_error(self, callback: Callable[[Exception], object]) -> Callable[[Exception], object]:
        """Call back with a ``VenueError`` for a failed connection, a ``CallbackError`` for a callback that raised."""
        self._registry.on_error.append(callback)
        return callback

    def on_message(self, callback: EventCallback) -> EventCallback:
        """Call back with every event of every stream."""
        self._registry.on_message.append(callback)
        return callback

    def on_gap(self, callback: Callable[[Gap], object]) -> Callable[[Gap], object]:
        """Call back where trades or closed candles are missing."""
        self._registry.on_gap.append(callback)
        return callback

    # What the program asks for

    async def connect(self) -> None:
        """Connect and wait until connected; tries for ever, or as ``retry_policy`` allows, then raises ``VenueError``.

        Cancelled or failed, it leaves nothing running that it has started. ``CallerError`` outside of ``trio.run()``.
        """
        check_trio()
        async with self._starting:
            is_first = not self._connection.is_open
            if is_first:
                await self._connection.stop()  # one that is still being left
                self._connection = self._new_connection()
                await self._connection.start()
            connection, components = self._connection, self._connection.components
        components.connect()
        try:
            await components.feed.connected()
        except BaseException:
            if is_first:
                await connection.stop()
            raise

    async def disconnect(self) -> None:
        """Let the connection and all subscriptions go; ``run_forever()`` returns once no callback runs any more."""
        check_trio()
        async with self._starting:
            connection = self._connection
            components = connection.components if connection.is_open else None
            connection.leave()
        await connection.stop()
        if components is not None and components.was_connected:
            await self._registry.call(self._registry.on_disconnect)

    async def run_forever(self) -> None:
        """Wait until ``disconnect()``, or until every stream was unsubscribed and no callback runs any more.

        Raises ``VenueError`` when the allowed attempts are used up.
        """
        if not self._connection.is_running and self._connection.failure is None:
            raise CallerError(NOT_CONNECTED)
        try:
            waited_for = None
            while waited_for is not self._connection:  # a callback may disconnect and connect anew
                waited_for = self._connection
                await waited_for.finished()
        finally:
            await self._connection.stop()
        if self._connection.failure is not None:
            raise self._connection.failure

    async def __aenter__(self) -> Self:
        """Connect; the connection ends with the block, and the block with a connection that fails for good."""
        self._opened = self._open()
        await self._opened.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._opened is not None
        return await self._opened.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        await self.connect()
        with trio.CancelScope() as self._block:
            try:
                yield
            finally:
                await self._connection.stop()
        self._block = None
        if self._connection.failure is not None:
            raise self._connection.failure

    def _failed(self) -> None:
        if self._block is not None:
            self._block.cancel("the connection has failed for good")

    async def subscribe_ticker(self, symbol: str, callback: TickerCallback | None = None, *, mini: bool = False) -> str:
        """24-hour statistics, in the short form with ``mini``; returns the stream's name."""
        return await self._subscribe(stream(Kind.MINI_TICKER if mini else Kind.TICKER, symbol), callback)

    async def subscribe_rolling_ticker(
        self, symbol: str, callback: Callable[[Ticker], object] | EventCallback | None = None, *, window: str = "1h"
    ) -> str:
        """Statistics of the last ``1h``, ``4h`` or ``1d``; returns the stream's name."""
        return await self._subscribe(stream(rolling_kind(window), symbol), callback)

    async def subscribe_avg_price(
        self, symbol: str, callback: Callable[[AvgPrice], object] | EventCallback | None = None
    ) -> str:
        """The average price of the last minutes; returns the stream's name."""
        return await self._subscribe(stream(Kind.AVG_PRICE, symbol), callback)

    async def subscribe_mark_price(
        self, symbol: str, callback: Callable[[MarkPrice], object] | EventCallback | None = None
    ) -> str:
        """A perpetual's mark price and funding, of the USD-M futures; returns the stream's name."""
        return await self._subscribe(stream(Kind.MARK_PRICE, symbol), callback)

    async def subscribe_kline(
        self, symbol: str, callback: Callable[[Kline], object] | EventCallback | None = None, *, interval: str = "1m"
    ) -> str:
        """Candles; returns the stream's name."""
        return await self._subscribe(stream(Kind.KLINE, symbol, interval), callback)

    async def subscribe_trade(
        self,
        symbol: str,
        callback: Callable[[Trade], object] | Callable[[AggTrade], object] | EventCallback | None = None,
        *,
        aggregate: bool = False,
    ) -> str:
        """Trades, or aggregate trades; returns the stream's name."""
        return await self._subscribe(stream(Kind.AGG_TRADE if aggregate else Kind.TRADE, symbol), callback)

    async def subscribe_book_ticker(
        self, symbol: str, callback: Callable[[BookTicker], object] | EventCallback | None = None
    ) -> str:
        """Best bid and ask; returns the stream's name."""
        return await self._subscribe(stream(Kind.BOOK_TICKER, symbol), callback)

    async def subscribe_depth(
        self, symbol: str, callback: Callable[[Depth], object] | EventCallback | None = None
    ) -> str:
        """The best levels of the order book, at each of its changes; returns the stream's name."""
        return await self._subscribe(stream(Kind.DEPTH, symbol), callback)

    async def unsubscribe(self, symbol: str, stream_type: str = "ticker", *, interval: str | None = None) -> None:
        """End one stream with all its callbacks; ``symbol`` may be the name that a subscribe call returned."""
        wanted = _named(symbol) if "@" in symbol else stream(stream_type, symbol, interval)
        if wanted is None or not self._connection.unsubscribe(wanted):
            raise CallerError(f"{symbol} ({stream_type}) is not subscribed", field="symbol")

    async def _subscribe(self, wanted: Stream, callback: Callable[..., object] | None) -> str:
        await self._connection.dispatchers.add(wanted, callback)
        return wanted.name


def _named(name: str) -> Stream | None:
    """The stream of a name that a subscribe call returned."""
    return next((found for venue in Venue if (found := parse_name(name, venue)) is not None), None)
