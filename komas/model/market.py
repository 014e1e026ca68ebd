"""Market events and notices: one tagged union, as users see it in ``data``. Sans-I/O.

Prices and quantities are ``Decimal`` and keep every digit that the exchange sent. Field names, order and meaning
are those of the user's document; ``timestamp`` is the exchange's event time in milliseconds, a candle's is its open
time, and a book ticker's, for which spot sends no time, is when komas received it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, TypeAlias, cast, overload

import msgspec

BOOK_LEVELS_PUBLISHED: Final = 100  # of an order book, a side, to subscribers
BOOK_LEVELS_ASKED: Final = 1_000  # a side, that a REST call may ask for

# What ``event[...]`` gives, for those who check types; what may be absent is only an ``object`` there.
_Amount: TypeAlias = Literal[
    "price",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "price_change",
    "price_change_percent",
    "quantity",
    "bid_price",
    "bid_quantity",
    "ask_price",
    "ask_quantity",
]
_Number: TypeAlias = Literal[
    "timestamp", "trade_id", "first_trade_id", "last_trade_id", "last_trade_time", "update_id", "trades"
]
_Text: TypeAlias = Literal["type", "symbol", "interval", "averaging_interval"]
_Flag: TypeAlias = Literal["is_closed", "is_buyer_maker"]
_Side: TypeAlias = Literal["bids", "asks"]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What all events share: each is a mapping of its fields, so ``event.price`` and ``event["price"]`` are the same.

    ``"type"`` is its first key. A field's name means the same type in every event.
    They hold nothing that could hold them, so the garbage collector need not look at them.
    """

    @overload
    def __getitem__(self, key: _Amount) -> Decimal: ...
    @overload
    def __getitem__(self, key: _Number) -> int: ...
    @overload
    def __getitem__(self, key: _Text) -> str: ...
    @overload
    def __getitem__(self, key: _Flag) -> bool: ...
    @overload
    def __getitem__(self, key: _Side) -> tuple[tuple[Decimal, Decimal], ...]: ...
    @overload
    def __getitem__(self, key: str) -> object: ...
    def __getitem__(self, key: str) -> object:
        """The value of a field; ``KeyError`` for what is none."""
        if key == "type":
            return self.__struct_config__.tag
        if key in self.__struct_fields__:
            return getattr(self, key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key == "type" or key in self.__struct_fields__

    def __iter__(self) -> Iterator[str]:
        return iter(("type", *self.__struct_fields__))

    def __len__(self) -> int:
        return 1 + len(self.__struct_fields__)

    def keys(self) -> KeysView[str]:
        """The names of the fields, ``"type"`` first."""
        return KeysView(cast("Mapping[str, object]", self))

    def values(self) -> ValuesView[object]:
        """The values of the fields, in the order of the names."""
        return ValuesView(cast("Mapping[str, object]", self))

    def items(self) -> ItemsView[str, object]:
        """The names of the fields with their values."""
        return ItemsView(cast("Mapping[str, object]", self))

    def get(self, key: str, default: object = None) -> object:
        """The value of a field, or ``default`` for what is none."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that method

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values that ``json.dumps`` takes; a ``Decimal`` becomes text, with all its digits."""
        return {key: _plain(value) for key, value in self.items()}


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return format(value, "f")
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value


Mapping.register(_Event)  # pandas, json and pattern matching ask for one; a Struct cannot inherit from it


class Ticker(_Event, frozen=True, kw_only=True, gc=False, tag="ticker"):
    """Statistics of the last 24 hours, once a second at most."""

    symbol: str
    price: Decimal
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    price_change: Decimal
    price_change_percent: Decimal
    timestamp: int


class Ticker1h(Ticker, frozen=True, kw_only=True, gc=False, tag="ticker_1h"):
    """Statistics of the last hour, once a second; the window begins on a whole minute."""


class Ticker4h(Ticker, frozen=True, kw_only=True, gc=False, tag="ticker_4h"):
    """Statistics of the last four hours, likewise."""


class Ticker1d(Ticker, frozen=True, kw_only=True, gc=False, tag="ticker_1d"):
    """Statistics of the last day, likewise: unlike ``Ticker``, whose window moves with each second."""


class AvgPrice(_Event, frozen=True, kw_only=True, gc=False, tag="avg_price"):
    """The average price of the last minutes; ``averaging_interval`` says how many (``5m``)."""

    symbol: str
    price: Decimal
    averaging_interval: str
    last_trade_time: int
    timestamp: int


class MiniTicker(_Event, frozen=True, kw_only=True, gc=False, tag="mini_ticker"):
    """The short form of the 24-hour statistics."""

    symbol: str
    price: Decimal
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    timestamp: int


class Kline(_Event, frozen=True, kw_only=True, gc=False, tag="kline"):
    """A candle; it is final when ``is_closed``, and ``timestamp`` is its open time."""

    symbol: str
    interval: str
    timestamp: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    is_closed: bool
    trades: int
    quote_volume: Decimal


class Trade(_Event, frozen=True, kw_only=True, gc=False, tag="trade"):
    """One trade; ``trade_id`` rises by one for each trade of the symbol."""

    symbol: str
    trade_id: int
    price: Decimal
    quantity: Decimal
    timestamp: int
    is_buyer_maker: bool


class AggTrade(_Event, frozen=True, kw_only=True, gc=False, tag="agg_trade"):
    """The fills of one taker order at one price; ``trade_id`` is the aggregate's."""

    symbol: str
    trade_id: int
    price: Decimal
    quantity: Decimal
    first_trade_id: int
    last_trade_id: int
    timestamp: int
    is_buyer_maker: bool


class BookTicker(_Event, frozen=True, kw_only=True, gc=False, tag="book_ticker"):
    """Best bid and ask; ``timestamp`` is komas's time of receipt, because spot sends none."""

    symbol: str
    bid_price: Decimal
    bid_quantity: Decimal
    ask_price: Decimal
    ask_quantity: Decimal
    update_id: int
    timestamp: int


class Depth(_Event, frozen=True, kw_only=True, gc=False, tag="depth"):
    """The best levels of an order book, best first, as ``(price, quantity)``; ``update_id`` is the book's."""

    symbol: str
    update_id: int
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]
    timestamp: int


class MarkPrice(_Event, frozen=True, kw_only=True, gc=False, tag="mark_price"):
    """A perpetual's mark price and funding, each second; ``funding_rate`` is a fraction (0.0001 is 0.01 %).

    ``next_funding_time`` is in milliseconds since the epoch; ``None`` where none is scheduled.
    """

    symbol: str
    price: Decimal
    index_price: Decimal | None
    estimated_settle_price: Decimal | None
    funding_rate: Decimal | None
    next_funding_time: int | None
    timestamp: int


Event: TypeAlias = (
    Ticker
    | MiniTicker
    | Kline
    | Trade
    | AggTrade
    | BookTicker
    | Depth
    | AvgPrice
    | Ticker1h
    | Ticker4h
    | Ticker1d
    | MarkPrice
)


class DepthUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in an order book from one update id to another, both included; for the book, not for subscribers.

    Levels are ``(price, quantity)``; a quantity of zero removes the level.
    """

    symbol: str
    first: int
    last: int
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]
    timestamp: int


Incoming: TypeAlias = Event | DepthUpdate


class Gap(msgspec.Struct, frozen=True, kw_only=True, rename={"first": "from", "last": "to"}):
    """Events of one stream that are missing: trade ids (candles: open times) from ``first`` to ``last``, both included.

    ``None`` where that end is not known. ``filled`` is whether the missing events were sent after all; ``reason`` says
    why they could not be asked for, where they were.
    """

    stream: str
    first: int | None
    last: int | None
    filled: bool = False
    reason: str | msgspec.UnsetType = msgspec.UNSET


class FeedState(StrEnum):
    """Where the conversation with the exchange stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The feed's state as subscribers see it; ``retry_in_s`` is the wait until the next dial, in seconds."""

    state: FeedState
    reason: str | None = None
    retry_in_s: float | None = None
    stream: str | None = None


class Health(StrEnum):
    """One word on a stream."""

    PENDING = "pending"  # asked for; nothing has come yet
    LIVE = "live"
    QUIET = "quiet"  # silent, as a quiet pair may be
    STALE = "stale"  # silent for longer than its own pace, or the exchange's promise, allows
    RECOVERING = "recovering"  # cut, or waiting behind a gap


class HealthNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A stream has become doubtful, or is well again; ``reason`` says why."""

    stream: str
    health: Health
    reason: str


class StreamList(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription has changed: these are its streams now."""

    streams: tuple[str, ...]


Notice: TypeAlias = Gap | FeedStatus | HealthNotice | StreamList
