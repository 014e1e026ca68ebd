"""A local order book: snapshots and changes, torn and mended; against a model, and against the exchange's own words."""

from __future__ import annotations

import random
from bisect import bisect_right
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from komas.model.kinds import Kind
from komas.model.market import BookTicker, DepthUpdate
from komas.model.streams import Stream
from komas.venues.binance import wire
from komas.venues.core.order_book import (
    BUFFERED,
    BULK,
    EDGE,
    KEPT,
    MOST,
    RESTART_MS,
    RUNS,
    Levels,
    OrderBook,
    Snapshot,
)
from komas.venues.core.ports import Unreadable

CAPTURE = Path(__file__).parents[4] / "shared" / "captures" / "btcusdt_20240808.gz"


def _levels(*pairs: tuple[int, int]) -> Levels:
    return tuple((Decimal(price), Decimal(quantity)) for price, quantity in pairs)


def _update(first: int, last: int, *bids: tuple[int, int], at: int = 1) -> DepthUpdate:
    return DepthUpdate(symbol="X", first=first, last=last, bids=_levels(*bids), asks=(), timestamp=at)


SNAPSHOT = Snapshot(10, _levels((100, 1), (99, 2)), _levels((101, 3)))


def test_what_changes_is_buffered_until_there_is_a_snapshot() -> None:
    """What the snapshot holds already is dropped, what follows is entered; zero removes."""
    book = OrderBook()
    assert not any(book.take(update) for update in (_update(8, 9, (98, 9)), _update(10, 12, (99, 0), (97, 5))))
    assert not book.is_synced
    assert book.load(SNAPSHOT)
    assert book.is_synced
    assert book.update_id == 12
    assert book.top(9) == (_levels((100, 1), (97, 5)), _levels((101, 3)))
    assert book.top(1) == (_levels((100, 1)), _levels((101, 3)))


def test_an_update_may_begin_exactly_one_past_the_snapshot() -> None:
    """The capture's does; the documents' word "contains" would ask for snapshots for ever."""
    book = OrderBook()
    book.take(_update(11, 13))
    assert book.load(SNAPSHOT)
    assert book.update_id == 13


def test_a_snapshot_older_than_what_is_known_is_refused() -> None:
    """Something would be missing in between."""
    book = OrderBook()
    book.take(_update(12, 13))
    assert not book.load(SNAPSHOT)
    assert not book.is_synced


def test_an_update_beyond_the_next_tears_the_book_until_the_missing_one_comes() -> None:
    """Late by itself, from another connection: everything is entered in order, and repeats change nothing."""
    book = OrderBook()
    book.load(SNAPSHOT)
    assert not book.take(_update(14, 15, (96, 1)))
    assert book.is_gapped
    assert not book.is_synced
    assert book.take(_update(11, 13, (96, 7)))
    assert book.is_synced
    assert book.update_id == 15
    assert book.top(9)[0][-1] == (96, 1)
    assert not book.take(_update(11, 13, (96, 7)))
    assert book.is_synced


def test_a_torn_book_is_mended_by_a_snapshot() -> None:
    """What came since the gap joins on to it."""
    book = OrderBook()
    book.load(SNAPSHOT)
    book.take(_update(20, 21, (100, 4)))
    book.begin_snapshot()
    book.take(_update(22, 23, (99, 0)))
    assert book.load(Snapshot(21, _levels((100, 4), (99, 1)), ()))
    assert book.is_synced
    assert book.top(9)[0] == _levels((100, 4))


def test_a_true_book_may_be_taken_anew_without_a_pause() -> None:
    """What comes while the snapshot is under way is entered twice: into the old one, and on top of the new one."""
    book = OrderBook()
    book.load(SNAPSHOT)
    book.begin_snapshot()
    assert book.take(_update(11, 14, (98, 8)))
    assert book.load(Snapshot(12, _levels((100, 1)), _levels((101, 3))))
    assert book.update_id == 14
    assert book.top(9)[0] == _levels((100, 1), (98, 8))
    book.begin_snapshot()
    assert not book.load(SNAPSHOT)
    assert book.update_id == 14


def test_beyond_the_snapshot_nothing_is_shown() -> None:
    """It may have holes there; where too little is known a newer snapshot is due."""
    book = OrderBook()
    bids = _levels(*((1000 - place, 1) for place in range(EDGE + 1)))
    book.load(Snapshot(10, bids, _levels((2000, 1)), bids_cut=True))
    assert not book.needs_refresh
    book.take(_update(11, 11, (1000, 0), (1, 5)))
    assert not book.needs_refresh
    assert book.top(9999)[0] == bids[1:]
    book.take(_update(12, 12, (999, 0)))
    assert book.needs_refresh


def test_a_book_whose_price_has_left_the_snapshot_is_not_true() -> None:
    """What is best there was never heard in full: an empty side would be a lie."""
    book = OrderBook()
    bids = _levels(*((1000 - place, 1) for place in range(EDGE + 1)))
    book.load(Snapshot(10, bids, _levels((2000, 1)), bids_cut=True))
    book.take(_update(11, 11, *((int(price), 0) for price, _ in bids[1:]), (1, 5)))
    assert book.is_synced
    book.take(_update(12, 12, (1000, 0)))
    assert not book.is_synced
    book.begin_snapshot()
    assert book.load(Snapshot(12, _levels((1, 5)), _levels((2000, 1))))
    assert book.is_synced


def test_a_snapshot_may_be_older_than_its_question() -> None:
    """REST is a moment behind the stream: what came since the first question is still there for the second answer."""
    book = OrderBook()
    book.load(SNAPSHOT)
    book.begin_snapshot()
    book.take(_update(11, 12, (98, 8)))
    assert not book.load(Snapshot(9, _levels((100, 1)), _levels((101, 3))))
    book.take(_update(13, 13, (97, 7)))
    book.begin_snapshot()
    book.take(_update(14, 14, (96, 6)))
    assert book.load(Snapshot(12, _levels((100, 1), (98, 8)), _levels((101, 3))))
    assert book.update_id == 14
    assert book.top(9)[0] == _levels((100, 1), (98, 8), (97, 7), (96, 6))


def test_ids_that_start_again_empty_the_book() -> None:
    """A testnet was wiped: old ids, much younger."""
    book = OrderBook()
    book.load(SNAPSHOT)
    book.take(_update(11, 12, at=1000))
    book.take(_update(1, 2, at=1001))
    assert book.is_synced
    book.take(_update(3, 4, at=1000 + RESTART_MS))
    assert not book.is_synced
    assert book.load(Snapshot(3, (), ()))
    assert book.update_id == 4


def test_a_crossed_book_is_seen() -> None:
    """No book of an exchange is like that."""
    book = OrderBook()
    book.load(Snapshot(1, _levels((5, 1)), _levels((6, 1))))
    assert not book.is_crossed
    book.take(_update(2, 2, (6, 1)))
    assert book.is_crossed
    book.discard()
    assert not book.is_synced


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_lost_repeated_or_late_a_true_book_is_the_exchanges(seed: int) -> None:
    """Random changes, snapshots of random age: whenever the book says that it is true, it is."""
    dice = random.Random(seed)
    truth: dict[int, dict[Decimal, Decimal]] = {0: {}}
    updates: list[DepthUpdate] = []
    last = 0
    for _ in range(300):
        first, last = last + 1, last + dice.randrange(1, 4)
        changes = tuple((Decimal(dice.randrange(50)), Decimal(dice.randrange(3))) for _ in range(dice.randrange(1, 4)))
        updates.append(DepthUpdate(symbol="X", first=first, last=last, bids=changes, asks=(), timestamp=1))
        state = dict(truth[first - 1])
        state |= dict(changes)
        truth[last] = {price: quantity for price, quantity in state.items() if quantity}
    deliveries = [update for update in updates for _ in range(dice.choice((0, 1, 1, 1, 1, 2)))]
    for place in range(len(deliveries) - 1):
        if dice.random() < 0.1:
            deliveries[place : place + 2] = deliveries[place : place + 2][::-1]
    book, was_true = OrderBook(), 0
    for update in deliveries:
        if not book.is_synced and dice.random() < 0.3:
            at = dice.choice([known for known in truth if known <= update.last])
            book.load(Snapshot(at, tuple(truth[at].items()), ()))
        book.take(update)
        if book.is_synced:
            was_true += 1
            assert book.update_id is not None
            assert dict(book.top(99)[0]) == truth[book.update_id]
    assert was_true > 5


class _Answer(msgspec.Struct):
    lastUpdateId: int  # noqa: N815 - the exchange's key
    bids: Levels
    asks: Levels


@pytest.mark.skipif(not CAPTURE.exists(), reason="the capture is not beside the project")
def test_the_capture_agrees_with_its_own_snapshot_and_its_book_tickers() -> None:
    """After every one of its changes: the best bid and ask are those that the exchange itself sent at that moment."""
    from komas.simulator.replay import read_captures

    lines = read_captures([CAPTURE]).lines
    tops: dict[int, tuple[Decimal, ...]] = {}
    complaints: list[Unreadable] = []
    for line in lines:
        if line.stream == "btcusdt@bookTicker":
            (ticker,) = wire.Reader(Stream(Kind.BOOK_TICKER, "BTCUSDT")).read([line.raw], 0, complaints.append)
            assert isinstance(ticker, BookTicker)
            quote = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
            tops[int(str(ticker["update_id"]))] = tuple(Decimal(str(ticker[key])) for key in quote)
    ids = sorted(tops)
    book, checked, snapshots = OrderBook(), 0, 0
    for line in lines:
        if not line.stream:
            answer = msgspec.json.decode(line.raw, type=_Answer)
            snapshots += 1
            assert book.load(Snapshot(answer.lastUpdateId, answer.bids, answer.asks, bids_cut=True, asks_cut=True))
        elif line.stream.startswith("btcusdt@depth"):
            (update,) = wire.Reader(Stream(Kind.DEPTH, "BTCUSDT")).read([line.raw], 0, complaints.append)
            assert isinstance(update, DepthUpdate)
            book.take(update)
            is_known = book.is_synced and not book.needs_refresh  # the price wanders off, and the file has one snapshot
            if is_known and book.update_id is not None and ids[0] <= book.update_id <= ids[-1]:
                bids, asks = book.top(1)
                assert (*bids[0], *asks[0]) == tops[ids[bisect_right(ids, book.update_id) - 1]]
                assert not book.is_crossed
                checked += 1
    assert snapshots == 1
    assert checked > 1000


def test_a_snapshot_throws_no_book_back() -> None:
    """It was asked for while something was missing, which came late; what came before that is not forgotten."""
    book = OrderBook()
    book.take(_update(10, 11))
    assert book.load(SNAPSHOT)
    book.take(_update(14, 20, (100, 7)))
    book.begin_snapshot()
    assert book.take(_update(12, 13))
    assert (book.is_synced, book.update_id) == (True, 20)
    assert book.load(Snapshot(12, _levels((100, 1)), _levels((101, 3))))
    assert (book.is_synced, book.update_id) == (True, 20)
    assert book.top(1)[0] == _levels((100, 7))
    book.begin_snapshot()
    assert not book.load(Snapshot(19, _levels((100, 1)), _levels((101, 3))))
    assert book.top(1)[0] == _levels((100, 7))


def test_what_a_snapshot_held_already_is_no_new_count() -> None:
    """A quiet book was cut, and its stream brings what the snapshot has brought, long after what was heard before."""
    book = OrderBook()
    book.take(_update(10, 11))
    assert book.load(SNAPSHOT)
    book.begin_snapshot()
    assert book.load(Snapshot(15, _levels((100, 1)), _levels((101, 3))))
    assert not book.take(_update(12, 15, at=1 + 2 * RESTART_MS))
    assert (book.is_synced, book.update_id) == (True, 15)
    assert not book.take(_update(1, 2, at=1 + 4 * RESTART_MS))
    assert not book.is_synced  # that is one


def _changes(first: int, count: int, start: int = 0, quantity: int = 1) -> DepthUpdate:
    """So many new levels of both sides in one update, the best first, or those behind the first ``start``."""
    bids = _levels(*((1_000_000 - start - place, quantity) for place in range(count)))
    asks = _levels(*((2_000_000 + start + place, quantity) for place in range(count)))
    return DepthUpdate(symbol="X", first=first, last=first, bids=bids, asks=asks, timestamp=first)


def test_a_book_keeps_its_best_levels_however_many_come() -> None:
    """A hundred updates with two thousand new levels each: what is kept is bounded, right, and known to be cut."""
    book = OrderBook()
    book.load(Snapshot(0, (), ()))
    for number in range(1, 101):
        assert book.take(_changes(number, 2000, start=2000 * (100 - number)))
    bids, asks = book.top(10**9)
    assert KEPT <= len(bids) <= MOST
    assert bids[:KEPT] == _levels(*((1_000_000 - place, 1) for place in range(KEPT)))
    assert asks[:KEPT] == _levels(*((2_000_000 + place, 1) for place in range(KEPT)))
    assert book.is_synced
    book.take(_changes(101, KEPT - EDGE // 2, quantity=0))
    book.take(_changes(102, MOST, quantity=0))
    assert not book.is_synced  # what was cut away is not known: an empty side would be a lie


def test_beyond_the_snapshot_nothing_is_kept() -> None:
    """It is never shown, and came without end."""
    book = OrderBook()
    book.load(Snapshot(0, _levels((1_000_001, 1)), _levels((1_999_999, 1)), bids_cut=True, asks_cut=True))
    for number in range(1, 51):
        book.take(_changes(number, 50 * number))
    assert book.top(10**9) == (_levels((1_000_001, 1)), _levels((1_999_999, 1)))


@pytest.mark.parametrize("seed", range(10))
def test_many_changes_at_once_are_the_same_as_one_after_another(seed: int) -> None:
    """Also where a level is named twice, removed and put again."""
    dice = random.Random(seed)
    together, apart = OrderBook(), OrderBook()
    for book in (together, apart):
        book.load(Snapshot(0, _levels(*((place, 1) for place in range(300, 0, -1))), (), bids_cut=seed % 2 == 0))
    changes = [(dice.randrange(400), dice.randrange(3)) for _ in range(10 * BULK)]
    together.take(_update(1, 1, *changes))
    for number, change in enumerate(changes, 1):
        apart.take(_update(number, number, change))
    assert together.top(10**6) == apart.top(10**6)


def test_what_waits_for_a_snapshot_is_bounded_and_not_thrown_away() -> None:
    """Hours of changes of the same prices take the room of one; the oldest of them still joins on."""
    book = OrderBook()
    for number in range(1, 20_001):
        book.take(_update(number, number, (100, number), at=number))
    assert book.buffered == 1
    assert book.load(SNAPSHOT)
    assert (book.update_id, book.top(1)[0]) == (20_000, _levels((100, 20_000)))


def test_a_flood_that_waits_for_a_snapshot_is_cut() -> None:
    """Its newest part is kept: a snapshot is newer than the rest."""
    book = OrderBook()
    for number in range(1, 51):
        book.take(_changes(number, 2000, start=2000 * number))
        assert book.buffered <= BUFFERED
    assert book.load(Snapshot(49, (), ()))
    assert book.update_id == 50
    book = OrderBook()
    assert not book.take(_changes(1, BUFFERED))
    assert book.load(Snapshot(0, (), ()))
    assert book.update_id == 1


def test_ids_that_jump_with_every_update_fill_no_memory() -> None:
    """Each is a hole of its own."""
    book = OrderBook()
    for number in range(5_000):
        book.take(_update(10 * number, 10 * number, (number, 1)))
    assert book.buffered <= RUNS


def test_what_is_heard_last_outlives_an_id_of_garbage() -> None:
    """Nothing joins on to garbage; the changes before a snapshot that is late are kept."""
    book = OrderBook()
    book.take(_update(12, 13, (100, 5)))
    assert not book.restart()
    book.take(_update(10**6, 10**6, (1, 1)))
    book.take(_update(14, 15, (99, 6)))
    assert not book.load(SNAPSHOT)
    assert book.restart()
    assert book.load(Snapshot(12, _levels((100, 1)), ()))
    assert (book.is_synced, book.update_id) == (True, 15)
    assert book.top(9)[0] == _levels((100, 5), (99, 6))


def test_a_book_of_which_nothing_was_heard_has_the_time_of_its_snapshot() -> None:
    """Where something was, that counts."""
    quiet, heard = OrderBook(), OrderBook()
    heard.take(_update(11, 11, at=7))
    for book in (quiet, heard):
        assert book.load(msgspec.structs.replace(SNAPSHOT, timestamp=9))
    assert (quiet.timestamp, heard.timestamp) == (9, 7)


def test_a_gapped_book_whose_newer_changes_are_forgotten_does_not_pass_for_synced() -> None:
    """They were too many; that something is missing is not forgotten with them."""
    book = OrderBook()
    book.load(SNAPSHOT)
    for number in range(RUNS):
        book.take(_update(20 + 10 * number, 20 + 10 * number))
    book.begin_snapshot()
    assert book.take(_update(11, 11)) is False
    assert not book.is_synced
