"""What every view has, and those that are tables of a market: prices, candles, trades. Sans-I/O.

A view learns from records, and says what it shows: the lines of a screen at a size, or the rows of a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Protocol

from komas.cli.watch.figures import (
    Trend,
    arrow,
    as_float,
    bar,
    compare,
    difference,
    digits,
    percent,
    product,
    signed,
    style_of,
)
from komas.cli.watch.link_state import told
from komas.cli.watch.records import Record
from komas.cli.watch.safe_text import shown
from komas.cli.watch.table import Column, Line, Side, Size, Span, draw
from komas.model.codec import iso_ms
from komas.model.market import AggTrade, Kline, Ticker, Trade

_SIZE_CELLS: Final = 32  # of the bar of the largest trade on the screen
SPARK: Final = 12  # values in the first line
KEPT: Final = 200  # newest rows: more than a terminal has

Row = tuple[str, ...]


class View(Protocol):
    """One thing to watch.

    ``header`` names the columns of ``row``, which has every digit, whatever the width of a terminal is; ``None`` is for
    a record that is no row. ``take`` comes before ``body``, which is the middle of the screen: no line is wider, and
    there are no more lines than asked for. ``summary`` stands in the first line beside the name.
    """

    header: Row

    def take(self, record: Record) -> None:
        """Learn from a record."""

    def row(self, record: Record) -> Row | None:
        """The record as a row of a file."""

    def direction(self, record: Record) -> int:
        """Where the record goes: 1 up, -1 down."""

    def body(self, size: Size, now_ms: float) -> list[Line]:
        """The middle of the screen."""

    def summary(self) -> Span:
        """The newest value and where it goes."""


class PricesView:
    """Statistics of the last day, a row for each symbol, in the order in which they were asked for."""

    header: Row = ("time", "symbol", "price", "change", "change_percent", "open", "high", "low", "volume", "value")
    columns: Final = (
        Column("symbol", Side.LEFT, least=6),
        Column("price", Side.POINT, least=8),
        Column("", Side.LEFT, least=1),
        Column("24 h %", Side.POINT, 1),
        Column("trend", Side.TAIL, 2, least=5),
        Column("high", Side.POINT, 3),
        Column("low", Side.POINT, 3),
        Column("volume", Side.POINT, 4),
        Column("change", Side.POINT, 5),
        Column("open", Side.POINT, 6),
        Column("value", Side.POINT, 7),
        Column("time", Side.LEFT, 8, least=8),
    )

    def __init__(self, symbols: Sequence[str] = ()) -> None:
        self._tickers: dict[str, Ticker | None] = dict.fromkeys(symbols)
        self._trends: dict[str, Trend] = {}

    def take(self, record: Record) -> None:
        """Keep the latest of a symbol."""
        if isinstance(event := record.event, Ticker):
            self._tickers[event.symbol] = event
            self._trends.setdefault(event.symbol, Trend()).add(event.price)

    def row(self, record: Record) -> Row | None:
        """Every number of the ticker."""
        if not isinstance(event := record.event, Ticker):
            return None
        numbers = (event.open, event.high, event.low, event.volume, event.quote_volume)
        return (
            iso_ms(event.timestamp),
            shown(event.symbol),
            digits(event.price),
            signed(event.price_change),
            signed(event.price_change_percent),
            *map(digits, numbers),
        )

    def direction(self, record: Record) -> int:
        """Of the day."""
        return compare(record.event.price_change, Decimal()) if isinstance(record.event, Ticker) else 0

    def body(self, size: Size, now_ms: float) -> list[Line]:  # noqa: ARG002  # the protocol's
        """A table."""
        rows = [self._shown(symbol, ticker) for symbol, ticker in list(self._tickers.items())[: size.height - 1]]
        return draw(self.columns, rows, size.width)

    def _shown(self, symbol: str, ticker: Ticker | None) -> list[Span]:
        if ticker is None:
            return [Span(shown(symbol), "dim"), *[Span("")] * (len(self.columns) - 1)]
        trend, day = self._trends[symbol], style_of(compare(ticker.price_change, Decimal()))
        way = style_of(trend.direction)
        return [
            Span(shown(symbol)),
            Span(digits(ticker.price), way),
            Span(arrow(trend.direction), way),
            Span(signed(ticker.price_change_percent), day),
            Span(trend.line, way),
            Span(digits(ticker.high)),
            Span(digits(ticker.low)),
            Span(digits(ticker.volume), "dim"),
            Span(signed(ticker.price_change), day),
            Span(digits(ticker.open), "dim"),
            Span(digits(ticker.quote_volume), "dim"),
            Span(iso_ms(ticker.timestamp)[11:19], "dim"),
        ]

    def summary(self) -> Span:
        """How many symbols there are."""
        return Span(f"{len(self._tickers)} symbols", "dim") if len(self._tickers) > 1 else Span("")


class KlinesView:
    """Candles of one symbol, the newest on top; the first one is open and grows."""

    header: Row = ("time", "symbol", "interval", "open", "high", "low", "close", "volume", "value", "trades", "state")
    columns: Final = (
        Column("time", Side.LEFT, least=8),
        Column("close", Side.POINT, least=8),
        Column("", Side.LEFT, least=1),
        Column("%", Side.POINT, 1),
        Column("high", Side.POINT, 2),
        Column("low", Side.POINT, 2),
        Column("open", Side.POINT, 3),
        Column("volume", Side.POINT, 4),
        Column("trades", Side.RIGHT, 5),
        Column("value", Side.POINT, 6),
        Column("state", Side.LEFT, 7, least=6),
    )

    def __init__(self) -> None:
        self._candles: dict[int, Kline] = {}
        self._notices = _Notices()

    def take(self, record: Record) -> None:
        """Keep the latest state of each candle."""
        if not isinstance(event := record.event, Kline):
            self._notices.take(record, max(self._candles, default=0))
            return
        self._candles[event.timestamp] = event
        while len(self._candles) > KEPT:
            del self._candles[min(self._candles)]

    def row(self, record: Record) -> Row | None:
        """The candle as it is now: an open one comes again and again."""
        if not isinstance(event := record.event, Kline):
            return None
        numbers = (event.open, event.high, event.low, event.close, event.volume, event.quote_volume)
        state = "closed" if event.is_closed else "open"
        named = (iso_ms(event.timestamp), shown(event.symbol), shown(event.interval))
        return (*named, *map(digits, numbers), str(event.trades), state)

    def direction(self, record: Record) -> int:
        """From its open to its close."""
        return compare(record.event.close, record.event.open) if isinstance(record.event, Kline) else 0

    def body(self, size: Size, now_ms: float) -> list[Line]:  # noqa: ARG002  # the protocol's
        """A table with its notices."""
        newest = sorted(self._candles, reverse=True)[: max(0, size.height - 1)]
        lines = draw(self.columns, [self._shown(self._candles[moment]) for moment in newest], size.width)
        return self._notices.among(lines, newest, size)

    @staticmethod
    def _shown(candle: Kline) -> list[Span]:
        way = compare(candle.close, candle.open)
        style = style_of(way)
        opened = iso_ms(candle.timestamp)
        is_of_a_day = candle.interval.endswith(("d", "w", "M"))
        moment = opened[:10] if is_of_a_day else opened[11:19] if candle.interval == "1s" else opened[5:16]
        return [
            Span(moment.replace("T", " "), "" if candle.is_closed else "head"),
            Span(digits(candle.close), style),
            Span(arrow(way), style),
            Span(percent(difference(candle.close, candle.open), candle.open), style),
            Span(digits(candle.high)),
            Span(digits(candle.low)),
            Span(digits(candle.open)),
            Span(digits(candle.volume), "dim"),
            Span(str(candle.trades), "dim"),
            Span(digits(candle.quote_volume), "dim"),
            Span("closed" if candle.is_closed else "open", "dim" if candle.is_closed else "head"),
        ]

    def summary(self) -> Span:
        """The closes."""
        trend = Trend()
        for moment in sorted(self._candles):
            trend.add(self._candles[moment].close)
        return Span(trend.line[-SPARK:], style_of(trend.direction))


class TradesView:
    """Trades of one symbol, the newest on top."""

    header: Row = ("time", "symbol", "price", "quantity", "value", "side", "id")
    columns: Final = (
        Column("time", Side.LEFT, least=8),
        Column("price", Side.POINT, least=8),
        Column("", Side.LEFT, least=1),
        Column("quantity", Side.POINT, 1),
        Column("side", Side.LEFT, 2),
        Column("id", Side.RIGHT, 3),
        Column("value", Side.POINT, 4),
        Column("size", Side.LEFT, 5, least=_SIZE_CELLS),
    )

    def __init__(self) -> None:
        self._trades: deque[tuple[Trade | AggTrade, int, bool]] = deque(maxlen=KEPT)
        self._trend = Trend()
        self._notices = _Notices()

    def take(self, record: Record) -> None:
        """Add a trade."""
        if not isinstance(event := record.event, (Trade, AggTrade)):
            self._notices.take(record, self._trades[0][0].trade_id if self._trades else 0)
            return
        has_moved = self._trend.last is None or compare(event.price, self._trend.last) != 0
        if has_moved:
            self._trend.add(event.price)
        self._trades.appendleft((event, self._trend.direction, has_moved))

    def row(self, record: Record) -> Row | None:
        """Every number of the trade; its value is price times quantity, exactly."""
        if not isinstance(event := record.event, (Trade, AggTrade)):
            return None
        value = product(event.price, event.quantity)
        numbers = (event.price, event.quantity, value)
        named = (iso_ms(event.timestamp), shown(event.symbol))
        return (*named, *map(digits, numbers), _side(event), str(event.trade_id))

    def direction(self, record: Record) -> int:
        """Who was the taker."""
        if not isinstance(event := record.event, (Trade, AggTrade)):
            return 0
        return -1 if event.is_buyer_maker else 1

    def body(self, size: Size, now_ms: float) -> list[Line]:  # noqa: ARG002  # the protocol's
        """A table with its notices."""
        newest = list(self._trades)[: max(0, size.height - 1)]
        is_short = size.width < 48  # noqa: PLR2004  # milliseconds are of use where there is room
        largest = max((as_float(trade.quantity) for trade, *_ in newest), default=0.0)
        rows = [self._shown(*each, largest, is_short=is_short) for each in newest]
        lines = draw(self.columns, rows, size.width)
        return self._notices.among(lines, [trade.trade_id for trade, *_ in newest], size)

    @staticmethod
    def _shown(trade: Trade | AggTrade, way: int, has_moved: bool, largest: float, *, is_short: bool) -> list[Span]:  # noqa: FBT001
        taker = "down" if trade.is_buyer_maker else "up"
        return [
            Span(iso_ms(trade.timestamp)[11 : 19 if is_short else 23], "dim"),
            Span(digits(trade.price), style_of(way)),
            Span(arrow(way) if has_moved else "", style_of(way)),
            Span(digits(trade.quantity)),
            Span(_side(trade), taker),
            Span(str(trade.trade_id), "dim"),
            Span(digits(product(trade.price, trade.quantity)), "dim"),
            Span(bar(as_float(trade.quantity), largest, _SIZE_CELLS), taker),
        ]

    def summary(self) -> Span:
        """The last price, and those before."""
        return summary_of(self._trend)


def summary_of(trend: Trend) -> Span:
    """The newest value, where it goes, and where it comes from; what does not fit is cut from its end."""
    if trend.last is None:
        return Span("")
    return Span(f"{digits(trend.last)} {arrow(trend.direction)} {trend.line[-SPARK:]}", style_of(trend.direction))


def _side(trade: Trade | AggTrade) -> str:
    return "sell" if trade.is_buyer_maker else "buy"


class _Notices:
    """Gaps among the rows: each stands above the row that was the newest when it was told."""

    def __init__(self) -> None:
        self._told: deque[tuple[int, str]] = deque(maxlen=KEPT)

    def take(self, record: Record, newest: int) -> None:
        """Keep what tells that something is missing."""
        if record.type in {"gap", "lagged"} and not record.fields.get("filled"):
            self._told.append((newest, told(record)))

    def among(self, lines: list[Line], numbers: Sequence[int], size: Size) -> list[Line]:
        """The lines of a table, heading first, with those of gaps between them."""
        heading, *rows = lines
        for number, text in reversed(self._told):
            place = next((index for index, each in enumerate(numbers) if each == number), None)
            if place is not None:
                rows.insert(place, (Span(text, "bad"),))
                numbers = [*numbers[:place], -1, *numbers[place:]]
        return [heading, *rows][: size.height]
