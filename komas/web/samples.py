"""One of each thing that is sent, as documentation shows it: values of the very Structs (sans-I/O)."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from komas.model import market, signals
from komas.model.codec import read_object
from komas.model.kinds import Kind
from komas.model.symbols import SymbolInfo
from komas.signals import messages
from komas.signals.session import GREETING
from komas.web import market_messages
from komas.web.problems import FieldError, Problem
from komas.web.routes.admin import NewestSignalsBody, ReaderRow, ReadersBody, SessionRow, SessionsBody, VipsBody
from komas.web.routes.control import ConnectionRow, GapCounts, StatusBody, StreamRow
from komas.web.routes.history import CandlesBody, SymbolsBody, TradesBody
from komas.web.routes.signals_rest import SignalsBody, VipBody

_numbers = msgspec.json.Encoder(decimal_format="number")
_AT: Final = "2026-01-01T00:00:00.000Z"
_AT_MS: Final = 1_767_225_600_000
_AT_S: Final = 1_767_225_600
_SERVER: Final = "q3ZkT9aB"
_STREAMS: Final = ("btcusdt@trade", "ethusdt@kline_1m")
_DATA: Final = b'{"id":1,"created_at":"2026-01-01T00:00:00.000Z","coin_name":"NB","position":"SHORT","spread":8.84}'

_KLINE: Final = market.Kline(
    symbol="BTCUSDT",
    interval="1m",
    timestamp=_AT_MS,
    open=Decimal("87648.21000000"),
    high=Decimal("87661.00000000"),
    low=Decimal("87640.50000000"),
    close=Decimal("87655.10000000"),
    volume=Decimal("4.71523000"),
    is_closed=True,
    trades=1204,
    quote_volume=Decimal("413304.11862300"),
)
_TRADE: Final = market.Trade(
    symbol="BTCUSDT",
    trade_id=5_700_000_001,
    price=Decimal("87655.10000000"),
    quantity=Decimal("0.00120000"),
    timestamp=_AT_MS,
    is_buyer_maker=False,
)
_SYMBOL: Final = SymbolInfo(
    symbol="BTCUSDT",
    status="TRADING",
    base="BTC",
    quote="USDT",
    tick_size=Decimal("0.01000000"),
    step_size=Decimal("0.00001000"),
    market="spot",
    volume_24h=Decimal("1603104551.20933100"),
)
_SIGNAL: Final = signals.Signal(1, "mexc_spot_futures", msgspec.Raw(_DATA), _AT, _AT)
_SESSION: Final = SessionRow("k7Gq", 123, "203.0.113.7", _AT, 0)
_CONNECTION: Final = ConnectionRow("wss://stream.binance.com:9443", 0, 2, _AT, 13_800.5, 80_412)
_FIELD: Final = FieldError("symbols", "NOPEUSDT is not a symbol of the exchange")
_READER: Final = ReaderRow("203.0.113.7", 12, 14)


def _ticker(kind: type[market.Ticker]) -> market.Ticker:
    return kind(
        symbol="BTCUSDT",
        price=Decimal("87655.10000000"),
        open=Decimal("88430.01000000"),
        high=Decimal("89100.00000000"),
        low=Decimal("87210.44000000"),
        volume=Decimal("18202.55110000"),
        quote_volume=Decimal("1603104551.20933100"),
        price_change=Decimal("-774.91000000"),
        price_change_percent=Decimal("-0.876"),
        timestamp=_AT_MS,
    )


_GAPS: Final = GapCounts(found=1, filled=40, declared=0)
_VIP: Final = VipBody("123", active=True, revoked=False, vip_until=_AT_S + 2_592_000)
_ALL: Final[tuple[msgspec.Struct, ...]] = (
    *map(_ticker, (market.Ticker, market.Ticker1h, market.Ticker4h, market.Ticker1d)),
    market.MiniTicker(
        symbol="BTCUSDT",
        price=Decimal("87655.10000000"),
        open=Decimal("88430.01000000"),
        high=Decimal("89100.00000000"),
        low=Decimal("87210.44000000"),
        volume=Decimal("18202.55110000"),
        quote_volume=Decimal("1603104551.20933100"),
        timestamp=_AT_MS,
    ),
    _KLINE,
    _TRADE,
    market.AggTrade(
        symbol="BTCUSDT",
        trade_id=3_900_000_001,
        price=Decimal("87655.10000000"),
        quantity=Decimal("0.00500000"),
        first_trade_id=5_700_000_001,
        last_trade_id=5_700_000_003,
        timestamp=_AT_MS,
        is_buyer_maker=False,
    ),
    market.BookTicker(
        symbol="BTCUSDT",
        bid_price=Decimal("87655.09000000"),
        bid_quantity=Decimal("1.84211000"),
        ask_price=Decimal("87655.10000000"),
        ask_quantity=Decimal("3.07140000"),
        update_id=78_000_000_001,
        timestamp=_AT_MS,
    ),
    market.Depth(
        symbol="BTCUSDT",
        update_id=78_000_000_001,
        bids=((Decimal("87655.09000000"), Decimal("1.84211000")), (Decimal("87655.00000000"), Decimal("0.11400000"))),
        asks=((Decimal("87655.10000000"), Decimal("3.07140000")),),
        timestamp=_AT_MS,
    ),
    market.AvgPrice(
        symbol="BTCUSDT",
        price=Decimal("87650.33814201"),
        averaging_interval="5m",
        last_trade_time=_AT_MS,
        timestamp=_AT_MS,
    ),
    market.MarkPrice(
        symbol="BTCUSDT",
        price=Decimal("87652.40000000"),
        index_price=Decimal("87660.12345678"),
        estimated_settle_price=Decimal("87659.00000000"),
        funding_rate=Decimal("0.00010000"),
        next_funding_time=_AT_MS + 28_800_000,
        timestamp=_AT_MS,
    ),
    market.Gap(stream="btcusdt@trade", first=5_700_000_001, last=5_700_000_009, reason="no answer within 15 s"),
    market.FeedStatus(state=market.FeedState.RECONNECTING, reason="the connection was cut", retry_in_s=1.5),
    market.HealthNotice(stream="btcusdt@trade", health=market.Health.STALE, reason="silent for 61 s"),
    market.StreamList(streams=_STREAMS),
    _CONNECTION,
    StatusBody(
        connected=True,
        state=market.FeedState.CONNECTED,
        url="wss://stream.binance.com:9443",
        streams=2,
        subscribers=1,
        messages_received=80_412,
        reconnects=1,
        rotations=0,
        last_message_at=_AT,
        uptime_seconds=13_800.5,
        reason=None,
        connections=(_CONNECTION,),
        gaps=_GAPS,
        timestamp=_AT,
    ),
    _GAPS,
    StreamRow("btcusdt@trade", Kind.TRADE, "BTCUSDT", None, market.Health.LIVE, 1, pinned=False, last_event_at=_AT),
    _SYMBOL,
    CandlesBody("BTCUSDT", "1m", 1, (_KLINE,)),
    TradesBody("BTCUSDT", 1, (_TRADE,)),
    SymbolsBody(1, (_SYMBOL,)),
    _SIGNAL,
    SignalsBody(1, (_SIGNAL,), 1),
    NewestSignalsBody(1, (_SIGNAL,), 1),
    _VIP,
    VipsBody(1, (_VIP,), _VIP.user_id),
    _SESSION,
    SessionsBody(1, (_SESSION,)),
    _READER,
    ReadersBody(1, (_READER,)),
    _FIELD,
    Problem(type="about:blank", title="Bad Request", status=400, detail=_FIELD.message, errors=(_FIELD,)),
    signals.NewSignalMessage("mexc_spot_futures", msgspec.Raw(_DATA)),
    signals.SignalUpdateMessage("mexc_spot_futures", 1, msgspec.Raw(b'{"spread":9.12}')),
    messages.Connected(message=GREETING, user_id=123, expires_at=_AT_S + 3600),
    messages.Expiring(_AT_S + 3600),
    messages.Refreshed(_AT_S + 7200),
    messages.Ping(),
    messages.Pong(),
    messages.Refusal("refresh_refused", "the token is not valid"),
    messages.Refresh("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"),
    market_messages.Opened(streams=_STREAMS, simulated=False, version="0.1.0", server=_SERVER),
    market_messages.EventsOpened(
        connection="pJ3v0cYd2mVh8sT1bQxWkA", streams=_STREAMS, simulated=False, version="0.1.0", server=_SERVER
    ),
    market_messages.Subscribe(_STREAMS, 1),
    market_messages.Unsubscribe(_STREAMS[1:], 2),
    market_messages.Subscribed(_STREAMS, 1),
    market_messages.Unsubscribed(_STREAMS[:1], 2),
    market_messages.MarketRefusal("invalid", "NOPEUSDT is not a symbol of the exchange", 3),
    market_messages.Lagged(12),
    market_messages.NamedLagged(12),
    market_messages.Busy("too many clients"),
)


def samples() -> dict[str, object]:
    """The value of each by the name of its Struct; numbers with a point are ``Decimal``, with their digits."""
    return {type(each).__name__: _plain(each) for each in _ALL}


def _plain(value: msgspec.Struct) -> object:
    return read_object(_numbers.encode(value))
