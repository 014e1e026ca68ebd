"""The synthetic market: reproducible, and believable."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from komas.simulator.book import Book
from komas.simulator.candles import DAY_MS, HOUR_MS, MINUTE_MS, Trade
from komas.simulator.history import past
from komas.simulator.options import SimOptions
from komas.simulator.tape import Step, SymbolTape, Tape, spec_for

START_MS = 1_767_225_600_000
SYMBOLS = SimOptions().symbols


def steps(symbol: str, seconds: int, seed: int = 1) -> list[Step]:
    """What happens to one symbol."""
    tape = SymbolTape(spec_for(symbol), seed, START_MS)
    found = []
    while tape.next_ms < START_MS + seconds * 1000:
        found.append(tape.step())
    return found


def trades(symbol: str, seconds: int, seed: int = 1) -> list[Trade]:
    """Its trades."""
    return [trade for step in steps(symbol, seconds, seed) for trade in step.trades]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_tape_is_that_of_an_exchange(symbol: str) -> None:
    """Ids have no gap, time does not fall back, prices and quantities lie on their grids."""
    spec = spec_for(symbol)
    found = trades(symbol, 600)
    assert all(later.id == earlier.id + 1 for earlier, later in pairwise(found))
    assert all(later.time_ms >= earlier.time_ms for earlier, later in pairwise(found))
    assert all(trade.price > 0 and trade.price % spec.tick == 0 for trade in found)
    assert all(trade.quantity > 0 and trade.quantity % spec.step == 0 for trade in found)


def test_the_seed_decides() -> None:
    """The same seed gives the same tape, another gives another."""
    assert trades("BTCUSDT", 60) == trades("BTCUSDT", 60)
    assert trades("BTCUSDT", 60) != trades("BTCUSDT", 60, seed=2)


def test_the_market_is_believable() -> None:
    """Twenty to thirty trades a second, bursts in one millisecond, a quiet symbol with empty minutes."""
    busy = trades("BTCUSDT", 600)
    assert 15 < len(busy) / 600 < 40
    assert max(Counter(trade.time_ms for trade in busy).values()) > 20
    quiet = Counter(trade.time_ms // MINUTE_MS for trade in trades("BIFIUSDT", 3600))
    assert 5 < len(quiet) < 55
    assert {trade.buyer_is_maker for trade in busy} == {True, False}
    prices = [trade.price for trade in busy]
    assert 0.0005 < (max(prices) - min(prices)) / prices[0] < 0.05


def test_takers_take_what_makers_offer() -> None:
    """A buyer lifts the ask, a seller hits the bid, and the book is never crossed."""
    tape = SymbolTape(spec_for("ETHUSDT"), 1, START_MS)
    for _ in range(5_000):
        top, update_id = tape.book.top(), tape.book.update_id
        assert top.bid < top.ask
        step = tape.step()
        if step.trades:
            first = step.trades[0]
            assert first.price == (top.bid if first.buyer_is_maker else top.ask)
            assert tape.book.update_id > update_id


def test_symbols_take_turns_in_time() -> None:
    """The tape of all is in the order of time."""
    tape = Tape(("BTCUSDT", "BIFIUSDT", "XYZEUR"), 1, START_MS)
    times = []
    for _ in range(1000):
        assert tape.next_ms == tape.next.next_ms
        times.append(tape.next.step().time_ms)
    assert times == sorted(times)


def test_unknown_symbols_have_a_market_too() -> None:
    """Their letters decide it; base and quote are told apart."""
    assert spec_for("NEWBTC") == spec_for("NEWBTC")
    assert (spec_for("NEWBTC").base, spec_for("NEWBTC").quote) == ("NEW", "BTC")
    assert (spec_for("币安人生USDT").base, spec_for("币安人生USDT").quote) == ("币安人生", "USDT")
    assert len(trades("NEWBTC", 60)) > 0


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BIFIUSDT"])
def test_the_past_leads_up_to_the_tape(symbol: str) -> None:
    """Bars ascend, ids and prices join without a gap, and reach back for months."""
    spec = spec_for(symbol)
    bars = past(spec, 1, START_MS, 10**9)
    assert bars == past(spec, 1, START_MS, 10**9)
    assert all(later.open_ms > earlier.open_ms for earlier, later in pairwise(bars))
    assert all(later.first == earlier.last + 1 for earlier, later in pairwise(bars))
    assert all(later.open == earlier.close for earlier, later in pairwise(bars))
    assert all(bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high for bar in bars)
    assert (bars[-1].last, bars[-1].close) == (10**9 - 1, spec.price)
    assert bars[0].open_ms <= START_MS - 120 * DAY_MS
    assert {bar.width_ms for bar in bars} == {MINUTE_MS, HOUR_MS, DAY_MS}


def test_a_book_tells_what_changed() -> None:
    """Diffs join without a gap at both speeds; a removed level has no quantity."""
    book = Book(100)
    assert book.taken(fast=True) is None
    book.put(book.bids, 10, 5)
    book.put(book.asks, 12, 7)
    first = book.taken(fast=True)
    book.put(book.bids, 10, 0)
    second, slow = book.taken(fast=True), book.taken(fast=False)
    assert first == (101, 102, [(10, 5)], [(12, 7)])
    assert second == (103, 103, [(10, 0)], [])
    assert slow == (101, 103, [(10, 0)], [(12, 7)])
    assert book.top() == (0, 0, 12, 7)


def test_a_book_follows_another() -> None:
    """A snapshot, then its diffs; an old diff changes nothing."""
    book = Book(5)
    for bid, ask in ((10, 20), (11, 19), (9, 21)):
        book.put(book.bids, bid, 1)
        book.put(book.asks, ask, 1)
    follower = Book()
    follower.replace(book.update_id, book.bids.items(), book.asks.items())
    book.taken(fast=True)
    book.put(book.bids, 11, 0)
    diff = book.taken(fast=True)
    assert diff is not None
    for _ in range(2):
        follower.apply(diff)
        assert (follower.bids, follower.asks, follower.update_id) == (book.bids, book.asks, book.update_id)
    assert follower.best(2) == ([(10, 1), (9, 1)], [(19, 1), (20, 1)])
