"""What a node makes of the entries that it reads; each test names a fault there was."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.backplane.memory import MemoryStore
from komas.backplane.node import TOGETHER_BYTES
from komas.backplane.ports import Acquired, EntryId
from komas.backplane.retention import Retention
from komas.backplane.wire import Opened, header_of, key_of
from komas.hub.shared_hub import SharedHub
from tests.backplane.test_lost_tail import BTC, events
from tests.backplane.world import World


async def flushes_for(entries: int, each: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How often a new node has its readers written to for so many entries of so many trades; and all bytes."""
    store = MemoryStore()
    leader = store.connect()
    got = await leader.acquire("n0", 1000.0)
    assert isinstance(got, Acquired)
    at, size = EntryId(got.term, 0), 0
    for number in range(entries):
        record, data = events("e", range(number * each + 1, (number + 1) * each + 1), number * each + 1)
        before, at = at, EntryId(at.term, at.sequence + 1)
        await leader.append(before, at, header_of((Opened(key_of(BTC), "e"), record)), data)
        size += len(data)
    flushed: list[EntryId | None] = []
    async with trio.open_nursery() as nursery:
        world = World(nursery, store)
        edge = await world.start(role="edge")
        flush = SharedHub.flush

        def note(hub: SharedHub) -> None:
            flushed.append(edge.node.mirror.cursor)
            flush(hub)

        monkeypatch.setattr(SharedHub, "flush", note)
        with trio.fail_after(10):
            while edge.node.mirror.cursor != at:
                await edge.node.mirror.moved.park()
            await trio.testing.wait_all_tasks_blocked()
        assert flushed[-1] == at  # nothing waits for the next entry
        nursery.cancel_scope.cancel()
    return len(flushed), size


async def test_entries_that_were_read_together_are_written_together(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge that fell behind wrote to every reader once for each entry, which kept it behind."""
    flushes, _ = await flushes_for(60, 1, monkeypatch)
    assert flushes <= 2


async def test_what_is_written_together_has_a_bound(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader's buffer has a length: it is written to before that is full."""
    flushes, size = await flushes_for(20, 100, monkeypatch)
    assert flushes >= size // (2 * TOGETHER_BYTES)


async def test_a_node_that_missed_entries_is_soon_ready_again(autojump_clock: trio.testing.MockClock) -> None:
    """It was told what is so only once a minute; where all were late, nobody was ready until then."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, MemoryStore(Retention(age_s=5.0)))
        await world.start()
        await world.ready()
        edge = await world.start(role="edge")
        await world.ready()
        with edge.hub.subscribe([BTC]):
            await trio.sleep(10)
            edge.backplane.cut()
            await trio.sleep(10)
            edge.backplane.mend()
            await trio.sleep(1)
            assert edge.node.mirror.holes
            assert not edge.node.mirror.is_complete
            await trio.sleep(8)
            assert edge.node.why_not_ready() is None
        nursery.cancel_scope.cancel()
