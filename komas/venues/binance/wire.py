"""Frames of Binance, spot and futures, to events (sans-I/O).

Every Struct here is one payload with the exchange's one-letter keys; none leaves this file. Keys that we do not know
are ignored, because Binance adds keys without notice; a frame that cannot be read is ``Unreadable``, which is the
caller's to count. Prices and quantities are JSON strings, as Binance writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from komas.model import market
from komas.model.kinds import Kind, Venue
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.names import parse_name
from komas.venues.core.ports import Unreadable
from komas.venues.core.words import cut

# Decimal("1E+999999") is finite and would print a megabyte; no price or volume of any market has 40 digits.
_DIGITS: Final = 40
_AHEAD_MS: Final = 60_000  # a candle has begun when it is told of; one that had not would hide those before it
_LONGEST: Final = 4_096  # characters that are looked at
_SHOWN: Final = 40  # characters of a bad one, in a complaint


# Ids and times stay below what a JSON double holds exactly; anything else is garbage, and would poison a count.
Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


_Code = Annotated[int, msgspec.Meta(gt=-(2**53), lt=2**53)]  # of an error: a small number, often negative


# RecursionError: nesting without end inside a key that we do not even read.
_BROKEN: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


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
    code: _Code | None = None
    msg: str | None = None
    e: str | None = None


class _MiniTicker(msgspec.Struct, gc=False):
    """``{"e":"24hrMiniTicker","E":1672515782136,"s":"BNBBTC","c":"0.0025","o":"0.0010","h":"0.0025",...}``."""

    E: Number
    s: str
    c: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's key
    v: str
    q: str


class _Ticker(_MiniTicker, gc=False):
    """``{"e":"24hrTicker","E":1672515782136,"s":"BNBBTC","p":"0.0015","P":"250.00","c":"0.0025","o":"0.0010",...}``."""

    p: str
    P: str


class _Bar(msgspec.Struct, gc=False):
    """``{"t":1672515780000,"T":1672515839999,"s":"BNBBTC","i":"1m","f":-1,"L":-1,"o":"0.0010","x":false,...}``."""

    t: Number
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741 - the exchange's key
    v: str
    n: Number
    x: bool
    q: str


class _Kline(msgspec.Struct, gc=False):
    """``{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{...}}``."""

    E: Number
    s: str
    k: _Bar


class _Trade(msgspec.Struct, gc=False):
    """``{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",...}``."""

    E: Number
    s: str
    t: Number
    p: str
    q: str
    m: bool


class _AggTrade(msgspec.Struct, gc=False):
    """``{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"m":true}``."""

    E: Number
    s: str
    a: Number
    p: str
    q: str
    f: Number
    l: Number  # noqa: E741 - the exchange's key
    m: bool


class _BookTicker(msgspec.Struct, gc=False):
    """``{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54"}``."""

    u: Number
    s: str
    b: str
    B: str
    a: str
    A: str


class _DepthUpdate(msgspec.Struct, gc=False):
    """``{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[]}``."""

    E: Number
    s: str
    U: Number
    u: Number
    b: tuple[tuple[Decimal, Decimal], ...]
    a: tuple[tuple[Decimal, Decimal], ...]


class Level(msgspec.Struct, array_like=True, gc=False):
    """``["0.0024","10",[]]``: price and quantity; some of Binance's deployments go on after these two."""

    price: Decimal
    quantity: Decimal


class _LongDepthUpdate(_DepthUpdate, gc=False):
    """``{...,"b":[["0.0024","10",[]]],"a":[]}``: as older deployments write it."""

    b: tuple[Level, ...]  # type: ignore[assignment]  # read where the other form is not what came
    a: tuple[Level, ...]  # type: ignore[assignment]  # likewise


class _AvgPrice(msgspec.Struct, gc=False):
    """``{"e":"avgPrice","E":1693907033000,"s":"BTCUSDT","i":"5m","w":"25776.86000000","T":1693907032213}``."""

    E: Number
    s: str
    i: str
    w: str
    T: Number


class _MarkPrice(msgspec.Struct, gc=False):
    """``{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15","i":"11784.62","r":"0.00038167",...}``."""

    E: Number
    s: str
    p: str
    r: str = ""
    T: Number = 0
    i: str | None = None
    P: str | None = None


_P = TypeVar("_P")
_AnyTicker = TypeVar("_AnyTicker", bound=market.Ticker)


class _Frame(msgspec.Struct, Generic[_P], gc=False):
    """``{"stream":"btcusdt@trade","data":{...}}``; by the stream's name its reader was found."""

    data: _P


_combined = msgspec.json.Decoder(Combined)
_BEGIN: Final = b'{"stream":"'  # as the exchange writes it: its keys come in this order, without blanks


def read_frame(text: bytes | str) -> Combined:
    """Take a frame apart, one level deep; ``Unreadable`` when it is not a JSON object of the expected types."""
    return _guarded(_combined, text)


def head_of(text: bytes) -> bytes:
    """How a frame begins, up to the end of its stream's name, where that comes first; else any bytes."""
    return text[: text.find(b'"', len(_BEGIN)) + 1]


def name_in(text: bytes) -> str:
    """The stream's name in a frame that cannot be read, where that comes first; else any text."""
    return head_of(text)[len(_BEGIN) : -1].decode(errors="replace")


class Reader:
    """Reads the data frames of one stream; ``head`` is how they begin, as a rule."""

    __slots__ = ("_before", "_kind", "_last", "head", "name", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.name = stream.name
        self.head = b'%b%b"' % (_BEGIN, self.name.encode())
        self._kind = _READERS[stream.kind]
        self._before: Any = self._kind.nothing
        self._last: Any = None

    def read(
        self, texts: Iterable[bytes], received_ms: int, complain: Callable[[Unreadable], None]
    ) -> list[market.Incoming]:
        """Read frames that came together; those that are broken, or another symbol's, are complained of and left out.

        Of states (prices, which a newer one replaces) only the newest becomes an event: no task runs in between.
        ``received_ms`` is komas's clock, milliseconds since the epoch, for the one kind that brings no time of its own.
        """
        decode, make, number = self._kind.decode, self._kind.make, self._kind.number
        stream, symbol = self.stream, self.stream.symbol
        payloads: list[Any] = []
        for text in texts:
            try:
                frame = decode(text)
            except _BROKEN as error:
                complain(Unreadable(str(error), stream=stream))
                continue
            payload = frame.data
            if payload.s == symbol:
                payloads.append(payload)
            else:
                complain(Unreadable(f"{stream} brought a fact of another symbol", stream=stream))
        if number is not None:
            payloads.sort(key=number)
            payloads.reverse()
        events: list[market.Incoming] = []
        before, last = self._before, self._last
        for payload in payloads:
            try:
                last = make(payload, stream, received_ms, before, last)
            except Unreadable as error:
                error.stream = stream
                complain(error)
                continue
            before = payload
            events.append(last)
            if number is not None:
                break
        self._before, self._last = before, last
        return events


def reader_of(name: str, venue: Venue = Venue.BINANCE) -> Reader | None:
    """Who reads a stream; ``None`` for one that komas does not know there."""
    stream = parse_name(name, venue)
    return None if stream is None else Reader(stream)


def _number(text: str) -> Decimal:
    if len(text) > _DIGITS:
        return _long_number(text)
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise _no_number(text) from None
    if not number.is_finite() or not -_DIGITS < number.adjusted() < _DIGITS:
        raise _no_number(text)
    return number


def _long_number(text: str) -> Decimal:
    """Read what has more digits than any market's number: zeros, perhaps, but not by the million."""
    if len(text) > _LONGEST:
        raise _no_number(text)
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise _no_number(text) from None
    check(number)
    return number


def _no_number(text: str) -> Unreadable:
    return Unreadable(f"{cut(text, _SHOWN)!r} is not a price or a quantity")


# A number that is as it was in the stream's frame before is not read again: two of three in the busiest capture are.
# So makers are given that frame, and the event that was made of it.


def _reads_ticker(made: type[_AnyTicker]) -> Callable[[_Ticker, Stream, int, _Ticker, _AnyTicker], _AnyTicker]:
    def read(frame: _Ticker, stream: Stream, _received_ms: int, before: _Ticker, last: _AnyTicker) -> _AnyTicker:
        return made(
            symbol=stream.symbol,
            price=last.price if frame.c == before.c else _number(frame.c),
            open=last.open if frame.o == before.o else _number(frame.o),
            high=last.high if frame.h == before.h else _number(frame.h),
            low=last.low if frame.l == before.l else _number(frame.l),
            volume=last.volume if frame.v == before.v else _number(frame.v),
            quote_volume=last.quote_volume if frame.q == before.q else _number(frame.q),
            price_change=last.price_change if frame.p == before.p else _number(frame.p),
            price_change_percent=last.price_change_percent if frame.P == before.P else _number(frame.P),
            timestamp=frame.E,
        )

    return read


def _read_avg_price(
    frame: _AvgPrice, stream: Stream, _received_ms: int, _before: object, _last: object
) -> market.AvgPrice:
    return market.AvgPrice(
        symbol=stream.symbol,
        price=_number(frame.w),
        averaging_interval=frame.i,
        last_trade_time=frame.T,
        timestamp=frame.E,
    )


def _read_mini_ticker(
    frame: _MiniTicker, stream: Stream, _received_ms: int, before: _MiniTicker, last: market.MiniTicker
) -> market.MiniTicker:
    return market.MiniTicker(
        symbol=stream.symbol,
        price=last.price if frame.c == before.c else _number(frame.c),
        open=last.open if frame.o == before.o else _number(frame.o),
        high=last.high if frame.h == before.h else _number(frame.h),
        low=last.low if frame.l == before.l else _number(frame.l),
        volume=last.volume if frame.v == before.v else _number(frame.v),
        quote_volume=last.quote_volume if frame.q == before.q else _number(frame.q),
        timestamp=frame.E,
    )


def _read_kline(frame: _Kline, stream: Stream, _received_ms: int, before: _Kline, last: market.Kline) -> market.Kline:
    bar, old = frame.k, before.k
    if bar.i != stream.interval:
        raise Unreadable(f"{stream} brought a candle of another length")
    if bar.t > frame.E + _AHEAD_MS:
        raise Unreadable(f"{stream} brought a candle of the future")
    return market.Kline(
        symbol=stream.symbol,
        interval=bar.i,
        timestamp=bar.t,
        open=last.open if bar.o == old.o else _number(bar.o),
        high=last.high if bar.h == old.h else _number(bar.h),
        low=last.low if bar.l == old.l else _number(bar.l),
        close=last.close if bar.c == old.c else _number(bar.c),
        volume=last.volume if bar.v == old.v else _number(bar.v),
        is_closed=bar.x,
        trades=bar.n,
        quote_volume=last.quote_volume if bar.q == old.q else _number(bar.q),
    )


def _read_trade(frame: _Trade, stream: Stream, _received_ms: int, before: _Trade, last: market.Trade) -> market.Trade:
    return market.Trade(
        symbol=stream.symbol,
        trade_id=frame.t,
        price=last.price if frame.p == before.p else _number(frame.p),
        quantity=last.quantity if frame.q == before.q else _number(frame.q),
        timestamp=frame.E,
        is_buyer_maker=frame.m,
    )


def _read_agg_trade(
    frame: _AggTrade, stream: Stream, _received_ms: int, before: _AggTrade, last: market.AggTrade
) -> market.AggTrade:
    return market.AggTrade(
        symbol=stream.symbol,
        trade_id=frame.a,
        price=last.price if frame.p == before.p else _number(frame.p),
        quantity=last.quantity if frame.q == before.q else _number(frame.q),
        first_trade_id=frame.f,
        last_trade_id=frame.l,
        timestamp=frame.E,
        is_buyer_maker=frame.m,
    )


def _read_book_ticker(
    frame: _BookTicker, stream: Stream, received_ms: int, before: _BookTicker, last: market.BookTicker
) -> market.BookTicker:
    return market.BookTicker(
        symbol=stream.symbol,
        bid_price=last.bid_price if frame.b == before.b else _number(frame.b),
        bid_quantity=last.bid_quantity if frame.B == before.B else _number(frame.B),
        ask_price=last.ask_price if frame.a == before.a else _number(frame.a),
        ask_quantity=last.ask_quantity if frame.A == before.A else _number(frame.A),
        update_id=frame.u,
        timestamp=received_ms,
    )


_depth = msgspec.json.Decoder(_Frame[_DepthUpdate])
_long_depth = msgspec.json.Decoder(_Frame[_LongDepthUpdate])


def _decode_depth(text: bytes) -> _Frame[_DepthUpdate]:
    """A frame of changes, in either form; one that is too long is not read: that alone would hold everything up."""
    if len(text) > limits.DEPTH_BYTES:
        raise msgspec.ValidationError(f"{len(text)} bytes are more than {limits.DEPTH_BYTES}, and are not read")
    try:
        return _depth.decode(text)
    except msgspec.ValidationError:
        update = _long_depth.decode(text).data
    bids, asks = plain_levels(update.b), plain_levels(update.a)
    return _Frame(_DepthUpdate(update.E, update.s, update.U, update.u, bids, asks))


def plain_levels(levels: Iterable[Level]) -> tuple[tuple[Decimal, Decimal], ...]:
    """Levels as pairs of price and quantity."""
    return tuple([(level.price, level.quantity) for level in levels])


def _read_depth(
    frame: _DepthUpdate, stream: Stream, _received_ms: int, _before: object, _last: object
) -> market.DepthUpdate:
    levels = max(len(frame.b), len(frame.a))
    if levels > limits.DEPTH_CHANGES:
        raise Unreadable(f"{stream} brought {levels} changes of a side at once; {limits.DEPTH_CHANGES} are read")
    check_levels(frame.b, frame.a)
    return market.DepthUpdate(
        symbol=stream.symbol, first=frame.U, last=frame.u, bids=frame.b, asks=frame.a, timestamp=frame.E
    )


def _read_mark_price(
    frame: _MarkPrice, stream: Stream, _received_ms: int, _before: object, _last: object
) -> market.MarkPrice:
    return market.MarkPrice(
        symbol=stream.symbol,
        price=_number(frame.p),
        index_price=None if frame.i is None else _number(frame.i),
        estimated_settle_price=None if frame.P is None else _number(frame.P),
        funding_rate=_number(frame.r) if frame.r else None,  # empty for contracts that are delivered
        next_funding_time=frame.T or None,
        timestamp=frame.E,
    )


class _Format(msgspec.Struct, frozen=True):
    """How frames of a kind are read: decoded, and made an event.

    ``nothing`` is a frame that no other one is like; ``number`` tells which state is the newest, and is ``None`` of
    kinds whose every frame counts.
    """

    decode: Callable[[bytes], _Frame[Any]]
    make: Callable[[Any, Stream, int, Any, Any], market.Incoming]
    nothing: object
    number: Callable[[Any], int] | None = None


def _nothing(payload: type[msgspec.Struct]) -> Any:  # noqa: ANN401 - any payload
    return payload(*[None] * len(payload.__struct_fields__))


_time = attrgetter("E")


def _ticker_format(made: type[market.Ticker]) -> _Format:
    return _Format(msgspec.json.Decoder(_Frame[_Ticker]).decode, _reads_ticker(made), _nothing(_Ticker), _time)


_READERS: Final = {
    Kind.TICKER: _ticker_format(market.Ticker),
    Kind.TICKER_1H: _ticker_format(market.Ticker1h),
    Kind.TICKER_4H: _ticker_format(market.Ticker4h),
    Kind.TICKER_1D: _ticker_format(market.Ticker1d),
    Kind.AVG_PRICE: _Format(msgspec.json.Decoder(_Frame[_AvgPrice]).decode, _read_avg_price, None, _time),
    Kind.MINI_TICKER: _Format(
        msgspec.json.Decoder(_Frame[_MiniTicker]).decode, _read_mini_ticker, _nothing(_MiniTicker), _time
    ),
    Kind.KLINE: _Format(msgspec.json.Decoder(_Frame[_Kline]).decode, _read_kline, _Kline(0, "", _nothing(_Bar))),
    Kind.TRADE: _Format(msgspec.json.Decoder(_Frame[_Trade]).decode, _read_trade, _nothing(_Trade)),
    Kind.AGG_TRADE: _Format(msgspec.json.Decoder(_Frame[_AggTrade]).decode, _read_agg_trade, _nothing(_AggTrade)),
    Kind.BOOK_TICKER: _Format(
        msgspec.json.Decoder(_Frame[_BookTicker]).decode, _read_book_ticker, _nothing(_BookTicker), attrgetter("u")
    ),
    Kind.DEPTH: _Format(_decode_depth, _read_depth, None),
    Kind.MARK_PRICE: _Format(msgspec.json.Decoder(_Frame[_MarkPrice]).decode, _read_mark_price, None, _time),
}

_T = TypeVar("_T")


def _guarded(decoder: msgspec.json.Decoder[_T], text: str | bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(text)
    except _BROKEN as error:
        raise Unreadable(str(error)) from error


def check(*numbers: Decimal) -> None:
    """Refuse what is a ``Decimal`` and yet no price or quantity: ``NaN``, ``Infinity``, ``1E+999999``."""
    for number in numbers:
        if not number.is_finite() or not -_DIGITS < number.adjusted() < _DIGITS or len(str(number)) > 2 * _DIGITS:
            raise _no_number(str(number))


def check_levels(*sides: tuple[tuple[Decimal, Decimal], ...]) -> None:
    """Refuse levels that are no prices and quantities."""
    for side in sides:
        for price, quantity in side:
            check(price, quantity)


class _Error(msgspec.Struct):
    """``{"code":2,"msg":"Invalid request: invalid stream"}``."""

    code: _Code | None = None
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
    return error.code, cut(error.msg or "no reason given")


_names = msgspec.json.Decoder(list[str])


def read_list(frame: Combined) -> list[str] | None:
    """The names that LIST_SUBSCRIPTIONS was answered with; ``None`` for another answer, or one that cannot be."""
    if len(bytes(frame.result)) > limits.LIST_BYTES:
        return None
    try:
        names = _guarded(_names, frame.result)
    except Unreadable:
        return None
    return names if len(names) <= limits.LIST_NAMES else None
