"""Several nodes, one feed: whoever dies, and whatever the store forgets, readers get each trade once."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from komas.model.codec import Envelope
from komas.model.market import FeedState
from tests.backplane.world import BTC, ETH, Reader, World, trades_by


async def test_a_reader_at_an_edge_gets_what_the_leader_receives(autojump_clock: trio.testing.MockClock) -> None:
    """Its interest reaches the leader, trades come back, with every digit."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first = await world.start()
        await world.ready()
        edge = await world.start(role="edge")
        await world.ready()
        assert [living.name for living in world.leaders] == [first.name]
        with edge.hub.subscribe([BTC]) as subscription:
            items: list[Envelope] = []
            while len(items) < 50:
                items += [item for item in (await subscription.receive()).items if isinstance(item, Envelope)]
        numbers = [item.sequence or 0 for item in items]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert format(items[0].event["price"], "f") == f"{numbers[0]}.50"
        assert edge.node.mirror.known.status.state is FeedState.CONNECTED
        nursery.cancel_scope.cancel()


FAULTS = ("kill", "kill leader", "resign", "cut", "cut leader", "cut all", "freeze", "wipe", "lose tail", "none")


@pytest.mark.parametrize("seed", range(8))
async def test_no_trade_is_lost_or_doubled_whoever_dies(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    """Readers move from node to node all the while; only a store that forgot everything may cost a gap."""
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for _ in range(3):
            await world.start()
        await world.ready()
        readers = [Reader(world, stream, random.Random(seed * 100 + n)) for n, stream in enumerate([BTC, ETH] * 3)]
        for reader in readers:
            nursery.start_soon(reader.run)
        await trio.sleep(5)
        for _ in range(8):
            await strike(world, chance.choice(FAULTS), chance)
            await trio.sleep(chance.uniform(0.5, 8.0))
        await world.ready()
        await trio.sleep(15)
        head = trades_by(trio.current_time())
        nursery.cancel_scope.cancel()
    for reader in readers:
        reader.check()
        assert reader.numbers[-1] > head - 20 * 5
        assert not reader.gaps
        assert reader.moves > 10


async def strike(world: World, fault: str, chance: random.Random) -> None:
    """One fault, and its end."""
    of_leader = [living for living in world.leaders if "leader" in fault or fault == "resign"]
    living = chance.choice(of_leader or list(world.nodes.values()))
    match fault.removesuffix(" leader"):
        case "kill":
            world.kill(living)
            await world.start()
        case "resign":
            living.node.resign()
            await trio.sleep(1)
            world.kill(living)
            await world.start()
        case "cut":
            living.backplane.cut()
            await trio.sleep(chance.uniform(0.1, 8))
            living.backplane.mend()
        case "cut all":
            world.store.cut()
            await trio.sleep(chance.uniform(0.1, 8))
            world.mend()
        case "freeze":
            world.store.freeze()
            await trio.sleep(chance.uniform(0.1, 5))
            world.store.thaw()
        case "wipe":
            world.store.wipe()
        case "lose tail":
            world.store.lose_tail(min(chance.randint(1, 30), world.store.entries // 2))
        case _:
            pass
