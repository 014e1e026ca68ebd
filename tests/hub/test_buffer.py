"""One wake-up carries everything; closing and dismissal reach a sleeping subscriber."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.errors import SlowConsumer
from komas.hub.buffer import Buffer
from komas.hub.overflow import ConflatingQueue, Overflow, QueueCounts
from komas.model.codec import Envelope
from tests.builders import TRADE, enveloped, trade


def _trade(number: int) -> Envelope:
    return enveloped(TRADE, trade(number), 0)


async def test_one_wake_up_carries_everything(autojump_clock: trio.testing.MockClock) -> None:
    """What came while the subscriber slept is one batch."""
    buffer = Buffer(ConflatingQueue(100))
    for number in (1, 2, 3):
        buffer.put(_trade(number))
    assert [item.sequence for item in (await buffer.receive()).items if isinstance(item, Envelope)] == [1, 2, 3]
    with trio.move_on_after(60) as scope:
        await buffer.receive()
    assert scope.cancelled_caught


async def test_a_cancelled_take_loses_nothing() -> None:
    """What arrives as the subscriber is cancelled is there the next time."""
    buffer = Buffer(ConflatingQueue(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        buffer.put(_trade(1))
    buffer.put(_trade(2))
    with trio.fail_after(1):
        assert len((await buffer.receive()).items) == 2


async def test_tasks_that_listen_together_share_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    """Each item is one task's, all are somebody's, and everybody hears the end."""
    buffer, heard, ended = Buffer(ConflatingQueue(100)), list[int](), list[int]()

    async def subscribe(number: int) -> None:
        with pytest.raises(trio.EndOfChannel):
            while True:
                batch = await buffer.receive()
                heard.extend(item.sequence or 0 for item in batch.items if isinstance(item, Envelope))
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(subscribe, number)
        for number in range(1, 21):
            await trio.sleep(0.1 * (number % 2))
            buffer.put(_trade(number))
        await trio.sleep(1)
        buffer.close()
    assert (heard, sorted(ended)) == (list(range(1, 21)), [0, 1, 2])


async def test_tasks_that_listen_together_are_dismissed_together() -> None:
    """Nobody sleeps on."""
    buffer, ended = Buffer(ConflatingQueue(2, Overflow.DISCONNECT)), list[int]()

    async def subscribe(number: int) -> None:
        with pytest.raises(SlowConsumer):
            await buffer.receive()
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(subscribe, number)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            buffer.put(_trade(number))
    assert sorted(ended) == [0, 1, 2]


async def test_closing_lets_the_rest_be_taken() -> None:
    """What waits is delivered, then comes the end."""
    buffer = Buffer(ConflatingQueue(100))
    buffer.put(_trade(1))
    buffer.close()
    buffer.put(_trade(2))
    assert len((await buffer.receive()).items) == 2
    with pytest.raises(trio.EndOfChannel):
        await buffer.receive()


async def test_a_sleeping_listener_hears_the_end() -> None:
    """Closing wakes whoever waits."""
    buffer = Buffer(ConflatingQueue(100))
    async with trio.open_nursery() as nursery:

        async def subscribe() -> None:
            with pytest.raises(trio.EndOfChannel):
                await buffer.receive()

        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        buffer.close()


async def test_a_listener_that_may_not_lose_is_dismissed() -> None:
    """It is told at once."""
    buffer = Buffer(ConflatingQueue(2, Overflow.DISCONNECT))
    for number in range(5):
        buffer.put(_trade(number))
    for _ in range(2):  # and as often as it asks
        with pytest.raises(SlowConsumer):
            await buffer.receive()


async def test_what_waits_and_what_was_dropped_is_counted() -> None:
    """As metrics reads it; what was dropped by all that share the counts."""
    counts = QueueCounts()
    buffer = Buffer(ConflatingQueue(2, counts=counts))
    for number in range(5):
        buffer.put(_trade(number))
    assert (buffer.waiting, counts.dropped) == (2, 3)
    await buffer.receive()
    assert (buffer.waiting, counts.dropped) == (0, 3)
