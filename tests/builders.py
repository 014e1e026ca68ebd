"""Events, and frames of the exchange, for tests that do not care about most of their fields."""

from __future__ import annotations

import gc
import json
from decimal import Decimal

from komas.model.codec import Envelope
from komas.model.kinds import BY_EVENT, Kind
from komas.model.market import Event, Kline, Ticker, Trade
from komas.model.streams import Stream

TICKER = Stream(Kind.TICKER, "BTCUSDT")
TRADE = Stream(Kind.TRADE, "BTCUSDT")
KLINE = Stream(Kind.KLINE, "BTCUSDT", "1m")

MINUTE_MS = 60_000


def ticker(price: str = "1.50000000", *, symbol: str = "BTCUSDT", timestamp: int = 1) -> Ticker:
    """A ticker with one interesting number."""
    number = Decimal(price)
    return Ticker(
        symbol=symbol,
        price=number,
        open=number,
        high=number,
        low=number,
        volume=number,
        quote_volume=number,
        price_change=Decimal("-0.10000000"),
        price_change_percent=Decimal("-1.190"),
        timestamp=timestamp,
    )


EVENT_MS = 1_723_161_255_343


def trade(trade_id: int, price: str = "61837.63000000", event_ms: int = EVENT_MS) -> Trade:
    """A trade with one interesting number."""
    return Trade(
        symbol="BTCUSDT",
        trade_id=trade_id,
        price=Decimal(price),
        quantity=Decimal("0.02000000"),
        timestamp=event_ms,
        is_buyer_maker=True,
    )


def kline(minute: int, *, closed: bool = False, close: str = "1.00000000", trades: int = 3) -> Kline:
    """The candle of one minute since the epoch."""
    number = Decimal(close)
    return Kline(
        symbol="BTCUSDT",
        interval="1m",
        timestamp=minute * MINUTE_MS,
        open=number,
        high=number,
        low=number,
        close=number,
        volume=number,
        is_closed=closed,
        trades=trades,
        quote_volume=number,
    )


def enveloped(stream: Stream, event: Event, received_ms: int, epoch: str = "", *, backfilled: bool = False) -> Envelope:
    """An event on its way, with its own number, as the hub makes it."""
    return Envelope(stream, event, received_ms, BY_EVENT[type(event)].sequence(event), epoch, backfilled)


def trade_frame(trade_id: int, symbol: str = "BTCUSDT", event_ms: int = EVENT_MS) -> str:
    """A trade as the exchange sends it on ``/stream``."""
    data = {
        "e": "trade",
        "E": event_ms,
        "s": symbol,
        "t": trade_id,
        "p": "61837.63000000",
        "q": "0.02000000",
        "T": event_ms - 1,
        "m": True,
        "M": True,
    }
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":"))


def ticker_frame(symbol: str = "BTCUSDT", price: str = "61837.63000000", event_ms: int = 1) -> str:
    """A 24-hour ticker as the exchange sends it on ``/stream``."""
    numbers = dict.fromkeys("pPwxQbBaAohlvq", "1.00000000") | {"c": price}
    data = {"e": "24hrTicker", "E": event_ms, "s": symbol, "O": 0, "C": 1, "F": 1, "L": 2, "n": 2} | numbers
    return json.dumps({"stream": f"{symbol.lower()}@ticker", "data": data}, separators=(",", ":"))


def mark_price_frame(event_ms: int, symbol: str = "BTCUSDT") -> str:
    """A perpetual's mark price as USD-M futures send it on ``/market/stream``."""
    data = {"e": "markPriceUpdate", "E": event_ms, "s": symbol, "p": "61837.50000000", "ap": "61837.5",
            "P": "61836.10", "i": "61830.00000001", "r": "0.00010000", "T": 28_800_000, "st": 1}  # fmt: skip
    return json.dumps({"stream": f"{symbol.lower()}@markPrice@1s", "data": data})


def count_alive(kind: type) -> int:
    """How many objects of a type something still refers to: what has left, and is forgotten, is none of them."""
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())
