"""How one process hands the lead to the next."""

from __future__ import annotations

import trio
import trio.testing

from komas.backplane.ports import Acquired
from tests.backplane.world import World


async def test_a_server_that_ends_waits_until_its_lease_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """One that had drained within some milliseconds was gone before that: the others waited for the whole lease."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        first = await world.start()
        await world.ready()
        began_at = trio.current_time()
        await first.node.retire()
        world.kill(first)
        other = world.store.connect()
        assert isinstance(await other.acquire("other", 3.0), Acquired)
        assert trio.current_time() - began_at < 0.5
        nursery.cancel_scope.cancel()


async def test_a_process_that_does_not_lead_retires_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """There is nothing to wait for."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        await world.start()
        await world.ready()
        edge = await world.start(role="edge")
        began_at = trio.current_time()
        await edge.node.retire()
        assert trio.current_time() == began_at
        nursery.cancel_scope.cancel()
