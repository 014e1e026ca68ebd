"""Binance streams for Python programs, by iteration: ``open_binance``. By callbacks: ``komas.client.callbacks``.

Both stand on the server's own feed and hub, so they reconnect, reconcile and count like it. Nothing is dropped for a
slow consumer: one that falls ``BACKLOG`` events behind gets ``SlowConsumer``, because a trade lost in silence is worse
than an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Generic, Self, TypeVar

import trio

from komas.errors import CallerError, Cause, VenueError
from komas.hub.hub import Hub, MarketSubscription
from komas.hub.overflow import Item, Overflow
from komas.model.codec import Envelope
from komas.model.kinds import Kind
from komas.model.market import (
    AggTrade,
    BookTicker,
    Depth,
    Event,
    FeedState,
    FeedStatus,
    Gap,
    Kline,
    MiniTicker,
    Notice,
    Ticker,
    Trade,
)
from komas.model.streams import Stream, stream
from komas.venues.binance import limits
from komas.venues.binance.connection import BinanceConnection
from komas.venues.binance.hosts import SPOT_STREAM, check_base, rest_beside
from komas.venues.binance.listings import Listings
from komas.venues.binance.market import BinanceMarket, MarketOptions
from komas.venues.core.feed import Feed
from komas.venues.core.rest import Rest, open_rest
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.websocket import OpenStream, open_tcp

STATES: Final = 1024  # states of the feed that wait for a slow on_connect; an outage makes two or three in ten seconds
BACKLOG: Final = 2**16  # events; some forty seconds of the busiest second ever captured

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
                    self._on_gap(item.notice)
            try:
                self._waiting.extend((await self._subscription.receive()).items)
            except trio.EndOfChannel:
                raise VenueError("the connection was let go", cause=Cause.CLOSED) from None


class Binance:
    """An open conversation with Binance; made by ``open_binance()``."""

    def __init__(self, hub: Hub, feed: Feed[BinanceConnection], listings: Listings) -> None:
        self._hub = hub
        self._feed = feed
        self._listings = listings

    @property
    def state(self) -> FeedState:
        """Where the conversation stands."""
        return self._feed.state

    def ticker(self, symbol: str) -> AbstractAsyncContextManager[Events[Ticker]]:
        """24-hour statistics, once a second at most."""
        return self._events(stream(Kind.TICKER, symbol), None)

    def mini_ticker(self, symbol: str) -> AbstractAsyncContextManager[Events[MiniTicker]]:
        """The short form of the 24-hour statistics."""
        return self._events(stream(Kind.MINI_TICKER, symbol), None)

    def klines(
        self, symbol: str, interval: str = "1m", *, on_gap: Callable[[Gap], object] | None = None
    ) -> AbstractAsyncContextManager[Events[Kline]]:
        """Candles; ``on_gap`` is called, in order, where closed ones are missing."""
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

    @asynccontextmanager
    async def _events(self, wanted: Stream, on_gap: Callable[[Gap], object] | None) -> AsyncIterator[Events[E]]:
        await check_listed(self._listings, wanted)
        with self._hub.subscribe([wanted], capacity=BACKLOG, overflow=Overflow.DISCONNECT) as subscription:
            await self._feed.acknowledged([wanted])
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
    host and port). Entering does not wait for the connection; entering a stream's block does. What the block raises
    comes out as it is, not in a group; the block ends with ``VenueError`` when the attempts of ``retry_policy``
    are used up.
    """
    failure: BaseException | None = None
    async with open_components(
        url, rest_url=rest_url, retry_policy=retry_policy, open_stream=open_stream
    ) as components:
        feed = components.feed
        async with trio.open_nursery() as nursery:
            components.start_in(nursery)
            feed.connect()

            async def give_up() -> None:
                nonlocal failure
                failure = await feed.given_up()
                nursery.cancel_scope.cancel("the allowed attempts are used up")

            nursery.start_soon(give_up)
            try:
                yield Binance(components.hub, feed, components.listings)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery's group
                failure = error
            finally:
                feed.disconnect()  # calls that still wait get an error
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
    """The feed and its hub, for one program."""

    def __init__(self, rest: Rest, url: str, retry_policy: RetryPolicy | None, open_stream: OpenStream) -> None:
        self.hub = _Hub()
        self.was_connected = False  # as far as callbacks have been told
        self._market = BinanceMarket(
            limits.SPOT,
            rest,
            sink=self.hub,
            interest=self.hub.interest,
            options=MarketOptions(url=url, retry_policy=retry_policy or RetryPolicy(), open_stream=open_stream),
        )
        self.listings = self._market.listings
        self.feed = self._market.feed
        self.hub.failure = lambda: self.feed.failure

    def start_in(self, nursery: trio.Nursery) -> None:
        """Start what runs behind."""
        self._market.start_in(nursery)
        nursery.start_soon(self.hub.interest.sweep, name="interest sweeper")


@asynccontextmanager
async def open_components(
    url: str, *, rest_url: str | None, retry_policy: RetryPolicy | None, open_stream: OpenStream
) -> AsyncIterator[Components]:
    """The components that both clients stand on."""
    check_base(url)
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(
            open_rest(
                rest_url or rest_beside(url),
                weight_header=limits.WEIGHT_HEADER,
                weight_per_minute=limits.WEIGHT_PER_MINUTE,
            )
        )
        yield Components(rest, url, retry_policy, open_stream)


def check_refused(notice: Notice) -> None:
    """Raise ``VenueError`` for the notice that the exchange refused a stream."""
    if isinstance(notice, FeedStatus) and notice.stream is not None:
        raise VenueError(f"the exchange refused {notice.stream}: {notice.reason}", cause=Cause.REFUSED)


async def check_listed(listings: Listings, wanted: Stream) -> None:
    """Raise ``CallerError`` for a symbol that the exchange does not list, as far as it answers."""
    if await listings.unknown([wanted.symbol]):
        raise CallerError(f"{wanted.symbol} is not a symbol of the exchange", field="symbol")
