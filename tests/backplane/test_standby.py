"""Nodes that stand by, connected to the exchange: they go on where the leader ended, without asking for anything."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from komas.backplane.leader import Leader, LeaderOptions
from komas.backplane.memory import MemoryStore
from komas.backplane.mirror import Mirror
from komas.backplane.node import NodeOptions
from komas.backplane.ports import Acquired, EntryId
from komas.backplane.wire import Facts, Opened, header_of, key_of, read_header
from komas.hub.shared_hub import SharedHub
from komas.model.market import FeedState
from komas.web.encoding import read_event, server_sent_event
from tests.backplane.world import BTC, FakeRest, Living, Reader, World, trades_by


async def other_than(leader: Living, world: World) -> Living:
    """Wait until another one leads."""
    with trio.fail_after(60):
        while [living for living in world.leaders if living is not leader] == []:  # noqa: ASYNC110 - time makes it so
            await trio.sleep(0.01)
    return next(living for living in world.leaders if living is not leader)


@pytest.mark.parametrize("standby", ["cold", "hot"])
@pytest.mark.parametrize("fault", ["kill", "resign"])
async def test_without_rest_a_hot_takeover_has_no_gap(
    standby: str, fault: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A cold one has, where nobody answers: what came until it was connected is lost."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=standby == "hot")
        first = await world.start()
        await world.ready()
        await world.start()
        edge = await world.start(role="edge")
        await world.ready()
        reader = Reader(world, [BTC], random.Random(1))
        nursery.start_soon(reader.stay_at, edge)
        await trio.sleep(20)
        world.rest.answers = False
        world.rest.asked.clear()
        began_at = trio.current_time()
        if fault == "kill":
            world.kill(first)
        else:
            first.node.resign()
        await other_than(first, world)
        took_s = trio.current_time() - began_at
        await trio.sleep(5)
        head = trades_by(trio.current_time())
        nursery.cancel_scope.cancel()
    assert took_s < (3.5 if fault == "kill" else 0.3)
    assert reader.numbers[BTC][-1] > head - 20
    if standby == "hot":
        reader.check()
        assert not reader.gaps
        assert not world.rest.asked
    else:
        assert len(reader.gaps) == 1


async def test_a_node_that_stands_by_has_the_leaders_streams_and_no_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It opens what the leader opens, and closes what the leader closes; the leader's refusals are its own."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=True)
        first, second = await world.start_in_turn("auto", "auto")
        await trio.sleep(5)
        market = second.markets[0]
        assert not second.node.is_leader
        with first.hub.subscribe([BTC]):
            await trio.sleep(1)
            assert market.received == (BTC,)
            assert market.gate is not None
            assert market.gate.events > 0
        await trio.sleep(10)
        assert BTC not in first.node.mirror.known.epochs
        assert not market.received
        assert market.gate.events == 0
        nursery.cancel_scope.cancel()


async def test_a_connection_that_an_administrator_let_go_is_let_go_everywhere(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The exchange may have asked for it; and who leads next is not connected either."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=True)
        first, second = await world.start_in_turn("auto", "auto")
        await trio.sleep(5)

        def state() -> FeedState:
            return second.markets[0].feed.status.state

        assert state() is FeedState.CONNECTED
        await first.commands.disconnect()
        await trio.sleep(1)
        assert state() is FeedState.DISCONNECTED
        world.kill(first)
        await other_than(first, world)
        await trio.sleep(1)
        assert state() is FeedState.DISCONNECTED
        second.commands.connect()
        await trio.sleep(1)
        assert second.node.mirror.known.status.state is FeedState.CONNECTED
        nursery.cancel_scope.cancel()


async def test_a_leader_that_was_fenced_stands_by_again(autojump_clock: trio.testing.MockClock) -> None:
    """With new connections; and it can lead once more, without REST."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=True)
        first = await world.start()
        await world.ready()
        second = await world.start()
        edge = await world.start(role="edge")
        await world.ready()
        reader = Reader(world, [BTC], random.Random(1))
        nursery.start_soon(reader.stay_at, edge)
        await trio.sleep(5)
        world.rest.answers = False
        before = first.markets[0]
        first.backplane.cut()
        await trio.sleep(5)
        first.backplane.mend()
        await trio.sleep(5)
        assert second.node.is_leader
        assert not first.node.is_leader
        assert first.markets[0] is not before
        assert first.markets[0].received == (BTC,)
        world.kill(second)
        assert await other_than(second, world) is first
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    reader.check()
    assert not reader.gaps


async def test_what_the_state_of_the_feed_is_is_told_where_it_is_another_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The new leader's connection was cut while it stood by: readers were told that all is well."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=True)
        first, second = await world.start_in_turn("auto", "auto")
        await trio.sleep(5)
        second.markets[0].feed.lose()

        def told() -> FeedState:
            return second.node.mirror.known.status.state

        assert told() is FeedState.CONNECTED
        world.kill(first)
        await other_than(first, world)
        await trio.sleep(0.5)
        assert told() is FeedState.RECONNECTING
        nursery.cancel_scope.cancel()


async def test_who_is_connected_leads_before_those_that_are_not(autojump_clock: trio.testing.MockClock) -> None:
    """One process stood by among five, and nearly always another one took the lease."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first = await world.start()
        await world.ready()
        world.is_hot = True
        second = await world.start()
        world.is_hot = False
        for _ in range(4):
            await world.start()
        await world.ready()
        assert not second.node.is_prepared
        await trio.sleep(10)
        assert second.node.is_prepared
        world.kill(first)
        assert await other_than(first, world) is second
        assert not second.node.is_prepared
        second.node.resign()
        began_at = trio.current_time()
        await other_than(second, world)
        assert trio.current_time() - began_at < 0.3
        nursery.cancel_scope.cancel()


async def test_nodes_say_how_they_stand_by(autojump_clock: trio.testing.MockClock) -> None:
    """An edge never leads."""
    async with trio.open_nursery() as nursery:
        world = World(nursery, is_hot=True)
        first = await world.start()
        await world.start(role="edge")
        await world.ready()
        await trio.sleep(3)
        assert [(row.name, row.standby) for row in first.node.nodes] == [("n1", "hot"), ("n2", "")]
        nursery.cancel_scope.cancel()


async def test_what_was_on_its_way_when_the_lease_was_got_is_known(autojump_clock: trio.testing.MockClock) -> None:
    """The last leader's newest stream was closed by the next one, and its history gone with it."""
    store = MemoryStore()
    last, own = store.connect(), store.connect()
    got = await last.acquire("last", 3.0)
    assert isinstance(got, Acquired)
    first = EntryId(got.term, 1)
    await last.append(EntryId(got.term, 0), first, header_of([Opened(key_of(BTC), "e1")]), b"")
    await last.release("last", got.term)
    acquired = await own.acquire("own", 3.0)
    assert isinstance(acquired, Acquired)
    hub = SharedHub(linger_s=5.0)
    mirror = Mirror(hub, read_event)
    options = LeaderOptions(node="own", encode=server_sent_event, lease_s=3.0)
    async with trio.open_nursery() as nursery:
        living = Living(
            own, NodeOptions(name="own", shown="own", role="auto", version="1", lease_s=3.0, window_s=0.0), FakeRest()
        )
        leader = Leader(own, hub, mirror, living.open_markets, options, nodes=dict)
        for entry in await own.read(None, most=10, wait_s=0.0):
            mirror.take(entry)
        nursery.start_soon(leader.run, acquired)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    entries = await last.read(EntryId(acquired.term, 0), most=10, wait_s=0.0)
    facts = [record for entry in entries for record in read_header(entry.header) if isinstance(record, Facts)]
    assert facts[0].epochs == {key_of(BTC): "e1"}
