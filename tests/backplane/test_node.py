"""What a node makes of the entries that it reads; each test names a fault there was."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.backplane.memory import MemoryStore
from komas.backplane.node import BARRIER_S, TOGETHER_BYTES
from komas.backplane.ports import Acquired, EntryId
from komas.backplane.retention import Retention
from komas.backplane.wire import Opened, header_of, key_of
from komas.hub.shared_hub import SharedHub
from komas.model.codec import StreamPosition
from tests.backplane.test_lost_tail import BTC, events
from tests.backplane.world import Living, World


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
        _, edge = await world.start_in_turn("auto", "edge")
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


async def test_a_node_that_has_read_another_log_reads_the_one_there_is(autojump_clock: trio.testing.MockClock) -> None:
    """Of two primaries it was at the one that is gone, where a term began later: it read nothing more, for ever."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        leader, edge = await world.start_in_turn("auto", "edge")
        with edge.hub.subscribe([BTC]):
            await trio.sleep(5)
            assert edge.node.mirror.cursor is not None
            edge.node.mirror.cursor = EntryId(edge.node.mirror.cursor.term + 10**6, 3)
            await trio.sleep(10)
            assert edge.node.mirror.cursor == leader.node.mirror.cursor
            assert edge.node.why_not_ready() is None
        nursery.cancel_scope.cancel()


async def test_who_has_what_was_not_told_here_waits_for_it(autojump_clock: trio.testing.MockClock) -> None:
    """A node that had led meanwhile, at a primary that is gone, let a reader in: it got again what came later here."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        node = await world.start()
        await world.ready()
        hub = node.hub
        hub.note_told(10, 20)
        hub.note_told(100, 110)
        hub.begin_at(110)
        for offset, is_untold in ((20, False), (21, True), (99, True), (100, False), (5, False)):
            assert hub.is_untold(offset) is is_untold
            assert hub.has_passed(None, StreamPosition(hub.epoch, offset)) is not is_untold
        began = trio.current_time()
        nursery.start_soon(tell_later, node)
        assert await node.node.passed(StreamPosition(hub.epoch, 30), None)
        assert trio.current_time() == pytest.approx(began + 0.7)
        assert await node.node.passed(StreamPosition(hub.epoch, 60), None)  # nobody knows of it
        assert trio.current_time() == pytest.approx(began + 0.7 + BARRIER_S)
        nursery.cancel_scope.cancel()


async def tell_later(living: Living) -> None:
    """Some of it comes."""
    await trio.sleep(0.7)
    living.hub.note_all_told(50)
    living.node.mirror.moved.unpark_all()
