"""A bell wakes the one task that waits for it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from komas.hub.wakeup import Bell


async def _wait(bell: Bell) -> None:
    await bell.wait()


async def test_a_ring_wakes_whoever_waits_and_is_not_remembered(autojump_clock: trio.testing.MockClock) -> None:
    """Rung twice, it wakes once; what was rung before somebody waited wakes nobody."""
    bell, woken = Bell(), list[float]()

    async def wait() -> None:
        await bell.wait()
        woken.append(trio.current_time())

    assert not bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert bell.is_awaited
        assert not woken
        assert bell.ring()
        assert not bell.is_awaited
        assert not bell.ring()
    assert len(woken) == 1


async def test_whoever_gave_up_is_not_woken(autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled wait leaves the bell as it was before."""
    bell = Bell()
    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught
    assert not bell.is_awaited
    assert not bell.ring()


async def test_a_second_task_is_told_that_it_cannot_wait(autojump_clock: trio.testing.MockClock) -> None:
    """It would take the first one's place, and leave it asleep for ever."""
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait, bell)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await bell.wait()
        assert bell.ring()
