"""What is open on behalf of one address is bounded, what lingers for it included; what lingers makes room."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.hub.interest import Interest
from komas.model.kinds import Kind
from komas.model.streams import Stream
from komas.settings import Settings
from komas.web.request_rates import ADDRESSES as REMEMBERED
from komas.web.stream_limits import REFILL_S, StreamLimits

_DIFFERENT = "too many different streams from this address"
_BOOKS = "too many order books from this address"
_FAST = "too many new streams from this address in a short time"
_FULL = "too many streams are open"


class _House:
    def __init__(self, **settings: int) -> None:
        self.interest = Interest(opened=lambda _: None, closed=lambda _: None)
        self.limits = StreamLimits(Settings(**settings), self.interest)  # type: ignore[arg-type]

    def open(self, reader: str, streams: list[Stream]) -> str | None:
        """As a client does: ask, and read."""
        reason = self.limits.why_full(reader, streams)
        if reason is None:
            self.interest.join(streams, reader)
        return reason

    def look(self, reader: str, streams: list[Stream]) -> str | None:
        """As a client that leaves at once."""
        reason = self.open(reader, streams)
        if reason is None:
            self.interest.leave(streams, reader)
        return reason


def _streams(first: int, count: int, kind: Kind = Kind.TICKER) -> list[Stream]:
    return [Stream(kind, f"S{number}USDT") for number in range(first, first + count)]


async def test_who_opens_and_leaves_takes_no_more_than_one_who_stays(autojump_clock: trio.testing.MockClock) -> None:
    """Two hundred streams, three times a second, each two hundred others: all ten thousand were that address's."""
    house = _House(max_streams=1000, max_streams_per_address=100)
    for number in range(100):
        house.look("attacker", _streams(number * 50, 50))
        assert len(house.interest.held("attacker")) <= 100
        assert house.open(f"reader {number}", [Stream(Kind.TRADE, f"S{number % 9}USDT")]) is None
        await trio.sleep(0.3)
    assert house.limits.has_room_for_pins(_streams(0, 800))


async def test_what_lingers_for_an_address_goes_when_it_wants_others(autojump_clock: trio.testing.MockClock) -> None:
    """Who flips through pages is served; what it still reads stays, and bounds it."""
    house = _House(max_streams_per_address=10)
    assert house.open("a", _streams(0, 4)) is None
    assert house.look("a", _streams(4, 6)) is None
    assert house.look("a", _streams(7, 6)) is None
    assert house.interest.streams() == (*_streams(0, 4), *_streams(7, 6))
    assert house.open("a", _streams(20, 7)) == _DIFFERENT
    assert len(house.interest) == 10  # nothing was closed in vain
    assert house.open("a", _streams(0, 4)) is None


async def test_order_books_have_a_lower_bound(autojump_clock: trio.testing.MockClock) -> None:
    """Each costs a snapshot; other streams of the same address are not concerned."""
    house = _House(max_streams_per_address=10, max_books_per_address=3)
    assert house.look("a", _streams(0, 3, Kind.DEPTH)) is None
    assert house.open("a", _streams(3, 3, Kind.DEPTH)) is None
    assert house.open("a", _streams(6, 1, Kind.DEPTH)) == _BOOKS
    assert house.open("a", _streams(0, 7)) is None
    assert house.open("b", _streams(6, 3, Kind.DEPTH)) is None
    assert sum(house.limits.statistics().refused.values()) == 1


async def test_new_streams_have_a_pace(autojump_clock: trio.testing.MockClock) -> None:
    """Each is a request to the exchange, of which there are few a second for everybody."""
    house = _House(max_streams_per_address=10)
    opened = 0
    for _ in range(600):
        opened += 5 * (house.look("a", _streams(opened, 5)) is None)
        await trio.sleep(0.1)
    assert 10 < opened <= 20 + 10
    assert house.open("a", _streams(opened, 10)) == _FAST
    assert house.open("b", _streams(opened, 10)) is None
    assert house.open("a", _streams(opened, 10)) is None  # nothing new to the exchange
    house.interest.leave(_streams(opened, 10), "a")
    await trio.sleep(REFILL_S)
    assert house.look("a", _streams(1000, 10)) is None


async def test_pins_have_room_that_no_reader_can_take(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever administers was answered 409 while readers had everything."""
    house = _House(max_streams=100, max_streams_per_address=50)
    assert house.open("a", _streams(0, 50)) is None
    assert house.look("b", _streams(50, 40)) is None
    assert house.open("c", _streams(100, 45)) == _FULL
    assert len(house.interest) == 90  # nothing was closed in vain
    assert house.open("c", _streams(100, 40)) is None
    assert house.open("d", _streams(200, 1)) == _FULL
    assert not house.limits.has_room_for_pins(_streams(300, 11))
    assert house.limits.has_room_for_pins(_streams(300, 10))
    assert house.limits.statistics().made_room == 40


@pytest.mark.parametrize("most", [1, 9])
async def test_a_small_house_is_all_for_readers(most: int, autojump_clock: trio.testing.MockClock) -> None:
    """A tenth of few is none."""
    house = _House(max_streams=most)
    assert house.open("a", _streams(0, most)) is None
    assert house.open("a", _streams(most, 1)) == _FULL


async def test_addresses_are_forgotten_after_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    """What is remembered of their pace costs little, however many come."""
    house = _House(max_streams=100_000)
    for number in range(3 * REMEMBERED):
        assert house.look(f"reader {number}", _streams(number, 1)) is None
        await trio.sleep(1)
    assert len(house.limits._openings) <= REMEMBERED  # noqa: SLF001 - nothing else shows it
