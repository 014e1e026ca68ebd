"""One task for all sessions, on the deterministic clock."""

from __future__ import annotations

import gc
import weakref

import trio
import trio.testing

from komas.signals.keeper import LOOKS_AT_ONCE, Keeper


class Session:
    """One that is to be looked at every so many seconds."""

    def __init__(self, every_s: float) -> None:
        self.looks: list[float] = []
        self._every_s = every_s

    def look(self) -> float:
        """Note it."""
        now = trio.current_time()
        self.looks.append(now)
        return now + self._every_s


async def test_each_is_looked_at_when_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    """At once, and then at its own pace; sooner where there is news of it."""
    keeper, often, seldom = Keeper(), Session(1), Session(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        for session in (often, seldom):
            keeper.keep(session)
        await trio.sleep(3.5)
        assert (often.looks, seldom.looks) == ([0, 1, 2, 3], [0])
        keeper.look_soon(seldom)
        await trio.sleep(1)
        assert (often.looks[-1], seldom.looks) == (4, [0, 3.5])
        keeper.look_at_all()
        await trio.sleep(10.5)
        assert seldom.looks == [0, 3.5, 4.5, 14.5]
        nursery.cancel_scope.cancel()


async def test_who_has_left_is_neither_looked_at_nor_kept(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever it was due at: a session has a socket, and its buffers."""
    keeper, session = Keeper(), Session(1000)
    left = weakref.ref(session)
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            keeper.keep(session)
            await trio.sleep(1)
            keeper.look_soon(session)
            keeper.let_go(session)
            keeper.look_soon(session)
            await trio.sleep(1)
            assert (session.looks, len(keeper)) == ([0], 0)
            del session
            assert left() is None
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()


async def test_many_that_are_due_together_let_others_run() -> None:
    """After so many looks."""
    keeper, sessions, turns = Keeper(), [Session(1000) for _ in range(5 * LOOKS_AT_ONCE)], 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        for session in sessions:
            keeper.keep(session)
        while not all(session.looks for session in sessions):
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns >= 4
        nursery.cancel_scope.cancel()
