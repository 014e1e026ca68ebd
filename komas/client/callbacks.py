"""Binance streams for Python programs, by callbacks: ``BinanceWebSocket``, as in the user's document."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Self, TypeAlias

import trio

from komas.client.streams import BACKLOG, Components, check_listed, check_refused, open_components
from komas.errors import CallerError, KomasError, SlowConsumer, VenueError
from komas.hub.hub import Hub, MarketSubscription
from komas.hub.overflow import Overflow
from komas.model.codec import Envelope
from komas.model.kinds import Kind
from komas.model.market import AggTrade, BookTicker, Depth, Event, FeedState, Gap, Kline, MiniTicker, Ticker, Trade
from komas.model.streams import Stream, stream
from komas.venues.binance.hosts import SPOT_STREAM
from komas.venues.binance.names import parse_name
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp

log = logging.getLogger(__name__)

GOODBYE_S: Final = 2.0  # for the Close frame and the tasks' ends

EventCallback: TypeAlias = Callable[[Event], object]
TickerCallback: TypeAlias = Callable[[Ticker], object] | Callable[[MiniTicker], object] | EventCallback


class CallbackError(KomasError):
    """A callback raised; ``stream`` is the stream whose event it was given, the cause is what it raised."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"a callback for {name} raised {type(error).__name__}: {error}")
        self.stream = name
        self.__cause__ = error


class BinanceWebSocket:
    """Binance with callbacks, which may be plain functions or coroutine functions.

    ``connect()`` starts a background task that lasts until ``disconnect()`` or the end of ``trio.run()``;
    ``run_forever()`` waits for it, and stops it when cancelled. Each stream's callbacks are called in order by a task
    of the stream's own, so a slow one delays no other. One that raises is reported to ``on_error`` as a
    ``CallbackError``. Prices and quantities are ``Decimal``; an event answers ``event.price`` and ``event["price"]``.
    """

    def __init__(
        self,
        url: str = SPOT_STREAM,
        *,
        rest_url: str | None = None,
        retry_policy: RetryPolicy | None = None,
        open_stream: OpenStream = open_tcp,
    ) -> None:
        self._open = partial(
            open_components, url, rest_url=rest_url, retry_policy=retry_policy, open_stream=open_stream
        )
        self._components: Components | None = None
        self._nursery: trio.Nursery | None = None
        self._starting = trio.Lock()
        self._ended = trio.Event()
        self._failure: BaseException | None = None
        self._on_connect: list[Callable[[], object]] = []
        self._on_disconnect: list[Callable[[], object]] = []
        self._on_error: list[Callable[[Exception], object]] = []
        self._on_message: list[EventCallback] = []
        self._on_gap: list[Callable[[Gap], object]] = []
        self._callbacks: dict[Stream, list[EventCallback]] = {}
        self._dispatchers: dict[Stream, trio.CancelScope] = {}

    # What the program hears

    def on_connect(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back at each connection to the exchange, the first included."""
        self._on_connect.append(callback)
        return callback

    def on_disconnect(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back when a connection is lost or let go."""
        self._on_disconnect.append(callback)
        return callback

    def on_error(self, callback: Callable[[Exception], object]) -> Callable[[Exception], object]:
        """Call back with a ``VenueError`` for a failed connection, a ``CallbackError`` for a callback that raised."""
        self._on_error.append(callback)
        return callback

    def on_message(self, callback: EventCallback) -> EventCallback:
        """Call back with every event of every stream."""
        self._on_message.append(callback)
        return callback

    def on_gap(self, callback: Callable[[Gap], object]) -> Callable[[Gap], object]:
        """Call back where trades or closed candles are missing."""
        self._on_gap.append(callback)
        return callback

    # What the program asks for

    async def connect(self) -> None:
        """Connect and wait until connected; tries for ever, or as ``retry_policy`` allows, then raises ``VenueError``.

        Cancelled or failed, it leaves nothing running that it has started.
        """
        async with self._starting:
            is_first = self._components is None
            components = self._components or await self._start()
        components.feed.connect()
        try:
            await components.feed.connected()
        except BaseException:
            if is_first:
                await self._stop()
            raise

    async def disconnect(self) -> None:
        """Let the connection and all subscriptions go; ``run_forever()`` returns."""
        async with self._starting:
            components = self._components
            await self._stop()
        if components is not None and components.was_connected:
            await self._tell(self._on_disconnect)

    async def run_forever(self) -> None:
        """Wait until ``disconnect()``; raises ``VenueError`` when the allowed attempts are used up."""
        if self._nursery is None and self._failure is None:
            raise CallerError("not connected; await connect() first")
        try:
            await self._ended.wait()
        finally:
            await self._stop()
        if self._failure is not None:
            raise self._failure

    async def _start(self) -> Components:
        await self._stop()  # one that is still being left
        self._ended, self._failure = trio.Event(), None
        started = trio.Event()
        # A system task, because this interface has no nursery to offer; _run() lets nothing escape into Trio.
        trio.lowlevel.spawn_system_task(self._run, started, name="BinanceWebSocket")
        with trio.CancelScope(shield=True):  # a few scheduler passes, and no wait on the outside
            await started.wait()
        if self._failure is not None:
            raise self._failure
        return self._opened()

    async def _stop(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel("let go")
            if _is_in(self._nursery):
                return  # a callback asks for it, and is waited for itself
            with trio.move_on_after(GOODBYE_S, shield=True):
                await self._ended.wait()

    async def __aenter__(self) -> Self:
        """Connect; the connection ends with the block."""
        await self.connect()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stop()

    async def subscribe_ticker(self, symbol: str, callback: TickerCallback | None = None, *, mini: bool = False) -> str:
        """24-hour statistics, in the short form with ``mini``; returns the stream's name."""
        return await self._subscribe(stream(Kind.MINI_TICKER if mini else Kind.TICKER, symbol), callback)

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
        wanted = parse_name(symbol) if "@" in symbol else stream(stream_type, symbol, interval)
        if wanted is None or wanted not in self._callbacks:
            raise CallerError(f"{symbol} ({stream_type}) is not subscribed", field="symbol")
        self._end(wanted)

    # What runs behind

    async def _subscribe(self, wanted: Stream, callback: Callable[..., object] | None) -> str:
        await check_listed(self._opened().listings, wanted)
        components, nursery = (
            self._opened(),
            self._nursery,
        )  # looked up after the wait: the connection may have been let go
        assert nursery is not None  # it lives as long as the components
        # No await until the dispatcher is asked for: two callers of one stream share it.
        callbacks = self._callbacks.setdefault(wanted, [])
        if callback is not None:
            callbacks.append(callback)
        components.hub.interest.pin([wanted])  # by the subscription itself: its dispatcher listens a little later
        try:
            if wanted not in self._dispatchers:
                self._dispatchers[wanted] = trio.CancelScope()
                await nursery.start(self._dispatch, components.hub, wanted, self._dispatchers[wanted])
            await components.feed.acknowledged([wanted])
        except BaseException:
            if callback is not None and callback in callbacks:
                callbacks.remove(callback)
            if not callbacks and self._callbacks.get(wanted) is callbacks:
                self._end(wanted)
            raise
        return wanted.name

    def _end(self, wanted: Stream) -> None:
        self._callbacks.pop(wanted, None)
        if (dispatcher := self._dispatchers.pop(wanted, None)) is not None:
            dispatcher.cancel("unsubscribed")
        if self._components is not None:
            self._components.hub.interest.unpin([wanted])

    def _opened(self) -> Components:
        if self._components is None:
            raise CallerError("not connected; await connect() first")
        return self._components

    async def _run(self, started: trio.Event) -> None:
        ended, nursery = self._ended, None
        try:
            async with self._open() as components, trio.open_nursery() as nursery:
                self._components, self._nursery = components, nursery
                components.start_in(nursery)
                nursery.start_soon(self._tell_states, components)
                started.set()
                try:
                    self._failure = await components.feed.given_up()
                finally:
                    self._components = None  # while the block is being left, nothing more can be asked for,
                    components.feed.disconnect()  # every task that waits for the feed gets the reason
                nursery.cancel_scope.cancel("the allowed attempts are used up")
        except trio.Cancelled:
            raise  # trio.run() is ending
        except BaseException as error:  # noqa: BLE001 - a bug; run_forever() raises it again
            self._failure = self._failure or error
        finally:
            if self._nursery is nursery:  # a later one may have begun
                self._nursery = None
                self._callbacks.clear()
                self._dispatchers.clear()
            started.set()
            ended.set()

    async def _tell_states(self, components: Components) -> None:
        async for status, failure in components.hub.states:
            is_connected = status.state is FeedState.CONNECTED
            if is_connected and not components.was_connected:
                components.was_connected = True
                await self._tell(self._on_connect)
            elif components.was_connected and not is_connected:
                components.was_connected = False
                await self._tell(self._on_disconnect)
            if status.state is FeedState.RECONNECTING and failure is not None:
                await self._tell(self._on_error, failure)

    async def _dispatch(
        self,
        hub: Hub,
        wanted: Stream,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with scope:
            while True:
                with hub.subscribe([wanted], capacity=BACKLOG, overflow=Overflow.DISCONNECT) as subscription:
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    try:
                        await self._deliver(wanted, subscription)
                    except SlowConsumer as error:
                        await self._tell(self._on_error, CallbackError(wanted.name, error))
                    except VenueError as error:
                        self._end(wanted)
                        await self._tell(self._on_error, error)

    async def _deliver(self, wanted: Stream, subscription: MarketSubscription) -> None:
        items = subscription.initial
        while True:
            for item in items:
                if isinstance(item, Envelope):
                    await self._tell(
                        [*self._on_message, *self._callbacks.get(wanted, ())], item.event, name=wanted.name
                    )
                elif isinstance(item.notice, Gap):
                    await self._tell(self._on_gap, item.notice, name=wanted.name)
                else:
                    check_refused(item.notice)
            items = (await subscription.receive()).items

    async def _tell(
        self, callbacks: Sequence[Callable[..., object]], *given: object, name: str = "the connection"
    ) -> None:
        """Call each; ``name`` is the stream that an error is reported with."""
        for callback in tuple(callbacks):
            try:
                await _call(callback, *given)
            except Exception as error:  # noqa: BLE001 - whatever a user's callback raises is reported, not spread
                await self._report(CallbackError(name, error))

    async def _report(self, error: CallbackError) -> None:
        for callback in tuple(self._on_error):
            try:
                await _call(callback, error)
            except Exception:
                log.exception("on_error raised")  # there is no handler for the failure of the error handler


def _is_in(nursery: trio.Nursery) -> bool:
    """Whether this is a task of a nursery, or of one inside it."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task.parent_nursery is not nursery:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is not None


async def _call(callback: Callable[..., object], *given: object) -> None:
    outcome = callback(*given)
    if inspect.isawaitable(outcome):
        await outcome
