"""What Binance's REST host keeps of a stream, page by page: its rows as events.

Every Struct here is one row with the exchange's keys; none leaves this file.
"""

from __future__ import annotations

from decimal import Decimal
from operator import itemgetter
from typing import Final

import msgspec

from komas.model.kinds import Kind
from komas.model.market import AggTrade, Event, Kline, Trade
from komas.model.streams import Stream, next_number
from komas.venues.binance.wire import Number, check
from komas.venues.core.numbering import settled
from komas.venues.core.ports import Unreadable
from komas.venues.core.rest import Rest

ROWS: Final = 1000  # of one answer, at most


class TradeRow(msgspec.Struct):
    """``{"id":28457,"price":"4.00000100","qty":"12.00000000","time":1499865549590,"isBuyerMaker":true,...}``."""

    id: Number
    price: Decimal
    qty: Decimal
    time: Number
    isBuyerMaker: bool  # noqa: N815 - the exchange's key


class AggTradeRow(msgspec.Struct):
    """``{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true,"M":true}``."""

    a: Number
    p: Decimal
    q: Decimal
    f: Number
    l: Number  # noqa: E741 - the exchange's key
    T: Number
    m: bool


class KlineRow(msgspec.Struct, array_like=True):
    """``[1499040000000,"0.0163","0.8000","0.0157","0.0157","148976.1",1499644799999,"2434.1",308,...]``: o h l c."""

    open_time: Number
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    close_time: Number
    quote_volume: Decimal
    trades: Number


class RestHistory:
    """A ``core.ports.EventHistory`` over Binance's REST host."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    @property
    def has_room(self) -> bool:
        """Whether the minute's weight has room for what is not urgent."""
        return self._rest.has_room

    async def page(self, stream: Stream, first: int, last: int | None) -> list[tuple[int, Event]]:
        """One page of events from a number on, in order, each with its number."""
        asked = request(stream, first, last)
        found: list[object] = await self._rest.get(asked.path, asked.rows, asked.params)
        if len(found) > ROWS:
            raise Unreadable(f"{len(found)} rows were answered where {ROWS} were asked for")
        return settled(stream, sorted((read(stream, row) for row in found), key=itemgetter(0)))


class Request(msgspec.Struct, frozen=True):
    """What is asked for a page of missing events; ``rows`` is the type of the answer."""

    path: str
    params: dict[str, str]
    rows: type


def request(stream: Stream, first: int, last: int | None) -> Request:
    """The request for events from a number (candles: an open time) on; a page may hold more than is missing.

    Without ``last``, for everything that came after it.
    """
    if stream.kind is Kind.KLINE:
        assert stream.interval is not None  # every candle stream has one
        span = {"interval": stream.interval, "startTime": str(first)}
        # One candle more than is missing: only what another one follows will not change any more.
        end = {} if last is None else {"endTime": str(next_number(stream, last))}
        return Request("/api/v3/klines", {"symbol": stream.symbol, **span, **end, "limit": str(ROWS)}, list[KlineRow])
    missing = ROWS if last is None else min(ROWS, last - first + 1)
    params = {"symbol": stream.symbol, "fromId": str(first), "limit": str(missing)}
    if stream.kind is Kind.TRADE:
        return Request("/api/v3/historicalTrades", params, list[TradeRow])
    return Request("/api/v3/aggTrades", params, list[AggTradeRow])


def read(stream: Stream, row: object) -> tuple[int, Trade | AggTrade | Kline]:
    """One row as an event with its number; raises ``Unreadable`` for what is no price.

    REST knows the time of a trade but not that of its event, so ``timestamp`` is the trade's.
    """
    match row:
        case TradeRow():
            check(row.price, row.qty)
            return row.id, Trade(
                symbol=stream.symbol,
                trade_id=row.id,
                price=row.price,
                quantity=row.qty,
                timestamp=row.time,
                is_buyer_maker=row.isBuyerMaker,
            )
        case AggTradeRow():
            check(row.p, row.q)
            return row.a, AggTrade(
                symbol=stream.symbol,
                trade_id=row.a,
                price=row.p,
                quantity=row.q,
                first_trade_id=row.f,
                last_trade_id=row.l,
                timestamp=row.T,
                is_buyer_maker=row.m,
            )
        case KlineRow():
            return row.open_time, _candle(stream, row)
        case _:
            raise TypeError(f"{type(row).__name__} is no row")


def _candle(stream: Stream, row: KlineRow) -> Kline:
    check(row.open, row.high, row.low, row.close, row.volume, row.quote_volume)
    assert stream.interval is not None
    return Kline(
        symbol=stream.symbol,
        interval=stream.interval,
        timestamp=row.open_time,
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        is_closed=True,
        trades=row.trades,
        quote_volume=row.quote_volume,
    )
