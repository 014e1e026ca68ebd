"""A stream is wanted while somebody listens or has pinned it, and for a while after."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.hub.interest import Interest
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


async def test_leaving_twice_is_a_bug_that_shows() -> None:
    """A count below zero would hide a leak."""
    interest = Changes().interest
    interest.join([TRADE])
    interest.leave([TRADE])
    with pytest.raises(KeyError):
        interest.leave([TRADE])
