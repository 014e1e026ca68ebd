"""Frames of Binance spot to facts (thinks).

Every Struct here is one payload with the exchange's one-letter keys; none leaves this file. Keys that we do not know
are ignored, because Binance adds keys without notice; a frame that cannot be read raises ``Unreadable`` and is the
caller's to count.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final, TypeVar

import msgspec

from komas.model import market
from komas.model.streams import Kind, Stream, parse_name

# Decimal("1E+999999") is finite and would print a megabyte; no price or volume of any market has 40 digits.
_DIGITS: Final = 40


# Ids and times stay below what a JSON double holds exactly; anything else is garbage, and would poison a count.
Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Unreadable(ValueError):
    """A frame is not what its stream promises."""


class Combined(msgspec.Struct):
    """Any frame on ``/stream``: data, a reply, or an error in one of its two shapes.

    ``{"stream":"btcusdt@trade","data":{...}}``, ``{"result":null,"id":1}``,
    ``{"error":{"code":2,"msg":"Invalid request: ..."},"id":1}``, ``{"code":2,"msg":"...","id":1}``,
    ``{"e":"serverShutdown","E":1770000000000}``.
    """

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    code: int | None = None
    msg: str | None = None
    e: str | None = None


class _Ticker(msgspec.Struct):
    """``{"e":"24hrTicker","E":1672515782136,"s":"BNBBTC","p":"0.0015","P":"250.00","c":"0.0025","o":"0.0010",...}``."""

    E: Number
    s: str
    p: Decimal
    P: Decimal
    c: Decimal
    o: Decimal
    h: Decimal
    l: Decimal  # noqa: E741 - the exchange's key
    v: Decimal
    q: Decimal


class _MiniTicker(msgspec.Struct):
    """``{"e":"24hrMiniTicker","E":1672515782136,"s":"BNBBTC","c":"0.0025","o":"0.0010","h":"0.0025",...}``."""

    E: Number
    s: str
    c: Decimal
    o: Decimal
    h: Decimal
    l: Decimal  # noqa: E741 - the exchange's key
    v: Decimal
    q: Decimal


class _Bar(msgspec.Struct):
    """``{"t":1672515780000,"T":1672515839999,"s":"BNBBTC","i":"1m","f":-1,"L":-1,"o":"0.0010","x":false,...}``."""

    t: Number
    i: str
    o: Decimal
    c: Decimal
    h: Decimal
    l: Decimal  # noqa: E741 - the exchange's key
    v: Decimal
    n: Number
    x: bool
    q: Decimal


class _Kline(msgspec.Struct):
    """``{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{...}}``."""

    E: Number
    s: str
    k: _Bar


class _Trade(msgspec.Struct):
    """``{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",...}``."""

    E: Number
    s: str
    t: Number
    p: Decimal
    q: Decimal
    m: bool


class _AggTrade(msgspec.Struct):
    """``{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"m":true}``."""

    E: Number
    s: str
    a: Number
    p: Decimal
    q: Decimal
    f: Number
    l: Number  # noqa: E741 - the exchange's key
    m: bool


class _BookTicker(msgspec.Struct):
    """``{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54"}``."""

    u: Number
    s: str
    b: Decimal
    B: Decimal
    a: Decimal
    A: Decimal


class _DepthUpdate(msgspec.Struct):
    """``{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[]}``."""

    E: Number
    s: str
    U: Number
    u: Number
    b: tuple[tuple[Decimal, Decimal], ...]
    a: tuple[tuple[Decimal, Decimal], ...]


class _MarkPrice(msgspec.Struct):
    """``{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15","i":"11784.62","r":"0.00038167",...}``."""

    E: Number
    s: str
    p: Decimal
    r: str = ""
    T: Number = 0
    i: Decimal | None = None
    P: Decimal | None = None


_combined = msgspec.json.Decoder(Combined)
_ticker = msgspec.json.Decoder(_Ticker)
_mini_ticker = msgspec.json.Decoder(_MiniTicker)
_kline = msgspec.json.Decoder(_Kline)
_trade = msgspec.json.Decoder(_Trade)
_agg_trade = msgspec.json.Decoder(_AggTrade)
_book_ticker = msgspec.json.Decoder(_BookTicker)
_depth_update = msgspec.json.Decoder(_DepthUpdate)
_mark_price = msgspec.json.Decoder(_MarkPrice)


def read_frame(text: str | bytes) -> Combined:
    """Take a frame apart, one level deep; ``Unreadable`` when it is not a JSON object of the expected types."""
    return _guarded(_combined, text)


def read_event(name: str, data: msgspec.Raw, received_ms: int) -> tuple[Stream, market.Incoming] | None:
    """Read one data frame; ``None`` for a stream that komas does not know, ``Unreadable`` for broken contents.

    ``received_ms`` is komas's clock, milliseconds since the epoch, for the one kind that brings no time of its own.
    """
    stream = parse_name(name)
    if stream is None:
        return None
    event = _READERS[stream.kind](data, received_ms)
    if event.symbol != stream.symbol or (isinstance(event, market.Kline) and event.interval != stream.interval):
        raise Unreadable(f"{name} brought a fact of another stream")
    return stream, event


def _read_ticker(data: msgspec.Raw, _received_ms: int) -> market.Ticker:
    frame = _guarded(_ticker, data)
    check(frame.c, frame.o, frame.h, frame.l, frame.v, frame.q, frame.p, frame.P)
    return market.Ticker(
        symbol=frame.s,
        price=frame.c,
        open=frame.o,
        high=frame.h,
        low=frame.l,
        volume=frame.v,
        quote_volume=frame.q,
        price_change=frame.p,
        price_change_percent=frame.P,
        timestamp=frame.E,
    )


def _read_mini_ticker(data: msgspec.Raw, _received_ms: int) -> market.MiniTicker:
    frame = _guarded(_mini_ticker, data)
    check(frame.c, frame.o, frame.h, frame.l, frame.v, frame.q)
    return market.MiniTicker(
        symbol=frame.s,
        price=frame.c,
        open=frame.o,
        high=frame.h,
        low=frame.l,
        volume=frame.v,
        quote_volume=frame.q,
        timestamp=frame.E,
    )


def _read_kline(data: msgspec.Raw, _received_ms: int) -> market.Kline:
    frame = _guarded(_kline, data)
    bar = frame.k
    check(bar.o, bar.h, bar.l, bar.c, bar.v, bar.q)
    return market.Kline(
        symbol=frame.s,
        interval=bar.i,
        timestamp=bar.t,
        open=bar.o,
        high=bar.h,
        low=bar.l,
        close=bar.c,
        volume=bar.v,
        is_closed=bar.x,
        trades=bar.n,
        quote_volume=bar.q,
    )


def _read_trade(data: msgspec.Raw, _received_ms: int) -> market.Trade:
    frame = _guarded(_trade, data)
    check(frame.p, frame.q)
    return market.Trade(
        symbol=frame.s, trade_id=frame.t, price=frame.p, quantity=frame.q, timestamp=frame.E, is_buyer_maker=frame.m
    )


def _read_agg_trade(data: msgspec.Raw, _received_ms: int) -> market.AggTrade:
    frame = _guarded(_agg_trade, data)
    check(frame.p, frame.q)
    return market.AggTrade(
        symbol=frame.s,
        trade_id=frame.a,
        price=frame.p,
        quantity=frame.q,
        first_trade_id=frame.f,
        last_trade_id=frame.l,
        timestamp=frame.E,
        is_buyer_maker=frame.m,
    )


def _read_book_ticker(data: msgspec.Raw, received_ms: int) -> market.BookTicker:
    frame = _guarded(_book_ticker, data)
    check(frame.b, frame.B, frame.a, frame.A)
    return market.BookTicker(
        symbol=frame.s,
        bid_price=frame.b,
        bid_quantity=frame.B,
        ask_price=frame.a,
        ask_quantity=frame.A,
        update_id=frame.u,
        timestamp=received_ms,
    )


def _read_depth(data: msgspec.Raw, _received_ms: int) -> market.DepthUpdate:
    frame = _guarded(_depth_update, data)
    check_levels(frame.b, frame.a)
    return market.DepthUpdate(
        symbol=frame.s, first=frame.U, last=frame.u, bids=frame.b, asks=frame.a, timestamp=frame.E
    )


def _read_mark_price(data: msgspec.Raw, _received_ms: int) -> market.MarkPrice:
    frame = _guarded(_mark_price, data)
    try:
        funding = Decimal(frame.r) if frame.r else None  # empty for contracts that are delivered
    except ArithmeticError as error:
        raise Unreadable(f"{frame.r[:40]!r} is not a funding rate") from error
    check(*(number for number in (frame.p, frame.i, frame.P, funding) if number is not None))
    return market.MarkPrice(
        symbol=frame.s,
        price=frame.p,
        index_price=frame.i,
        estimated_settle_price=frame.P,
        funding_rate=funding,
        next_funding_time=frame.T or None,
        timestamp=frame.E,
    )


_READERS: Final[dict[Kind, Callable[[msgspec.Raw, int], market.Incoming]]] = {
    Kind.TICKER: _read_ticker,
    Kind.MINI_TICKER: _read_mini_ticker,
    Kind.KLINE: _read_kline,
    Kind.TRADE: _read_trade,
    Kind.AGG_TRADE: _read_agg_trade,
    Kind.BOOK_TICKER: _read_book_ticker,
    Kind.DEPTH: _read_depth,
    Kind.MARK_PRICE: _read_mark_price,
}

_T = TypeVar("_T")


def _guarded(decoder: msgspec.json.Decoder[_T], text: str | bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # RecursionError: nesting without end inside a key that we do not even read.
        raise Unreadable(str(error)) from error


def check(*numbers: Decimal) -> None:
    """Refuse what is a ``Decimal`` and yet no price or quantity: ``NaN``, ``Infinity``, ``1E+999999``."""
    for number in numbers:
        if not number.is_finite() or not -_DIGITS < number.adjusted() < _DIGITS or len(str(number)) > 2 * _DIGITS:
            raise Unreadable(f"{number!r} is not a price or a quantity")


def check_levels(*sides: tuple[tuple[Decimal, Decimal], ...]) -> None:
    """Refuse levels that are no prices and quantities."""
    for side in sides:
        for price, quantity in side:
            check(price, quantity)


class _Error(msgspec.Struct):
    """``{"code":2,"msg":"Invalid request: invalid stream"}``."""

    code: int | None = None
    msg: str | None = None


_error = msgspec.json.Decoder(_Error)


def is_error(frame: Combined) -> bool:
    """Whether a reply says no, in either shape."""
    return frame.code is not None or bytes(frame.error) not in (b"", b"null")


def read_error(frame: Combined) -> tuple[int | None, str]:
    """Code and words of an error reply, which the documents print flat and the wire nests."""
    error = _Error(frame.code, frame.msg)
    if bytes(frame.error)[:1] == b"{":
        try:
            error = _guarded(_error, frame.error)
        except Unreadable:
            error = _Error(None, "the exchange's words cannot be read")
    return error.code, error.msg or "no reason given"


_names = msgspec.json.Decoder(list[str])


def read_list(frame: Combined) -> list[str] | None:
    """The names that LIST_SUBSCRIPTIONS was answered with; ``None`` for another answer."""
    try:
        return _guarded(_names, frame.result)
    except Unreadable:
        return None
