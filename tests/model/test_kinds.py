"""One row for each kind of stream, and every part of komas reads it."""

from __future__ import annotations

import typing

import pytest

from komas.model import market
from komas.model.kinds import BY_EVENT, KINDS, Kind, Venue, kinds, kinds_of
from komas.model.streams import INTERVALS, Stream
from komas.venues.binance.names import parse_name
from tests.builders import kline, ticker, trade


def test_every_kind_has_its_row_and_every_event_its_kind() -> None:
    """None is forgotten, and none stands twice."""
    assert set(KINDS) == set(Kind)
    assert set(BY_EVENT) == set(typing.get_args(market.Event))
    assert len({spec.suffix for spec in KINDS.values()}) == len(KINDS)
    for kind, spec in KINDS.items():
        assert spec.event.__struct_config__.tag == str(kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_name_is_read_as_it_is_written(kind: Kind) -> None:
    """Of every kind, with every interval where it has one."""
    for interval in INTERVALS if KINDS[kind].has_interval else (None,):
        stream = Stream.of(kind, "BTCUSDT", interval)
        assert parse_name(stream.name, stream.venue) == stream


def test_only_what_must_not_be_lost_has_a_number() -> None:
    """Trades count by id, closed candles by open time; states may be conflated."""
    assert KINDS[Kind.TRADE].sequence(trade(7)) == 7
    assert KINDS[Kind.KLINE].sequence(kline(2, closed=True)) == 120_000
    assert KINDS[Kind.KLINE].sequence(kline(2)) is None
    assert KINDS[Kind.TICKER].sequence(ticker()) is None
    assert all(spec.is_filled for spec in KINDS.values() if not spec.is_state)


def test_kinds_are_found_by_what_is_true_of_them() -> None:
    """Each is of one venue at least."""
    assert kinds_of(Venue.BINANCE_USDM) == {Kind.MARK_PRICE}
    assert frozenset.union(*map(kinds_of, Venue)) == set(Kind)
    assert kinds(is_book=True) == (Kind.DEPTH,)
    assert kinds(has_all_symbols=True) == (Kind.TICKER, Kind.MINI_TICKER)


def test_a_name_means_what_its_venue_has() -> None:
    """The same name on another market is another stream, or none."""
    assert Stream.of(Kind.MARK_PRICE, "BTCUSDT").venue is Venue.BINANCE_USDM
    assert parse_name("btcusdt@markPrice@1s") is None
    assert parse_name("btcusdt@trade", Venue.BINANCE_USDM) is None
