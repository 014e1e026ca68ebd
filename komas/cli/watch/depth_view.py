"""An order book: bids and asks with bars, best prices at the spread. Sans-I/O."""

from __future__ import annotations

from decimal import Decimal
from itertools import accumulate
from typing import Final

from komas.cli.watch.figures import Trend, as_float, bar, difference, digits, percent
from komas.cli.watch.records import Record
from komas.cli.watch.safe_text import shown
from komas.cli.watch.table import Column, Line, Side, Size, Span, beside, draw, fit
from komas.cli.watch.views import Row, summary_of
from komas.model.codec import iso_ms
from komas.model.market import Depth

TINY: Final = "0.00"
SMALLEST: Final = "0.01"
BESIDE: Final = 100  # columns from which on bids and asks stand side by side
BAR_CELLS: Final = range(8, 41)  # of the longest bar
NUMBERS: Final = 32  # columns that prices and quantities usually take

Levels = tuple[tuple[Decimal, Decimal], ...]


class DepthView:
    """The latest state of a book; asks above bids, or beside them where there is room."""

    header: Row = ("time", "symbol", "bid", "bid_quantity", "ask", "ask_quantity", "spread", "update_id")
    columns: Final = (
        Column("price", Side.POINT, least=8),
        Column("quantity", Side.POINT, least=6),
        Column("total", Side.POINT, 2),
        Column("depth", Side.LEFT, 1),
    )

    def __init__(self) -> None:
        self._book: Depth | None = None
        self._trend = Trend()

    def take(self, record: Record) -> None:
        """Keep the latest."""
        if isinstance(event := record.event, Depth):
            self._book = event
            if event.bids:
                self._trend.add(event.bids[0][0])

    def row(self, record: Record) -> Row | None:
        """The best levels."""
        if not isinstance(event := record.event, Depth):
            return None
        bid, ask = (map(digits, side[0]) if side else ("", "") for side in (event.bids, event.asks))
        spread = digits(difference(event.asks[0][0], event.bids[0][0])) if event.asks and event.bids else ""
        return (iso_ms(event.timestamp), shown(event.symbol), *bid, *ask, spread, str(event.update_id))

    def direction(self, record: Record) -> int:  # noqa: ARG002  # the protocol's
        """Of the best bid."""
        return self._trend.direction

    def summary(self) -> Span:
        """The best bid, and where it goes."""
        return summary_of(self._trend)

    def body(self, size: Size, now_ms: float) -> list[Line]:  # noqa: ARG002  # the protocol's
        """The levels that there is room for."""
        book = self._book
        if book is None:
            return []
        spread = self._spread(book)
        is_wide = size.width >= BESIDE
        cells = min(max(size.width // (2 if is_wide else 1) - NUMBERS, BAR_CELLS[0]), BAR_CELLS[-1])
        if is_wide:
            levels = max(0, size.height - 2)
            sides = [
                draw(self.columns, _rows(side[:levels], style, cells), size.width // 2 - 1)
                for side, style in ((book.bids, "up"), (book.asks, "down"))
            ]
            return [spread, *beside(sides[0], sides[1], size.width // 2)][: size.height]
        levels = max(0, (size.height - 2) // 2)
        asks = _rows(book.asks[:levels], "down", cells)[::-1]
        lines = draw(self.columns, [*asks, *_rows(book.bids[:levels], "up", cells)], size.width)
        lines.insert(1 + len(asks), fit(spread, size.width))
        return lines[: size.height]

    def _spread(self, book: Depth) -> Line:
        if not (book.bids and book.asks):
            return (Span("one side is empty", "warn"),)
        apart = difference(book.asks[0][0], book.bids[0][0])
        share = percent(apart, book.asks[0][0]).lstrip("+").replace(TINY, f"under {SMALLEST}")
        return (Span(f"spread {digits(apart)}  {share} %", "head"),)


def _rows(levels: Levels, style: str, width: int) -> list[list[Span]]:
    """Levels, best first, with sums from the best on; bars are of the largest level that is shown."""
    sums = accumulate((quantity for _, quantity in levels), _sum)
    largest = max((as_float(quantity) for _, quantity in levels), default=0.0)
    return [
        [
            Span(digits(price), style),
            Span(digits(quantity)),
            Span(digits(total), "dim"),
            Span(bar(as_float(quantity), largest, width), style),
        ]
        for (price, quantity), total in zip(levels, sums, strict=True)
    ]


def _sum(one: Decimal, other: Decimal) -> Decimal:
    return difference(one, -other)
