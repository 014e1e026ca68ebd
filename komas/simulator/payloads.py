"""The JSON text of every event, in the key order that the exchange uses. Numbers that carry prices are strings."""

from __future__ import annotations

from typing import NamedTuple

from komas.simulator.book import Diff, Levels, Top
from komas.simulator.candles import Bar, Trade
from komas.simulator.fixed_point import UNIT, ratio, written

PERCENT = 100
FUNDING_MS = 8 * 3_600_000


class Aggregate(NamedTuple):
    """Trades of one taker order at one price, merged."""

    id: int
    price: int
    quantity: int
    first: int
    last: int
    time_ms: int
    buyer_is_maker: bool


class Window(NamedTuple):
    """What a ticker reports: the bar of its window, the price before it, and where it begins and ends."""

    bar: Bar
    before: int
    open_ms: int
    close_ms: int


def flag(value: bool) -> str:  # noqa: FBT001  # JSON has two words for it
    """The JSON word."""
    return "true" if value else "false"


def trade(symbol: str, fact: Trade, event_ms: int) -> bytes:
    """``<symbol>@trade``."""
    return (
        f'{{"e":"trade","E":{event_ms},"s":"{symbol}","t":{fact.id},"p":"{written(fact.price)}",'
        f'"q":"{written(fact.quantity)}","T":{fact.time_ms},"m":{flag(fact.buyer_is_maker)},"M":true}}'
    ).encode()


def agg_trade(symbol: str, fact: Aggregate, event_ms: int) -> bytes:
    """``<symbol>@aggTrade``."""
    return (
        f'{{"e":"aggTrade","E":{event_ms},"s":"{symbol}","a":{fact.id},"p":"{written(fact.price)}",'
        f'"q":"{written(fact.quantity)}","f":{fact.first},"l":{fact.last},"T":{fact.time_ms},'
        f'"m":{flag(fact.buyer_is_maker)},"M":true}}'
    ).encode()


def block_trade(symbol: str, fact: Trade, event_ms: int) -> bytes:
    """``<symbol>@blockTrade``; its ids are a sequence of their own."""
    return (
        f'{{"e":"blockTrade","E":{event_ms},"s":"{symbol}","t":{fact.id},"p":"{written(fact.price)}",'
        f'"q":"{written(fact.quantity)}","T":{fact.time_ms},"m":{flag(fact.buyer_is_maker)}}}'
    ).encode()


def kline(symbol: str, interval: str, bar: Bar, end_ms: int, event_ms: int, *, closed: bool) -> bytes:
    """``<symbol>@kline_<interval>``; ``end_ms`` is the start of the next bar."""
    return (
        f'{{"e":"kline","E":{event_ms},"s":"{symbol}","k":{{"t":{bar.open_ms},"T":{end_ms - 1},"s":"{symbol}",'
        f'"i":"{interval}","f":{bar.first},"L":{bar.last},"o":"{written(bar.open)}","c":"{written(bar.close)}",'
        f'"h":"{written(bar.high)}","l":"{written(bar.low)}","v":"{written(bar.volume)}","n":{bar.count},'
        f'"x":{flag(closed)},"q":"{written(bar.quote)}","V":"{written(bar.taker_volume)}",'
        f'"Q":"{written(bar.taker_quote)}","B":"0"}}}}'
    ).encode()


def mini_ticker(symbol: str, bar: Bar, event_ms: int) -> bytes:
    """``<symbol>@miniTicker``, and a row of ``!miniTicker@arr``."""
    return (
        f'{{"e":"24hrMiniTicker","E":{event_ms},"s":"{symbol}","c":"{written(bar.close)}","o":"{written(bar.open)}",'
        f'"h":"{written(bar.high)}","l":"{written(bar.low)}","v":"{written(bar.volume)}","q":"{written(bar.quote)}"}}'
    ).encode()


def percent(bar: Bar) -> str:
    """The change in percent, three decimals."""
    return f"{(bar.close - bar.open) * PERCENT / bar.open:.3f}" if bar.open else "0.000"


def mean(bar: Bar) -> int:
    """The average price, weighted by quantity."""
    return ratio(bar.quote, bar.volume) if bar.volume else bar.close


def ticker(symbol: str, window: Window, top: Top, last_quantity: int, event_ms: int) -> bytes:
    """``<symbol>@ticker``."""
    bar = window.bar
    return (
        f'{{"e":"24hrTicker","E":{event_ms},"s":"{symbol}","p":"{written(bar.close - bar.open)}",'
        f'"P":"{percent(bar)}","w":"{written(mean(bar))}","x":"{written(window.before)}","c":"{written(bar.close)}",'
        f'"Q":"{written(last_quantity)}","b":"{written(top.bid)}","B":"{written(top.bid_quantity)}",'
        f'"a":"{written(top.ask)}","A":"{written(top.ask_quantity)}",{_window(window)}}}'
    ).encode()


def rolling_ticker(symbol: str, interval: str, window: Window, event_ms: int) -> bytes:
    """``<symbol>@ticker_<window>``; its window opens on a whole minute."""
    bar = window.bar
    return (
        f'{{"e":"{interval}Ticker","E":{event_ms},"s":"{symbol}","p":"{written(bar.close - bar.open)}",'
        f'"P":"{percent(bar)}","w":"{written(mean(bar))}","c":"{written(bar.close)}",{_window(window)}}}'
    ).encode()


def _window(window: Window) -> str:
    bar = window.bar
    return (
        f'"o":"{written(bar.open)}","h":"{written(bar.high)}","l":"{written(bar.low)}","v":"{written(bar.volume)}",'
        f'"q":"{written(bar.quote)}","O":{window.open_ms},"C":{window.close_ms},"F":{bar.first},"L":{bar.last},'
        f'"n":{bar.count}'
    )


def book_ticker(symbol: str, update_id: int, top: Top) -> bytes:
    """``<symbol>@bookTicker``: no event type and no time, on spot."""
    return (
        f'{{"u":{update_id},"s":"{symbol}","b":"{written(top.bid)}","B":"{written(top.bid_quantity)}",'
        f'"a":"{written(top.ask)}","A":"{written(top.ask_quantity)}"}}'
    ).encode()


def levels(side: Levels) -> str:
    """Price levels as pairs of strings."""
    return "[" + ",".join(f'["{written(price)}","{written(quantity)}"]' for price, quantity in side) + "]"


def depth_update(symbol: str, diff: Diff, event_ms: int) -> bytes:
    """``<symbol>@depth``."""
    return (
        f'{{"e":"depthUpdate","E":{event_ms},"s":"{symbol}","U":{diff.first},"u":{diff.last},'
        f'"b":{levels(diff.bids)},"a":{levels(diff.asks)}}}'
    ).encode()


def partial_depth(update_id: int, bids: Levels, asks: Levels) -> bytes:
    """``<symbol>@depth<n>``, and the REST snapshot: no event type, no time, no symbol."""
    return f'{{"lastUpdateId":{update_id},"bids":{levels(bids)},"asks":{levels(asks)}}}'.encode()


def avg_price(symbol: str, bar: Bar, last_ms: int, event_ms: int) -> bytes:
    """``<symbol>@avgPrice``, over five minutes."""
    return (
        f'{{"e":"avgPrice","E":{event_ms},"s":"{symbol}","i":"5m","w":"{written(mean(bar))}","T":{last_ms}}}'
    ).encode()


def mark_price(symbol: str, mark: int, index: int, at_ms: int) -> bytes:
    """``<symbol>@markPrice`` of USD-M futures; funding is due at 00, 08 and 16 h UTC, at 0.01 % and the premium."""
    due_ms = (at_ms // FUNDING_MS + 1) * FUNDING_MS
    rate = UNIT // 10_000 + (mark - index) * UNIT // max(1, index)
    return (
        f'{{"e":"markPriceUpdate","E":{at_ms},"s":"{symbol}","p":"{written(mark)}","ap":"{written(mark)}",'
        f'"P":"{written(mark)}","i":"{written(index)}","r":"{written(rate)}","T":{due_ms},"st":1}}'
    ).encode()


def reference_price(symbol: str, price: int | None, at_ms: int) -> bytes:
    """``<symbol>@referencePrice``; the price may be null."""
    value = "null" if price is None else f'"{written(price)}"'
    return f'{{"e":"referencePrice","s":"{symbol}","r":{value},"t":{at_ms}}}'.encode()


def rest_trade(fact: Trade) -> str:
    """A row of REST ``trades``."""
    return (
        f'{{"id":{fact.id},"price":"{written(fact.price)}","qty":"{written(fact.quantity)}",'
        f'"quoteQty":"{written(fact.price * fact.quantity // UNIT)}","time":{fact.time_ms},'
        f'"isBuyerMaker":{flag(fact.buyer_is_maker)},"isBestMatch":true}}'
    )


def rest_agg_trade(fact: Aggregate) -> str:
    """A row of REST ``aggTrades``."""
    return (
        f'{{"a":{fact.id},"p":"{written(fact.price)}","q":"{written(fact.quantity)}","f":{fact.first},"l":{fact.last},'
        f'"T":{fact.time_ms},"m":{flag(fact.buyer_is_maker)},"M":true}}'
    )


def rest_kline(bar: Bar, end_ms: int) -> str:
    """A row of REST ``klines``: open, high, low, close, where the stream has open, close, high, low."""
    return (
        f'[{bar.open_ms},"{written(bar.open)}","{written(bar.high)}","{written(bar.low)}","{written(bar.close)}",'
        f'"{written(bar.volume)}",{end_ms - 1},"{written(bar.quote)}",{bar.count},"{written(bar.taker_volume)}",'
        f'"{written(bar.taker_quote)}","0"]'
    )
