"""Next, seen, or a gap: by the exchange's own numbers."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from komas.model.market import BookTicker, Event, Gap
from komas.model.streams import Kind, Stream
from komas.venues.binance.continuity import Continuity
from tests.builders import KLINE, MINUTE_MS, TICKER, TRADE, kline, ticker, trade

BOOK = Stream(Kind.BOOK_TICKER, "BTCUSDT")


def _run(stream: Stream, *events: Event) -> list[object]:
    continuity = Continuity()
    verdicts = (continuity.judge(stream, event) for event in events)
    return [verdict.gap if verdict.gap is not None else verdict.is_new for verdict in verdicts]


def test_trades_count_up_by_one() -> None:
    """Repeats and reorderings are dropped, holes are named."""
    gap = Gap(stream="btcusdt@trade", first=8, last=9)
    assert _run(TRADE, *map(trade, (5, 6, 7, 6, 7, 10, 8, 11))) == [True, True, True, False, False, gap, False, True]


def test_a_candle_may_come_many_times_and_close_once() -> None:
    """What comes after its closing is old."""
    assert _run(KLINE, kline(1), kline(1), kline(1, closed=True), kline(1), kline(1, closed=True), kline(2)) == [
        True, True, True, False, False, True,
    ]  # fmt: skip


def test_a_candle_whose_closing_was_lost_is_a_gap() -> None:
    """The closing that never came is named by its open time."""
    assert _run(KLINE, kline(1), kline(2)) == [
        True,
        Gap(stream="btcusdt@kline_1m", first=1 * MINUTE_MS, last=1 * MINUTE_MS),
    ]


def test_candles_that_never_came_are_a_gap() -> None:
    """From the first missing open time to the last."""
    assert _run(KLINE, kline(1, closed=True), kline(5)) == [
        True,
        Gap(stream="btcusdt@kline_1m", first=2 * MINUTE_MS, last=4 * MINUTE_MS),
    ]


def test_an_older_candle_is_old() -> None:
    """Two connections may overlap."""
    assert _run(KLINE, kline(5), kline(4, closed=True)) == [True, False]


def test_quotes_only_rise() -> None:
    """An older ticker is dropped, one of the same millisecond is not; a book ticker has a number of its own."""
    assert _run(TICKER, *(ticker(timestamp=ms) for ms in (5, 5, 4, 6))) == [True, True, False, True]
    template = msgspec.convert(
        {"type": "book_ticker", "symbol": "BTCUSDT", "bid_price": "1", "bid_quantity": "1", "ask_price": "1",
         "ask_quantity": "1", "update_id": 1, "timestamp": 1},
        BookTicker,
    )  # fmt: skip
    books = (msgspec.structs.replace(template, update_id=number) for number in (5, 5, 9, 8))
    assert _run(BOOK, *books) == [True, False, True, False]


def test_a_forgotten_stream_starts_anew() -> None:
    """Nobody wanted it for a while: nothing is missing."""
    continuity = Continuity()
    continuity.judge(TRADE, trade(5))
    continuity.forget(TRADE)
    assert continuity.judge(TRADE, trade(500)).gap is None
    assert continuity.known() == (TRADE,)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=100))
def test_published_and_declared_trades_are_every_number(numbers: list[int]) -> None:
    """Whatever comes in whatever order: new facts and gaps together cover from the first to the last, once."""
    continuity = Continuity()
    covered: list[int] = []
    for number in numbers:
        verdict = continuity.judge(TRADE, trade(number))
        if verdict.gap is not None:
            covered += range(verdict.gap.first or 0, (verdict.gap.last or 0) + 1)
        if verdict.is_new:
            covered.append(number)
    assert covered == list(range(covered[0], max(numbers) + 1))
