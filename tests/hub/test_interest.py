"""A stream is wanted while somebody listens or has pinned it, and for a while after."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.hub.interest import CLOSED_AT_ONCE, Interest
from komas.model.kinds import Venue
from komas.model.streams import Stream
from tests.builders import TICKER, TRADE


class Changes:
    """Notes what opened and closed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Stream]] = []
        self.interest = Interest(
            opened=lambda stream: self.seen.append(("open", stream)),
            closed=lambda stream: self.seen.append(("close", stream)),
            linger_s=30,
        )


async def test_a_stream_lingers_after_its_last_listener(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Thirty seconds after the last one left, not a moment before, the stream is closed."""
    changes = Changes()
    nursery.start_soon(changes.interest.sweep)
    changes.interest.join([TRADE])
    changes.interest.join([TRADE])
    changes.interest.leave([TRADE])
    await trio.sleep(100)
    assert TRADE in changes.interest
    changes.interest.leave([TRADE])
    await trio.sleep(29.9)
    assert TRADE in changes.interest
    await trio.sleep(0.2)
    assert TRADE not in changes.interest
    assert changes.seen == [("open", TRADE), ("close", TRADE)]


async def test_coming_back_in_time_keeps_the_stream(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A page reload costs no subscription."""
    changes = Changes()
    nursery.start_soon(changes.interest.sweep)
    changes.interest.join([TRADE])
    changes.interest.leave([TRADE])
    await trio.sleep(29)
    changes.interest.join([TRADE])
    await trio.sleep(1000)
    assert changes.seen == [("open", TRADE)]


async def test_a_pin_outlives_listeners_and_a_listener_outlives_the_pin(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Unpinning closes a stream at once, unless somebody listens."""
    changes = Changes()
    interest = changes.interest
    nursery.start_soon(interest.sweep)
    interest.pin([TRADE, TICKER])
    interest.join([TRADE])
    interest.leave([TRADE])
    await trio.sleep(1000)
    assert interest.streams() == (TRADE, TICKER)
    interest.join([TRADE])
    interest.unpin([TRADE, TICKER])
    assert interest.streams() == (TRADE,)
    assert not interest.pins()
    interest.leave([TRADE])
    await trio.sleep(31)
    assert not len(interest)


async def test_unpinning_what_was_not_pinned_changes_nothing() -> None:
    """Lingering streams of subscribers are not cut short."""
    changes = Changes()
    changes.interest.join([TRADE])
    changes.interest.leave([TRADE])
    changes.interest.unpin([TRADE, TICKER])
    assert TRADE in changes.interest


async def test_an_abandoned_stream_is_unwanted_at_once_and_counts_stay_right(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The exchange refused it; its subscribers leave later, and a newcomer may ask again."""
    changes = Changes()
    interest = changes.interest
    nursery.start_soon(interest.sweep)
    interest.pin([TRADE])
    interest.join([TRADE])
    interest.abandon(TRADE)
    assert TRADE not in interest
    interest.join([TRADE])
    assert interest.subscribers(TRADE) == 2
    interest.leave([TRADE])
    interest.leave([TRADE])
    await trio.sleep(31)
    assert (len(interest), interest.subscribers(TRADE)) == (0, 0)
    assert [what for what, _ in changes.seen] == ["open", "close", "open", "close"]


async def test_no_change_is_missed_between_a_look_and_the_wait() -> None:
    """A change that came before the wait is seen by it."""
    interest = Changes().interest
    seen = interest.version
    interest.pin([TRADE])
    with trio.fail_after(1):
        assert await interest.changed(seen) != seen


async def test_what_changed_is_taken_in_slices_and_once() -> None:
    """Thousands of streams were gone through for each one that changed: 50 ms without a pause."""
    interest = Changes().interest
    interest.pin([TICKER])
    changes, others = interest.changes(Venue.BINANCE), interest.changes(Venue.BINANCE_USDM)
    assert changes.take(9) == []
    interest.pin([TRADE])
    interest.unpin([TICKER])
    interest.pin([TRADE, TICKER])
    assert (changes.take(1), changes.take(1), changes.take(1)) == ([TRADE], [TICKER], [])
    interest.unpin([TRADE])
    changes.begin_anew()
    assert changes.take(9) == [TRADE, TICKER]
    assert others.take(9) == []


async def test_leaving_twice_is_a_bug_that_shows() -> None:
    """A count below zero would hide a leak."""
    interest = Changes().interest
    interest.join([TRADE])
    interest.leave([TRADE])
    with pytest.raises(KeyError):
        interest.leave([TRADE])


async def test_a_stream_lingers_on_behalf_of_whoever_left_last(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """And is that reader's until it is closed, or wanted again."""
    interest = Changes().interest
    nursery.start_soon(interest.sweep)
    interest.join([TRADE, TICKER], "a")
    interest.join([TRADE], "b")
    interest.join([TRADE], "b")
    assert (list(interest.readers(TRADE)), list(interest.readers(TICKER))) == (["a", "b"], ["a"])
    interest.leave([TRADE, TICKER], "a")
    assert (interest.held("a"), interest.held("b")) == ({TICKER: 0}, {TRADE: 2})
    interest.leave([TRADE], "b")
    interest.leave([TRADE], "b")
    assert (interest.held("b"), list(interest.readers(TRADE))) == ({TRADE: 0}, [])
    interest.join([TRADE], "c")
    assert (interest.held("b"), interest.held("c")) == ({}, {TRADE: 1})
    interest.pin([TICKER])
    assert interest.held("a") == {}
    interest.leave([TRADE], "c")
    interest.unpin([TICKER])
    await trio.sleep(31)
    assert (interest.held("c"), len(interest)) == ({}, 0)


async def test_room_is_made_by_those_for_whom_most_streams_linger() -> None:
    """Oldest first; not of what is about to be wanted; all that is asked for, or nothing."""
    changes = Changes()
    interest = changes.interest
    many = [Stream(TICKER.kind, f"S{number}USDT") for number in range(5)]
    interest.join([TRADE], "few")
    interest.leave([TRADE], "few")
    interest.join(many, "many")
    interest.leave(many, "many")
    interest.join([TICKER], "present")
    interest.pin([many[4]])
    assert interest.make_room(2, spared=[many[0]])
    assert [stream for what, stream in changes.seen if what == "close"] == many[1:3]
    assert not interest.make_room(4)
    assert interest.streams() == (TRADE, many[0], many[3], many[4], TICKER)
    assert interest.make_room(3)
    assert interest.streams() == (many[4], TICKER)


async def test_thousands_of_streams_that_end_together_hold_nothing_up(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Each may have a history to forget: others run in between."""
    closed, most_in_a_row, in_a_row = 0, 0, 0

    def close(_stream: Stream) -> None:
        nonlocal closed, in_a_row, most_in_a_row
        closed, in_a_row = closed + 1, in_a_row + 1
        most_in_a_row = max(most_in_a_row, in_a_row)

    async def others() -> None:
        nonlocal in_a_row
        while True:
            in_a_row = 0
            await trio.lowlevel.checkpoint()

    streams = [Stream(TICKER.kind, f"S{number}USDT") for number in range(2000)]
    interest = Interest(opened=lambda _: None, closed=close, linger_s=30)
    nursery.start_soon(interest.sweep)
    interest.join(streams, "a")
    interest.leave(streams, "a")
    await trio.sleep(30)
    nursery.start_soon(others)
    while closed < len(streams):
        await trio.lowlevel.checkpoint()
    assert most_in_a_row <= 2 * CLOSED_AT_ONCE


async def test_a_new_reader_of_a_stream_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    """Not for each of its subscriptions; and again when it had left."""
    interest = Changes().interest
    told: list[tuple[Stream, str]] = []
    interest.tell_readers(lambda stream, reader: told.append((stream, reader)))
    interest.join([TRADE], "a")
    interest.join([TRADE], "a")
    interest.join([TRADE, TICKER], "b")
    assert told == [(TRADE, "a"), (TRADE, "b"), (TICKER, "b")]
    interest.leave([TRADE], "b")
    interest.join([TRADE], "b")
    assert told[3:] == [(TRADE, "b")]
