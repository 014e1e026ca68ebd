"""A bell wakes the one task that waits for it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from komas.hub.wakeup import Wakeup


async def _wait(wakeup: Wakeup) -> None:
    await wakeup.wait()


async def test_a_ring_wakes_whoever_waits_and_is_not_remembered(autojump_clock: trio.testing.MockClock) -> None:
    """Rung twice, it wakes once; what was rung before somebody waited wakes nobody."""
    wakeup, woken = Wakeup(), list[float]()

    async def wait() -> None:
        await wakeup.wait()
        woken.append(trio.current_time())

    assert not wakeup.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert wakeup.is_awaited
        assert not woken
        assert wakeup.wake()
        assert not wakeup.is_awaited
        assert not wakeup.wake()
    assert len(woken) == 1


async def test_whoever_gave_up_is_not_woken(autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled wait leaves the bell as it was before."""
    wakeup = Wakeup()
    with trio.move_on_after(1) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught
    assert not wakeup.is_awaited
    assert not wakeup.wake()


async def test_a_second_task_is_told_that_it_cannot_wait(autojump_clock: trio.testing.MockClock) -> None:
    """It would take the first one's place, and leave it asleep for ever."""
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait, wakeup)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        assert wakeup.wake()
