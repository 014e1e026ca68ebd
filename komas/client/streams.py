"""Binance streams for Python programs, by iteration: ``open_binance``. By callbacks: ``komas.client.callbacks``.

Both stand on the server's own feed and hub, so they reconnect, reconcile and count like it. Nothing is dropped for a
slow consumer: one that falls ``BACKLOG`` events behind gets ``SlowConsumer``, because a trade lost in silence is worse
than an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Generic, Self, TypeVar

import trio

from komas.client.callback_registry import call_one
from komas.errors import CallerError, Cause, VenueError
from komas.hub.hub import Hub, MarketSubscription
from komas.hub.overflow import Item, Overflow
from komas.model.codec import Envelope
from komas.model.kinds import Kind, Venue
from komas.model.market import (
    AggTrade,
    AvgPrice,
    BookTicker,
    Depth,
    Event,
    FeedState,
    FeedStatus,
    Gap,
    Kline,
    MarkPrice,
    MiniTicker,
    Notice,
    Ticker,
    Trade,
)
from komas.model.streams import Stream, stream
from komas.venues.binance import limits, limits_usdm
from komas.venues.binance.connection import BinanceConnection
from komas.venues.binance.hosts import SPOT_STREAM, Hosts, check_base, complete
from komas.venues.binance.listings import Listings
from komas.venues.binance.market import BinanceMarket, MarketOptions, open_market
from komas.venues.core.feed import Feed
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp

STATES: Final = 1024  # states of the feed that wait for a slow on_connect; an outage makes two or three in ten seconds
BACKLOG: Final = 2**16  # events; some forty seconds of the busiest second ever captured

_ROLLING: Final = {"1h": Kind.TICKER_1H, "4h": Kind.TICKER_4H, "1d": Kind.TICKER_1D}

E = TypeVar("E", bound=Event)


class Events(Generic[E]):
    """The events of one stream, in order: ``async for event in events``."""

    def __init__(self, subscription: MarketSubscription, on_gap: Callable[[Gap], object] | None) -> None:
        self._subscription = subscription
        self._on_gap = on_gap
        self._waiting: deque[Item] = deque(subscription.initial)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Wait for the next event.

        Raises ``SlowConsumer`` when more than ``BACKLOG`` events were left waiting, ``VenueError`` when the exchange
        refuses the stream after all, and once the block of ``open_binance()`` was left.
        """
        while True:
            while self._waiting:
                item = self._waiting.popleft()
                if isinstance(item, Envelope):
                    return item.event  # type: ignore[return-value]  # a stream's kind decides the type of its events
                check_refused(item.notice)
                if self._on_gap is not None and isinstance(item.notice, Gap):
                    await call_one(self._on_gap, item.notice)
            try:
                self._waiting.extend((await self._subscription.receive()).items)
            except trio.EndOfChannel:
                raise VenueError("the connection was let go", cause=Cause.CLOSED) from None


class Binance:
    """An open conversation with Binance; made by ``open_binance()``."""

    def __init__(self, components: Components) -> None:
        self._components = components

    @property
    def state(self) -> FeedState:
        """Where the conversation with the spot market stands."""
        return self._components.feed.state

    def ticker(self, symbol: str) -> AbstractAsyncContextManager[Events[Ticker]]:
        """24-hour statistics, once a second at most."""
        return self._events(stream(Kind.TICKER, symbol), None)

    def rolling_ticker(self, symbol: str, window: str = "1h") -> AbstractAsyncContextManager[Events[Ticker]]:
        """Statistics of the last ``1h``, ``4h`` or ``1d``, once a second."""
        return self._events(stream(rolling_kind(window), symbol), None)

    def mini_ticker(self, symbol: str) -> AbstractAsyncContextManager[Events[MiniTicker]]:
        """The short form of the 24-hour statistics."""
        return self._events(stream(Kind.MINI_TICKER, symbol), None)

    def klines(
        self, symbol: str, interval: str = "1m", *, on_gap: Callable[[Gap], object] | None = None
    ) -> AbstractAsyncContextManager[Events[Kline]]:
        """Candles; ``on_gap`` (plain, or a coroutine function) is called, in order, where closed ones are missing."""
        return self._events(stream(Kind.KLINE, symbol, interval), on_gap)

    def trades(
        self, symbol: str, *, on_gap: Callable[[Gap], object] | None = None
    ) -> AbstractAsyncContextManager[Events[Trade]]:
        """Every trade, by rising ``trade_id``; ``on_gap`` is called, in order, where ids are missing."""
        return self._events(stream(Kind.TRADE, symbol), on_gap)

    def agg_trades(
        self, symbol: str, *, on_gap: Callable[[Gap], object] | None = None
    ) -> AbstractAsyncContextManager[Events[AggTrade]]:
        """Aggregate trades, by rising ``trade_id``; ``on_gap`` is called, in order, where ids are missing."""
        return self._events(stream(Kind.AGG_TRADE, symbol), on_gap)

    def book_ticker(self, symbol: str) -> AbstractAsyncContextManager[Events[BookTicker]]:
        """Best bid and ask."""
        return self._events(stream(Kind.BOOK_TICKER, symbol), None)

    def depth(self, symbol: str) -> AbstractAsyncContextManager[Events[Depth]]:
        """The best hundred levels of the order book, at each of its changes."""
        return self._events(stream(Kind.DEPTH, symbol), None)

    def avg_price(self, symbol: str) -> AbstractAsyncContextManager[Events[AvgPrice]]:
        """The average price of the last minutes."""
        return self._events(stream(Kind.AVG_PRICE, symbol), None)

    def mark_price(self, symbol: str) -> AbstractAsyncContextManager[Events[MarkPrice]]:
        """A perpetual's mark price and funding, each second; of the USD-M futures, which are connected to for it."""
        return self._events(stream(Kind.MARK_PRICE, symbol), None)

    @asynccontextmanager
    async def _events(self, wanted: Stream, on_gap: Callable[[Gap], object] | None) -> AsyncIterator[Events[E]]:
        market = self._components.market(wanted.venue)
        await check_listed(market.listings, wanted)
        hub = self._components.hub
        with hub.subscribe([wanted], capacity=BACKLOG, overflow=Overflow.DISCONNECT) as subscription:
            await market.feed.acknowledged([wanted])
            yield Events(subscription, on_gap)


@asynccontextmanager
async def open_binance(
    url: str = SPOT_STREAM,
    *,
    rest_url: str | None = None,
    retry_policy: RetryPolicy | None = None,
    open_stream: OpenStream = open_tcp,
) -> AsyncIterator[Binance]:
    """Open a conversation with Binance, kept connected while the block lasts.

    Symbols are checked against ``rest_url`` where it answers (default: Binance's, beside another ``url`` the same
    host and port); the hosts of USD-M futures are those that belong to ``url``. Entering does not wait for the
    connection; entering a stream's block does. What the block raises comes out as it is, not in a group; the block ends
    with ``VenueError`` when the attempts of ``retry_policy`` are used up. ``CallerError`` outside of ``trio.run()``.
    """
    check_trio()
    failure: BaseException | None = None
    async with (
        open_components(url, rest_url=rest_url, retry_policy=retry_policy, open_stream=open_stream) as components,
        trio.open_nursery() as nursery,
    ):
        components.start_in(nursery)
        components.connect()

        async def give_up() -> None:
            nonlocal failure
            failure = await components.given_up()
            nursery.cancel_scope.cancel("the allowed attempts are used up")

        nursery.start_soon(give_up)
        try:
            yield Binance(components)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery's group
            failure = error
        finally:
            components.disconnect()  # calls that still wait get an error
            components.hub.drain()
        nursery.cancel_scope.cancel("the block was left")
    if failure is not None:
        raise failure


class _Hub(Hub):
    """A hub that also keeps each state of the feed, and why, in order: subscribers are told the newest alone."""

    def __init__(self) -> None:
        super().__init__(linger_s=0.0)
        self._told, self.states = trio.open_memory_channel[tuple[FeedStatus, VenueError | None]](STATES)
        self.failure: Callable[[], VenueError | None] = lambda: None

    def publish_status(self, status: FeedStatus) -> None:
        """Put a change of state into every subscription, and into ``states``."""
        super().publish_status(status)
        with suppress(trio.WouldBlock):
            self._told.send_nowait((status, self.failure()))


class Components:
    """The feeds and their hub, for one program: spot from the start, USD-M futures from their first stream on."""

    def __init__(self, hub: _Hub, markets: Mapping[Venue, BinanceMarket]) -> None:
        self.hub = hub
        self.was_connected = False  # as far as callbacks have been told
        self.feed = markets[Venue.BINANCE].feed
        self._markets = markets
        self._running: list[BinanceMarket] = []
        self._nursery: trio.Nursery | None = None  # while markets may be started
        self._failure: VenueError | None = None
        self._gave_up = trio.Event()
        hub.failure = lambda: self.feed.failure

    def start_in(self, nursery: trio.Nursery) -> None:
        """Start what runs behind."""
        self._nursery = nursery
        nursery.start_soon(self.hub.interest.sweep, name="interest sweeper")
        self.market(Venue.BINANCE)

    def market(self, venue: Venue) -> BinanceMarket:
        """One of the markets; it runs, and is connected as the others are, from the first time that it is asked for."""
        market = self._markets[venue]
        if self._nursery is not None and market not in self._running:
            self._running.append(market)
            market.start_in(self._nursery)
            self._nursery.start_soon(self._watch, market.feed)
            if venue is not Venue.BINANCE:
                market.feed.connect()
        return market

    def connect(self) -> None:
        """Open the connections; they are kept up until ``disconnect()``."""
        for market in self._running:
            market.feed.connect()

    def disconnect(self) -> None:
        """Close the connections, for good."""
        self._nursery = None
        for market in self._running:
            market.feed.disconnect()

    async def given_up(self) -> VenueError:
        """Wait until the allowed attempts of one market are used up; returns its last failure."""
        await self._gave_up.wait()
        assert self._failure is not None
        return self._failure

    async def _watch(self, feed: Feed[BinanceConnection]) -> None:
        self._failure = await feed.given_up()
        self._gave_up.set()


@asynccontextmanager
async def open_components(
    url: str, *, rest_url: str | None, retry_policy: RetryPolicy | None, open_stream: OpenStream
) -> AsyncIterator[Components]:
    """The components that both clients stand on."""
    check_base(url)
    hosts = complete({Venue.BINANCE: Hosts(url, rest_url or ""), Venue.BINANCE_USDM: Hosts()})
    hub = _Hub()
    markets: dict[Venue, BinanceMarket] = {}
    async with AsyncExitStack() as stack:
        for spec in (limits.SPOT, limits_usdm.USD_M):
            own = hosts[spec.venue]
            options = MarketOptions(
                url=own.stream,
                is_primary=spec is limits.SPOT,
                retry_policy=retry_policy or RetryPolicy(),
                open_stream=open_stream,
            )
            markets[spec.venue] = await stack.enter_async_context(
                open_market(spec, own.rest, sink=hub, interest=hub.interest, options=options)
            )
        yield Components(hub, markets)


def check_trio() -> None:
    """Raise ``CallerError`` where there is no Trio, and say how to come by it."""
    if not trio.lowlevel.in_trio_run():
        raise CallerError(
            "komas runs under Trio, and this is no Trio program: start it with trio.run(main); "
            "from asyncio or a notebook, await asyncio.to_thread(trio.run, main)"
        )


def rolling_kind(window: str) -> Kind:
    """The statistics of a window; ``CallerError`` names those there are."""
    try:
        return _ROLLING[window]
    except KeyError:
        raise CallerError(f"unknown window {window!r}; one of: {' '.join(_ROLLING)}", field="window") from None


def check_refused(notice: Notice) -> None:
    """Raise ``VenueError`` for the notice that the exchange refused a stream."""
    if isinstance(notice, FeedStatus) and notice.stream is not None:
        raise VenueError(f"the exchange refused {notice.stream}: {notice.reason}", cause=Cause.REFUSED)


async def check_listed(listings: Listings, wanted: Stream) -> None:
    """Raise ``CallerError`` for a symbol that the exchange does not list, as far as it answers."""
    if await listings.unknown([wanted.symbol]):
        raise CallerError(f"{wanted.symbol} is not a symbol of the exchange", field="symbol")
