"""The switches of the store in memory do to a node what they say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from komas.backplane.memory import MemoryStore
from komas.backplane.ports import BackplaneError, EntryId
from tests.backplane.contract import LONG_S, lead, places, write


async def fails(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds until it raises ``BackplaneError``."""
    started = trio.current_time()
    with pytest.raises(BackplaneError):
        await call()
    return trio.current_time() - started


async def test_a_cut_connection_fails_and_others_do_not(autojump_clock: trio.testing.MockClock) -> None:
    """One node is alone; mended, it goes on."""
    store = MemoryStore()
    one, other = store.connect(), store.connect()
    first = await lead(one)
    one.cut()
    assert await fails(one.newest) == 0
    assert await other.newest() == first
    store.cut()
    assert await fails(other.newest) == 0
    store.mend()
    assert await one.newest() == await other.newest() == first


async def test_a_call_in_flight_at_the_cut_fails_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Also one that waits for something."""
    store = MemoryStore()
    node = store.connect()
    waited: list[float] = []

    async def wait() -> None:
        waited.append(await fails(lambda: node.read(None, most=1, wait_s=LONG_S)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(3)
        node.cut()
    assert waited == [pytest.approx(3)]


@pytest.mark.parametrize(("cut_after_s", "is_done"), [(0.2, False), (0.8, True)])
async def test_whether_a_cut_call_was_done_is_unknown(
    autojump_clock: trio.testing.MockClock, cut_after_s: float, *, is_done: bool
) -> None:
    """Cut on its way there, it was not done; cut on the way back, it was."""
    store = MemoryStore()
    slow, other = store.connect(delay_s=1.0), store.connect()
    first = await lead(other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, lambda: write(slow, first))
        await trio.sleep(cut_after_s)
        slow.cut()
    assert len(await places(other)) == (2 if is_done else 1)


async def test_a_frozen_store_fails_in_time_and_does_late_what_it_was_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody waits for the append any more when it is done."""
    store = MemoryStore()
    node = store.connect()
    first = await lead(node)
    store.freeze()
    assert await fails(lambda: write(node, first)) == pytest.approx(2)
    assert await fails(lambda: node.append(EntryId(1, 1), EntryId(1, 2), b"", b"")) == pytest.approx(2)
    store.thaw()
    assert await node.newest() == EntryId(first.term, 1)


async def test_a_call_during_a_short_freeze_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    """As of a store that was busy."""
    store = MemoryStore()
    node = store.connect()
    first = await lead(node)
    async with trio.open_nursery() as nursery:
        store.freeze()
        nursery.start_soon(write, node, first)
        await trio.sleep(1)
        store.thaw()
    assert await node.newest() == EntryId(first.term, 1)


async def test_a_lost_tail_brings_back_what_it_had_deleted(autojump_clock: trio.testing.MockClock) -> None:
    """An entry that started anew is lost: the log is what it was before it, and so is the lease."""
    store = MemoryStore()
    node, other = store.connect(), store.connect()
    first = await lead(node, "a")
    last = await write(node, first, 2)
    before = await places(node)
    await node.append(last, EntryId(first.term, 3), b"", b"", starts_anew=True)
    await node.release("a", first.term)
    await lead(other, "b")
    store.lose_tail(2)
    assert await places(node) == before
    assert await node.newest() == last
    assert await node.renew("a", first.term, LONG_S)
