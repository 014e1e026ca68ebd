"""The kinds of stream: everything that is true of a kind stands in one row here. Sans-I/O.

A new kind is a row of ``KINDS``, its event in ``market``, what its frames look like in the venue's ``wire``, and how
``komas watch`` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, StrEnum
from operator import attrgetter
from typing import Any, Final

import msgspec

from komas.model import market

EACH_SECOND_S: Final = 8.0  # the longest silence of what comes each second, whatever trades


class Venue(StrEnum):
    """The markets that komas knows, each with symbols, hosts and limits of its own."""

    BINANCE = "binance"
    BINANCE_USDM = "binance-usdm"


class Kind(StrEnum):
    """The kinds of stream, as users write them in ``stream_type``."""

    TICKER = "ticker"
    MINI_TICKER = "mini_ticker"
    KLINE = "kline"
    TRADE = "trade"
    AGG_TRADE = "agg_trade"
    BOOK_TICKER = "book_ticker"
    DEPTH = "depth"
    AVG_PRICE = "avg_price"
    TICKER_1H = "ticker_1h"
    TICKER_4H = "ticker_4h"
    TICKER_1D = "ticker_1d"
    MARK_PRICE = "mark_price"


class Order(Enum):
    """How the next event of a stream is told from an old one."""

    COUNTED = "counted"  # numbers rise by one: what is left out is missing
    CANDLES = "candles"  # each opens an interval after the one before, and grows until it is closed
    UPDATES = "updates"  # update ids rise, not by one
    TIMED = "timed"  # event times rise, or stay


class KindSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of one kind.

    ``suffix`` ends the stream's name (a candle's interval follows it). ``number`` is the exchange's own number of an
    event, rising within its stream. ``sequence`` is that number for events that must not be lost, ``None`` for states,
    of which a newer one replaces an older one. ``pace_s`` is the longest silence that the exchange promises, whatever
    trades. ``venues`` are those that have it; the first is meant where a user names none. ``kept_bytes`` is the memory
    that one kept event takes, with its bytes for SSE clients (measured; ``tests/hub/test_history_limit.py``).
    """

    event: type[market.Event]
    suffix: str
    number: Callable[[Any], int]
    order: Order
    sequence: Callable[[Any], int | None] = lambda _state: None
    venues: tuple[Venue, ...] = (Venue.BINANCE,)
    pace_s: float = math.inf
    kept_bytes: int = 0
    has_interval: bool = False
    is_filled: bool = False  # the exchange keeps what was missed, and gives it over REST
    is_state: bool = True  # the latest event is worth showing to a new subscriber
    is_price: bool = False  # may be read through /api/ws/sse/prices
    is_book: bool = False  # kept as an order book from changes
    needs_trades: bool = False  # nothing comes unless the symbol trades
    has_all_symbols: bool = False  # ``"symbols": ["*"]``


_id = attrgetter("trade_id")
_time = attrgetter("timestamp")
_update = attrgetter("update_id")


def _ticker(event: type[market.Event], suffix: str) -> KindSpec:
    return KindSpec(event=event, suffix=suffix, number=_time, order=Order.TIMED, is_price=True, needs_trades=True)


KINDS: Final[dict[Kind, KindSpec]] = {
    Kind.TICKER: msgspec.structs.replace(_ticker(market.Ticker, "ticker"), has_all_symbols=True),
    Kind.MINI_TICKER: msgspec.structs.replace(_ticker(market.MiniTicker, "miniTicker"), has_all_symbols=True),
    Kind.KLINE: KindSpec(
        event=market.Kline,
        suffix="kline_",
        number=_time,
        order=Order.CANDLES,
        sequence=lambda candle: candle.timestamp if candle.is_closed else None,
        kept_bytes=1370,
        has_interval=True,
        is_filled=True,
    ),
    Kind.TRADE: KindSpec(
        event=market.Trade,
        suffix="trade",
        number=_id,
        order=Order.COUNTED,
        sequence=_id,
        kept_bytes=750,
        is_filled=True,
        is_state=False,
        needs_trades=True,
    ),
    Kind.AGG_TRADE: KindSpec(
        event=market.AggTrade,
        suffix="aggTrade",
        number=_id,
        order=Order.COUNTED,
        sequence=_id,
        kept_bytes=890,
        is_filled=True,
        is_state=False,
        needs_trades=True,
    ),
    Kind.BOOK_TICKER: KindSpec(
        event=market.BookTicker, suffix="bookTicker", number=_update, order=Order.UPDATES, is_price=True
    ),
    Kind.DEPTH: KindSpec(event=market.Depth, suffix="depth@100ms", number=_update, order=Order.UPDATES, is_book=True),
    Kind.AVG_PRICE: KindSpec(event=market.AvgPrice, suffix="avgPrice", number=_time, order=Order.TIMED, is_price=True),
    Kind.TICKER_1H: _ticker(market.Ticker1h, "ticker_1h"),
    Kind.TICKER_4H: _ticker(market.Ticker4h, "ticker_4h"),
    Kind.TICKER_1D: _ticker(market.Ticker1d, "ticker_1d"),
    Kind.MARK_PRICE: KindSpec(
        event=market.MarkPrice,
        suffix="markPrice@1s",
        number=_time,
        order=Order.TIMED,
        venues=(Venue.BINANCE_USDM,),
        pace_s=EACH_SECOND_S,
        is_price=True,
    ),
}

BY_EVENT: Final[dict[type[market.Event], KindSpec]] = {spec.event: spec for spec in KINDS.values()}


def kinds(**wanted: object) -> tuple[Kind, ...]:
    """The kinds whose rows have these values: ``kinds(is_price=True)``."""
    return tuple(
        kind for kind, spec in KINDS.items() if all(getattr(spec, key) == value for key, value in wanted.items())
    )


def kinds_of(venue: Venue) -> frozenset[Kind]:
    """The kinds that a venue has."""
    return frozenset(kind for kind, spec in KINDS.items() if venue in spec.venues)
