"""What every store behind the backplane promises: one suite, for the store in memory and for a real Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import pytest
import trio
import trio.testing

from komas.backplane.ports import VERSION, Acquired, Backplane, Entry, EntryId, Fenced, Held
from komas.backplane.retention import Retention

LONG_S: Final = 60.0  # a lease that no test outlives, and a wait that something ends before


class World(Protocol):
    """One store, and what a test may do to it."""

    def connect(
        self, *, version: int = VERSION, retention: Retention | None = None
    ) -> AbstractAsyncContextManager[Backplane]:
        """A node's connection."""

    async def wipe(self) -> None:
        """The store forgets everything."""

    def losing_tail(self) -> AbstractAsyncContextManager[None]:
        """What is written inside is unknown to the replica that takes over at its end."""


async def lead(node: Backplane, name: str = "a", lease_s: float = LONG_S) -> EntryId:
    """Take the lease; returns the place of the term's first entry."""
    acquired = await node.acquire(name, lease_s)
    assert isinstance(acquired, Acquired)
    return EntryId(acquired.term, 0)


async def write(node: Backplane, previous: EntryId, entries: int = 1, size: int = 3) -> EntryId:
    """Append some entries; returns the place of the last one."""
    for _ in range(entries):
        entry = EntryId(previous.term, previous.sequence + 1)
        await node.append(previous, entry, b"h%d" % entry.sequence, b"d" * size)
        previous = entry
    return previous


async def read_all(node: Backplane, after: EntryId | None = None) -> list[Entry]:
    """What is in the log."""
    return await node.read(after, most=100_000, wait_s=0)


async def places(node: Backplane) -> list[EntryId]:
    """Places of what is in the log."""
    return [entry.id for entry in await read_all(node)]


class BackplaneContract:
    """The suite; its subclass has the fixture ``world``."""

    async def test_a_new_log_is_empty(self, world: World) -> None:
        """Nothing was appended: no newest entry, nothing to read, and a read that does not wait returns."""
        async with world.connect() as node:
            assert await node.newest() is None
            assert await read_all(node) == []

    async def test_a_term_begins_with_an_entry_that_names_what_was_before(self, world: World) -> None:
        """A mirror learns from it who leads, and what the store knew."""
        async with world.connect() as node:
            first = await lead(node, "a")
            last = await write(node, first, 2)
            again = await node.acquire("a", LONG_S)
            assert isinstance(again, Acquired)
            assert again.previous == last
            assert again.term > first.term
            entries = await read_all(node)
            assert entries[0] == Entry(first, VERSION, node="a", previous=None)
            assert entries[-1] == Entry(EntryId(again.term, 0), VERSION, node="a", previous=last)
            assert await node.newest() == EntryId(again.term, 0)

    async def test_entries_come_back_as_they_were_written(self, world: World) -> None:
        """Bytes are bytes, empty ones too; a keyframe is told from the rest."""
        async with world.connect() as node:
            first = await lead(node)
            one, two = EntryId(first.term, 1), EntryId(first.term, 2)
            await node.append(first, one, bytes(range(256)), b"id: 1\r\n\n\x00", is_whole=True)
            await node.append(one, two, b"", b"")
            assert await read_all(node, first) == [
                Entry(one, VERSION, bytes(range(256)), b"id: 1\r\n\n\x00", is_whole=True),
                Entry(two, VERSION),
            ]

    async def test_a_read_takes_up_to_so_many_after_a_place(self, world: World) -> None:
        """In order, from anywhere; ``None`` is the beginning; a place beyond the end has nothing behind it."""
        async with world.connect() as node:
            first = await lead(node)
            last = await write(node, first, 5)
            assert [entry.id.sequence for entry in await node.read(None, most=3, wait_s=0)] == [0, 1, 2]
            assert [entry.id.sequence for entry in await node.read(EntryId(first.term, 2), most=2, wait_s=0)] == [3, 4]
            assert await read_all(node, last) == []
            assert await read_all(node, EntryId(last.term + 1, 0)) == []
            assert len(await read_all(node, EntryId(1, 7))) == 6

    async def test_a_waiting_read_ends_with_the_first_entry(self, world: World) -> None:
        """It returns what was appended meanwhile, long before its time is over."""
        async with world.connect() as reader, world.connect() as writer:
            first = await lead(writer)
            read: list[Entry] = []

            async def wait() -> None:
                read.extend(await reader.read(first, most=10, wait_s=LONG_S))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.05)
                await write(writer, first)
            assert [entry.id for entry in read] == [EntryId(first.term, 1)]

    async def test_a_read_of_which_nothing_comes_ends_in_time(self, world: World) -> None:
        """And returns nothing."""
        async with world.connect() as node:
            first = await lead(node)
            started = trio.current_time()
            assert await node.read(first, most=10, wait_s=0.2) == []
            assert trio.current_time() - started >= 0.19

    async def test_one_node_holds_the_lease(self, world: World) -> None:
        """Another one is told who does, and for how long; it writes no entry."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one, "a")
            held = await other.acquire("b", LONG_S)
            assert isinstance(held, Held)
            assert held.node == "a"
            assert 0 < held.left_s <= LONG_S
            assert await places(other) == [first]

    async def test_a_lease_ends_unless_it_is_renewed(self, world: World) -> None:
        """Then somebody else begins a term, and the one before can neither renew nor release."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one, "a", 0.2)
            assert await one.renew("a", first.term, LONG_S)
            assert isinstance(await other.acquire("b", LONG_S), Held)
            assert await one.renew("a", first.term, 0.1)
            await trio.sleep(0.2)
            assert not await one.renew("a", first.term, LONG_S)
            second = await lead(other, "b")
            assert second.term > first.term
            assert not await one.renew("a", first.term, LONG_S)
            await one.release("a", first.term)
            assert await other.renew("b", second.term, LONG_S)

    async def test_a_released_lease_is_free_at_once(self, world: World) -> None:
        """By the node and of the term that held it; the name alone is not enough."""
        async with world.connect() as one, world.connect() as other:
            old = await lead(one, "a")
            first = await lead(one, "a")
            await one.release("a", old.term)
            await one.release("b", first.term)
            assert isinstance(await other.acquire("b", LONG_S), Held)
            assert not await one.renew("a", old.term, LONG_S)
            await one.release("a", first.term)
            assert isinstance(await other.acquire("b", LONG_S), Acquired)

    async def test_a_node_whose_name_begins_like_the_holders_does_not_hold_it(self, world: World) -> None:
        """Names are compared whole, with whatever is in them."""
        async with world.connect() as node:
            await lead(node, "edge:1")
            for name in ("edge", "edge:", "edge:1:", "edge:12", ""):
                held = await node.acquire(name, LONG_S)
                assert isinstance(held, Held)
                assert held.node == "edge:1"

    async def test_a_writer_that_was_overtaken_is_refused(self, world: World) -> None:
        """The fence: a paused leader wakes up, its lease is gone, and nothing of it reaches the log."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one, "a", 0.05)
            last = await write(one, first, 2)
            await trio.sleep(0.1)
            second = await lead(other, "b")
            with pytest.raises(Fenced) as refusal:
                await write(one, last)
            assert refusal.value.newest == second
            await write(other, second)
            with pytest.raises(Fenced):
                await one.append(last, EntryId(last.term, 3), b"", b"", starts_anew=True)
            assert await places(one) == [
                first,
                EntryId(first.term, 1),
                last,
                second,
                EntryId(second.term, 1),
            ]

    async def test_an_entry_is_not_appended_twice(self, world: World) -> None:
        """A writer that does not know whether its append was done, and repeats it, is refused with what is there."""
        async with world.connect() as node:
            first = await lead(node)
            last = await write(node, first)
            with pytest.raises(Fenced) as refusal:
                await write(node, first)
            assert refusal.value.newest == last
            assert await places(node) == [first, last]

    async def test_an_entry_behind_its_predecessor_only(self, world: World) -> None:
        """A caller that asks for an id that is not newer has a bug, and hears so."""
        async with world.connect() as node:
            first = await lead(node)
            with pytest.raises(ValueError, match="behind"):
                await node.append(first, first, b"", b"")

    async def test_of_two_writers_one_wins(self, world: World) -> None:
        """Both append behind the same entry at the same time: one is in the log, the other is refused."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one)
            refused: list[str] = []

            async def append(node: Backplane, name: str) -> None:
                try:
                    await node.append(first, EntryId(first.term, 1), name.encode(), b"")
                except Fenced:
                    refused.append(name)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(append, one, "one")
                nursery.start_soon(append, other, "other")
            written = [entry.header.decode() for entry in await read_all(one, first)]
            assert len(written) == len(refused) == 1
            assert {*written, *refused} == {"one", "other"}

    async def test_terms_rise_after_the_store_forgot_everything(self, world: World) -> None:
        """A reader that waits behind the last entry still gets what is written then; the writer is refused."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one, "a")
            last = await write(one, first, 3)
            await trio.sleep(0.01)
            await world.wipe()
            with pytest.raises(Fenced) as refusal:
                await write(one, last)
            assert refusal.value.newest is None
            assert not await one.renew("a", first.term, LONG_S)
            acquired = await other.acquire("b", LONG_S)
            assert isinstance(acquired, Acquired)
            assert acquired.previous is None
            assert acquired.term > last.term
            assert [entry.id for entry in await read_all(one, last)] == [EntryId(acquired.term, 0)]

    async def test_a_term_is_beyond_what_its_node_has_seen(self, world: World) -> None:
        """The store forgot it, and its clock is behind: who waits behind that entry still gets what is written then."""
        async with world.connect() as node:
            first = await lead(node)
            seen = EntryId(first.term + 3_600_000, 7)
            acquired = await node.acquire("a", LONG_S, seen=seen)
            assert acquired == Acquired(seen.term + 1, first)
            assert [entry.id for entry in await read_all(node, seen)] == [EntryId(seen.term + 1, 0)]
            assert await node.acquire("a", LONG_S, seen=first) == Acquired(seen.term + 2, EntryId(seen.term + 1, 0))

    async def test_a_lost_tail_is_noticed(self, world: World) -> None:
        """A replica without the newest entries took over: their writer is refused, a new term names the older place."""
        async with world.connect() as node:
            first = await lead(node)
            known = await write(node, first, 2)
            async with world.losing_tail():
                lost = await write(node, known, 3)
            assert await node.newest() == known
            with pytest.raises(Fenced) as refusal:
                await write(node, lost)
            assert refusal.value.newest == known
            second = await lead(node)
            entries = await read_all(node, lost)
            assert [(entry.id, entry.previous) for entry in entries] == [(second, known)]

    async def test_a_lost_term_is_noticed(self, world: World) -> None:
        """The lost tail began with a new leader: that term never existed, and the one before goes on."""
        async with world.connect() as one, world.connect() as other:
            first = await lead(one, "a")
            async with world.losing_tail():
                await one.release("a", first.term)
                second = await lead(other, "b")
                last = await write(other, second)
            assert not await other.renew("b", second.term, LONG_S)
            with pytest.raises(Fenced):
                await write(other, last)
            await write(one, first)

    async def test_an_entry_that_starts_anew_is_the_only_one(self, world: World) -> None:
        """Everything before is deleted; what follows follows it."""
        async with world.connect() as node:
            first = await lead(node)
            last = await write(node, first, 4)
            anew = EntryId(first.term, last.sequence + 1)
            await node.append(last, anew, b"h", b"d", is_whole=True, starts_anew=True)
            assert await read_all(node) == [Entry(anew, VERSION, b"h", b"d", is_whole=True)]
            assert await read_all(node, first) == await read_all(node)
            after = await write(node, anew)
            assert await places(node) == [anew, after]

    async def test_the_log_is_kept_within_its_bytes(self, world: World) -> None:
        """The oldest entries go; a reader that was behind them sees the hole: the ids are not contiguous."""
        async with world.connect(retention=Retention(size=10_000)) as node:
            first = await lead(node)
            last = await write(node, first, 100, size=1_000)
            left = await places(node)
            assert left == [EntryId(first.term, sequence) for sequence in range(left[0].sequence, last.sequence + 1)]
            assert 5 <= len(left) <= 15
            assert await places(node) == [entry.id for entry in await read_all(node, first)]

    async def test_the_log_is_kept_for_its_time(self, world: World) -> None:
        """Old entries go with the next that comes, also those that another writer left."""
        retention = Retention(age_s=0.2, step_s=0.05)
        async with world.connect(retention=retention) as one, world.connect(retention=retention) as other:
            first = await lead(one, "a", 0.05)
            last = await write(one, first, 3)
            await trio.sleep(0.4)
            second = await lead(other, "b")
            await trio.sleep(0.4)
            newest = await write(other, second)
            left = await places(other)
            assert newest in left
            assert not {first, EntryId(first.term, 1), EntryId(first.term, 2), last} & set(left)

    async def test_a_young_entry_is_kept(self, world: World) -> None:
        """However many there are, and whoever leads."""
        async with world.connect() as node:
            wrote = []
            for _ in range(3):
                first = await lead(node)
                last = await write(node, first, 50)
                wrote += [EntryId(first.term, sequence) for sequence in range(last.sequence + 1)]
            assert await places(node) == wrote

    async def test_a_slow_reader_gets_all_that_the_log_holds(self, world: World) -> None:
        """Written while it does not read: in order and whole, in several calls."""
        async with world.connect() as writer, world.connect() as reader:
            first = await lead(writer)
            last = await write(writer, first, 300)
            place, read = first, 0
            while entries := await reader.read(place, most=70, wait_s=0):
                assert [entry.header for entry in entries] == [b"h%d" % entry.id.sequence for entry in entries]
                assert entries[0].id == EntryId(place.term, place.sequence + 1)
                place, read = entries[-1].id, read + len(entries)
            assert (place, read) == (last, 300)

    async def test_an_entry_whose_version_is_unknown_has_no_content(self, world: World) -> None:
        """A reader of an older version sees that something is there, and of which version."""
        async with world.connect() as node, world.connect(version=999) as newer:
            first = await lead(newer, "a")
            last = await write(newer, first)
            assert await read_all(node) == [Entry(first, 999), Entry(last, 999)]
            assert await node.newest() == last

    async def test_a_fact_is_kept_until_it_is_dropped(self, world: World) -> None:
        """By name and node; a newer value takes the place of the one before."""
        async with world.connect() as one, world.connect() as other:
            await one.keep("nodes", "a", b"1", LONG_S)
            await other.keep("nodes", "b:2", bytes(range(256)), LONG_S)
            await one.keep("want", "a", b"", LONG_S)
            await one.keep("nodes", "a", b"3", LONG_S)
            assert await other.kept("nodes") == {"a": b"3", "b:2": bytes(range(256))}
            assert await other.kept("want") == {"a": b""}
            assert await other.kept("nothing") == {}
            await one.drop("nodes", "a")
            await one.drop("nodes", "c")
            assert await one.kept("nodes") == {"b:2": bytes(range(256))}

    async def test_a_fact_expires_unless_it_is_kept_again(self, world: World) -> None:
        """Each on its own: a node that died is forgotten, those beside it are not."""
        async with world.connect() as node:
            await node.keep("nodes", "dead", b"1", 0.1)
            await node.keep("nodes", "alive", b"1", 0.1)
            await node.keep("nodes", "alive", b"2", LONG_S)
            await node.keep("nodes", "long", b"3", LONG_S)
            await trio.sleep(0.2)
            assert await node.kept("nodes") == {"alive": b"2", "long": b"3"}

    async def test_wishes_come_in_order_each_with_its_place(self, world: World) -> None:
        """And a reader goes on behind any of them."""
        async with world.connect() as node:
            for number in range(5):
                await node.wish(b"%d" % number)
            first = await node.wishes("", most=2, wait_s=0)
            rest = await node.wishes(first[-1][0], most=10, wait_s=0)
            assert [value for _, value in first + rest] == [b"0", b"1", b"2", b"3", b"4"]
            assert await node.wishes(rest[-1][0], most=10, wait_s=0) == []

    async def test_a_wish_ends_the_wait_for_one(self, world: World) -> None:
        """Also the very first one."""
        async with world.connect() as leader, world.connect() as node:
            heard: list[bytes] = []

            async def hear() -> None:
                heard.extend(value for _, value in await leader.wishes("", most=10, wait_s=LONG_S))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                await trio.sleep(0.05)
                await node.wish(b"subscribe")
            assert heard == [b"subscribe"]

    async def test_a_wish_after_the_store_forgot_everything_is_heard(self, world: World) -> None:
        """The place that the leader knows means nothing any more, and hides nothing."""
        async with world.connect() as node:
            await node.wish(b"before")
            ((place, _),) = await node.wishes("", most=10, wait_s=0)
            await world.wipe()
            assert await node.wishes(place, most=10, wait_s=0) == []
            await trio.sleep(0.01)
            await node.wish(b"after")
            assert [value for _, value in await node.wishes(place, most=10, wait_s=LONG_S)] == [b"after"]

    async def test_a_place_that_the_store_never_gave_hides_no_wish(self, world: World) -> None:
        """As after a wipe, where the store's clock went back."""
        async with world.connect() as node:
            await node.wish(b"1")
            assert [value for _, value in await node.wishes("99999999999999-3", most=10, wait_s=LONG_S)] == [b"1"]

    async def test_an_answer_reaches_the_one_who_asked(self, world: World) -> None:
        """Once, by its question's name, whether it came before it was waited for or after."""
        async with world.connect() as leader, world.connect() as node:
            await leader.answer("q1", b"\x00yes")
            assert await node.answer_to("q2", 0) is None
            assert await node.answer_to("q1", LONG_S) == b"\x00yes"
            assert await node.answer_to("q1", 0.05) is None
            got: list[bytes | None] = []

            async def ask() -> None:
                got.append(await node.answer_to("q3", LONG_S))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.sleep(0.05)
                await leader.answer("q3", b"no")
            assert got == [b"no"]

    async def test_a_cancelled_call_leaves_a_connection_that_works(self, world: World) -> None:
        """Each kind of call, cancelled at several moments, then the same connection does everything again."""
        async with world.connect() as node:
            first = await lead(node, "a")
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: node.acquire("b", LONG_S),
                lambda: node.renew("a", first.term, LONG_S),
                lambda: node.release("b", first.term),
                lambda: node.append(EntryId(1, 1), EntryId(1, 2), b"", b""),
                node.newest,
                lambda: node.read(first, most=10, wait_s=LONG_S),
                lambda: node.keep("n", "a", b"x", LONG_S),
                lambda: node.drop("n", "b"),
                lambda: node.kept("n"),
                lambda: node.wish(b"w"),
                lambda: node.wishes("99999999999999-3", most=1, wait_s=LONG_S),
                lambda: node.answer("q", b"x"),
                lambda: node.answer_to("p", LONG_S),
            ]
            for call in calls:
                for after_s in (0.0, 0.0005, 0.01):
                    with trio.move_on_after(after_s):
                        try:
                            await call()
                        except Fenced:
                            continue
            last = await write(node, first, 2)
            assert await places(node) == [first, EntryId(first.term, 1), last]
            assert await node.renew("a", first.term, LONG_S)
            await node.answer("p", b"y")
            assert await node.answer_to("p", LONG_S) == b"y"
            await node.keep("n", "a", b"z", LONG_S)
            assert await node.kept("n") == {"a": b"z"}

    async def test_calls_do_not_wait_for_each_other(self, world: World) -> None:
        """A waiting read, a wait for a wish and several for answers hold up no append."""
        async with world.connect() as node:
            first = await lead(node)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: node.read(EntryId(first.term + 9, 0), most=1, wait_s=LONG_S))
                nursery.start_soon(lambda: node.wishes("", most=1, wait_s=LONG_S))
                for number in range(10):
                    nursery.start_soon(node.answer_to, f"q{number}", LONG_S)
                await trio.sleep(0.05)
                with trio.fail_after(5):
                    await write(node, first, 20)
                nursery.cancel_scope.cancel()
