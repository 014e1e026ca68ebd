"""Readers take turns before a budget that is short; nobody waits for ever, and no line is endless."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.errors import VenueError
from komas.venues.core.request_turns import AT_ONCE, WAITING, RequestTurns


class _Budget:
    has_room = True


async def test_who_wants_one_thing_does_not_wait_behind_all_of_anothers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A chart that loads a year leaves room for one that loads a day."""
    turns, served = RequestTurns(_Budget()), list[str]()

    async def ask(reader: str) -> None:
        async with turns.turn(reader):
            served.append(reader)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask, "many")
        await trio.sleep(0.5)
        nursery.start_soon(ask, "one")
    assert served.index("one") <= AT_ONCE + 1
    assert len(served) == 41


async def test_some_requests_are_under_way_at_once_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    """Each may take ten seconds."""
    turns, under_way, most = RequestTurns(_Budget()), 0, 0

    async def ask() -> None:
        nonlocal under_way, most
        async with turns.turn("a"):
            under_way += 1
            most = max(most, under_way)
            await trio.sleep(1)
            under_way -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(ask)
    assert most == AT_ONCE


async def test_a_spent_budget_is_waited_for(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """And found soon after there is room again; one that was cancelled meanwhile takes no turn."""
    budget, done = _Budget(), list[float]()
    budget.has_room = False
    turns = RequestTurns(budget)

    async def ask() -> None:
        async with turns.turn("a"):
            done.append(trio.current_time())

    with trio.move_on_after(5):
        await ask()
    nursery.start_soon(ask)
    await trio.sleep(5)
    assert done == []
    budget.has_room = True
    await trio.sleep(1)
    assert [at <= 11 for at in done] == [True]


async def test_the_line_has_an_end(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """One more than it holds is told so at once."""
    budget = _Budget()
    budget.has_room = False
    turns = RequestTurns(budget)

    async def ask() -> None:
        async with turns.turn("a"):
            pass

    for _ in range(WAITING):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(VenueError, match="too many requests wait"):
        await ask()
    budget.has_room = True
    await trio.sleep(30)
    await ask()
