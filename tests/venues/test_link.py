"""Dial, converse, back off: counted in dials and their virtual times."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from komas.errors import Cause, VenueError
from komas.venues.backoff import Backoff, Patience
from komas.venues.link import keep_connected, together

CUT = VenueError("cut", cause=Cause.NETWORK)


class Line:
    """A line whose attempts end as scripted: ``"data"`` means that one event came before the end."""

    def __init__(self, *ends: str) -> None:
        self._ends = list(ends)
        self.dialled_at: list[float] = []

    async def attempt(self, healthy: Callable[[], None]) -> None:
        self.dialled_at.append(trio.current_time())
        if self._ends and self._ends.pop(0) == "data":
            healthy()
        await trio.lowlevel.checkpoint()
        raise CUT


async def test_backs_off_then_resets(autojump_clock: trio.testing.MockClock) -> None:
    """The delays double until an event comes, which brings them back to the first."""
    line = Line("", "", "", "data", "", "")
    with trio.move_on_after(5.5):
        await keep_connected(line.attempt, backoff=Backoff(Patience(), lambda: 1.0), lost=lambda _error, _wait: None)
    assert line.dialled_at == [0, 0, 1, 3, 3, 4]


async def test_gives_up_when_told_to(autojump_clock: trio.testing.MockClock) -> None:
    """After the allowed failures in a row the last one is raised, and each was reported."""
    line, told = Line(), []
    with pytest.raises(VenueError, match="cut"):
        await keep_connected(
            line.attempt,
            backoff=Backoff(Patience(attempts=3), lambda: 1.0),
            lost=lambda _error, wait_s: told.append(wait_s),
        )
    assert line.dialled_at == [0, 0, 1]
    assert told == [0, 1, 2]


async def test_a_bug_is_not_a_lost_link(autojump_clock: trio.testing.MockClock) -> None:
    """What is no VenueError travels up and stops the process."""

    async def attempt(healthy: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await keep_connected(attempt, backoff=Backoff(Patience(), lambda: 1.0), lost=lambda _error, _wait: None)


async def test_together_the_first_failure_ends_all() -> None:
    """It is raised by itself; the others are cancelled."""
    cancelled = trio.Event()

    async def fail() -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise CUT

    async def sleep() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    with pytest.raises(VenueError, match="cut"):
        await together(sleep, fail)
    assert cancelled.is_set()


async def test_together_a_bug_comes_out_in_a_group() -> None:
    """So that nobody takes it for an expected failure."""

    async def bug() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        await together(bug, trio.sleep_forever)
