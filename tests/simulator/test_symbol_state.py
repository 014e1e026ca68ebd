"""One symbol's state: bounded, and worked out when somebody looks."""

from __future__ import annotations

import pytest

from komas.simulator import symbol_state as pairs
from komas.simulator.book import Book, Diff, Top
from komas.simulator.candles import MINUTE_MS, Trade
from komas.simulator.fixed_point import UNIT
from komas.simulator.symbol_state import Pair

START_MS = 1_767_225_600_000


def trade(number: int, at_ms: int, price: int = UNIT) -> Trade:
    """One trade."""
    return Trade(number, price, UNIT, at_ms, buyer_is_maker=True)


def test_a_pair_without_trades_has_its_book_alone() -> None:
    """A capture that begins with a quote has a price, and no candles."""
    pair = Pair("BTCUSDT", Book())
    pair.show(lambda: Top(5, 1, 6, 1))
    assert pair.last_price == 5
    assert pair.candles("1m", 0, START_MS) == []
    assert (pair.current("1m", START_MS).open_ms, pair.current("1m", START_MS).close) == (START_MS, 5)
    assert pair.window(MINUTE_MS, START_MS).bar.count == 0
    assert pair.complete() is None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old trades, aggregates and bars go; what is left has no gap."""
    for name in ("TRADES_KEPT", "SECONDS_KEPT", "BARS_KEPT"):
        monkeypatch.setattr(pairs, name, 10)
    pair = Pair("BTCUSDT", Book())
    for number in range(100):
        pair.take(trade(number, START_MS + number * MINUTE_MS))
    for kept in (pair.trades, pair.aggregates, pair.seconds, pair.bars):
        assert 10 <= len(kept) <= 20
    assert [each.id for each in pair.trades] == list(range(pair.trades[0].id, 100))


def test_diffs_are_entered_when_the_book_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; and without anybody looking, once too many wait."""
    monkeypatch.setattr(pairs, "MOST_UNREAD", 2)
    pair = Pair("BTCUSDT", Book(1))
    entered: list[int] = []
    for number in range(2, 6):

        def enter(book: Book, number: int = number) -> None:
            entered.append(number)
            book.apply(Diff(number, number, [(number, 1)], []))

        pair.put_off(enter)
    assert entered == [2, 3]
    assert pair.book.update_id == 5
    assert entered == [2, 3, 4, 5]
    assert sorted(pair.book.bids) == [2, 3, 4, 5]


def test_an_aggregate_ends_with_its_millisecond() -> None:
    """Another price, side or time is another aggregate; the clock ends the last."""
    pair = Pair("BTCUSDT", Book())
    assert pair.take(trade(1, START_MS)) is None
    assert pair.take(trade(2, START_MS)) is None
    first = pair.take(trade(3, START_MS, price=2 * UNIT))
    assert first is not None
    assert (first.first, first.last, first.quantity) == (1, 2, 2 * UNIT)
    assert pair.due(START_MS) is None
    second = pair.due(START_MS + 1)
    assert second is not None
    assert (second.id, second.first) == (first.id + 1, 3)
    assert pair.aggregates == [first, second]
