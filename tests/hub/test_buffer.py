"""One wake-up carries everything; closing and dismissal reach a sleeping listener."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.errors import Dismissed
from komas.hub.buffer import Mailbox
from komas.hub.overflow import Overflow, Post
from komas.model.codec import Envelope
from tests.builders import TRADE, enveloped, trade


def _trade(number: int) -> Envelope:
    return enveloped(TRADE, trade(number), 0)


async def test_one_wake_up_carries_everything(autojump_clock: trio.testing.MockClock) -> None:
    """What came while the listener slept is one batch."""
    mailbox = Mailbox(Post(100))
    for number in (1, 2, 3):
        mailbox.put(_trade(number))
    assert [item.sequence for item in (await mailbox.take()).items if isinstance(item, Envelope)] == [1, 2, 3]
    with trio.move_on_after(60) as scope:
        await mailbox.take()
    assert scope.cancelled_caught


async def test_a_cancelled_take_loses_nothing() -> None:
    """Post that arrives as the listener is cancelled is there the next time."""
    mailbox = Mailbox(Post(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.take)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        mailbox.put(_trade(1))
    mailbox.put(_trade(2))
    with trio.fail_after(1):
        assert len((await mailbox.take()).items) == 2


async def test_tasks_that_listen_together_share_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    """Each item is one task's, all are somebody's, and everybody hears the end."""
    mailbox, heard, ended = Mailbox(Post(100)), list[int](), list[int]()

    async def listen(number: int) -> None:
        with pytest.raises(trio.EndOfChannel):
            while True:
                batch = await mailbox.take()
                heard.extend(item.sequence or 0 for item in batch.items if isinstance(item, Envelope))
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(listen, number)
        for number in range(1, 21):
            await trio.sleep(0.1 * (number % 2))
            mailbox.put(_trade(number))
        await trio.sleep(1)
        mailbox.close()
    assert (heard, sorted(ended)) == (list(range(1, 21)), [0, 1, 2])


async def test_tasks_that_listen_together_are_dismissed_together() -> None:
    """Nobody sleeps on."""
    mailbox, ended = Mailbox(Post(2, Overflow.DISMISS)), list[int]()

    async def listen(number: int) -> None:
        with pytest.raises(Dismissed):
            await mailbox.take()
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(listen, number)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            mailbox.put(_trade(number))
    assert sorted(ended) == [0, 1, 2]


async def test_closing_lets_the_rest_be_taken() -> None:
    """What waits is delivered, then comes the end."""
    mailbox = Mailbox(Post(100))
    mailbox.put(_trade(1))
    mailbox.close()
    mailbox.put(_trade(2))
    assert len((await mailbox.take()).items) == 2
    with pytest.raises(trio.EndOfChannel):
        await mailbox.take()


async def test_a_sleeping_listener_hears_the_end() -> None:
    """Closing wakes whoever waits."""
    mailbox = Mailbox(Post(100))
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with pytest.raises(trio.EndOfChannel):
                await mailbox.take()

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()


async def test_a_listener_that_may_not_lose_is_dismissed() -> None:
    """It is told at once."""
    mailbox = Mailbox(Post(2, Overflow.DISMISS))
    for number in range(5):
        mailbox.put(_trade(number))
    for _ in range(2):  # and as often as it asks
        with pytest.raises(Dismissed):
            await mailbox.take()


async def test_statistics_count_what_waits_and_what_was_dropped() -> None:
    """As telemetry reads them."""
    mailbox = Mailbox(Post(2))
    for number in range(5):
        mailbox.put(_trade(number))
    counts = mailbox.statistics()
    assert (counts.waiting, counts.dropped) == (2, 3)
    await mailbox.take()
    counts = mailbox.statistics()
    assert (counts.waiting, counts.dropped) == (0, 3)
