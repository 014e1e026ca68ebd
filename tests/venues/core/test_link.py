"""Dial, converse, back off, replace: counted in dials and their virtual times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from komas.errors import Cause, VenueError
from komas.venues.core.link import LINGER_S, OVERLAP_S, Link, together
from komas.venues.core.retry import Backoff, RetryPolicy

CUT = VenueError("cut", cause=Cause.NETWORK)


class Life:
    """A connection as scripted: ``"refuse"``, ``"cut"`` at once, ``"data"`` and then cut, ``"stay"`` or ``"mute"``."""

    def __init__(self, line: Line, script: str) -> None:
        self._line = line
        self._script = script
        self._scope = trio.CancelScope()
        self.is_delivering = False

    async def run(self, up: Callable[[], None], healthy: Callable[[], None]) -> None:
        self._line.dialled_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self._script == "refuse":
            raise CUT
        up()
        if self._script in ("data", "stay"):
            self.is_delivering = True
            healthy()
        with self._scope:
            await trio.sleep(self._line.stays_s if self._script in ("stay", "mute") else 0)
            raise CUT

    def retire(self) -> None:
        self._line.retired_at.append(trio.current_time())
        self._scope.cancel()

    def carries(self, older: Life, recent_s: float) -> bool:
        return self.is_delivering or not older.is_delivering


class Line:
    """A link whose connections are scripted; the last script is repeated."""

    def __init__(self, *scripts: str, retry_policy: RetryPolicy | None = None, stays_s: float = 1e9) -> None:
        self._scripts = list(scripts)
        self.stays_s = stays_s
        self.dialled_at: list[float] = []
        self.retired_at: list[float] = []
        self.told: list[float] = []
        self.reconnects: Counter[Cause] = Counter()
        self.rotations = 0
        backoff = Backoff(retry_policy or RetryPolicy(), lambda: 1.0)
        self.link = Link(self._make, backoff=backoff, tally=self, changed=lambda: None, lost=self._lost)

    def _make(self) -> Life:
        return Life(self, self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0])

    def _lost(self, _error: VenueError, wait_s: float) -> None:
        self.told.append(wait_s)


async def test_backs_off_then_resets(autojump_clock: trio.testing.MockClock) -> None:
    """The delays double until an event comes, which brings them back to the first."""
    line = Line("refuse", "cut", "cut", "data", "cut")
    with trio.move_on_after(5.5):
        await line.link.run()
    assert line.dialled_at == [0, 0, 1, 3, 3, 4]
    assert line.told == [0, 1, 2, 0, 1, 6]


async def test_gives_up_when_told_to(autojump_clock: trio.testing.MockClock) -> None:
    """After the allowed failures in a row the last one is raised, and each was reported."""
    line = Line("refuse", retry_policy=RetryPolicy(attempts=3))
    with pytest.raises(VenueError, match="cut"):
        await line.link.run()
    assert line.dialled_at == [0, 0, 1]
    assert line.told == [0, 1, 2]


async def test_a_replaced_connection_ends_when_the_younger_one_delivers(autojump_clock: trio.testing.MockClock) -> None:
    """And not before; nobody is told of a loss, and a second wish in between changes nothing."""
    line = Line("stay")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.run)
        await trio.sleep(100)
        line.link.replace("old")
        await trio.sleep(0.5)
        assert len(line.link.connections) == 2
        line.link.replace("old")
        await trio.sleep(50)
        assert line.dialled_at == [0, 100]
        assert line.retired_at == [100 + LINGER_S]
        assert (line.rotations, line.reconnects.total(), line.told) == (1, 0, [])
        line.link.replace("old again")
        await trio.sleep(50)
        assert len(line.dialled_at) == 3
        nursery.cancel_scope.cancel()


async def test_a_younger_connection_that_is_mute_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """The older one stays, the next dial backs off, and once one delivers it takes over."""
    line = Line("stay", "mute", "refuse", "refuse", "stay")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.run)
        await trio.sleep(10)
        line.link.replace("old")
        await trio.sleep(100)
        assert line.dialled_at == [0, 10, 10 + OVERLAP_S, 11 + OVERLAP_S, 13 + OVERLAP_S]
        assert line.retired_at == [10 + OVERLAP_S, 13 + OVERLAP_S + LINGER_S]
        assert line.told == []
        nursery.cancel_scope.cancel()


async def test_a_replacement_may_come_too_late(autojump_clock: trio.testing.MockClock) -> None:
    """The older connection ends while the younger one is still refused: that is a loss, and is told."""
    line = Line("stay", "refuse", "refuse", "refuse", "stay", stays_s=2.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.link.run)
        await trio.sleep(1)
        line.link.replace("old")
        await trio.sleep(2)
        assert line.dialled_at == [0, 1, 1, 2]
        assert line.told == [1.5]
        assert line.link.replacing is None
        await trio.sleep(1.1)
        assert len(line.link.connections) == 1
        nursery.cancel_scope.cancel()


async def test_what_is_not_up_is_not_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """There is no older connection to be kept."""
    line = Line("refuse")
    line.link.replace("early")
    assert line.link.replacing is None


async def test_a_bug_is_not_a_lost_link(autojump_clock: trio.testing.MockClock) -> None:
    """What is no VenueError travels up and stops the process."""

    def make() -> Life:
        raise ZeroDivisionError

    line = Line("stay")
    backoff = Backoff(RetryPolicy(), lambda: 1.0)
    link = Link(make, backoff=backoff, tally=line, changed=lambda: None, lost=lambda _error, _wait: None)
    with pytest.RaisesGroup(ZeroDivisionError):
        await link.run()


async def test_tasks_end_together(autojump_clock: trio.testing.MockClock) -> None:
    """One fails, the others are cancelled, and its error comes out by itself; two at once are one."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("wait")

    async def fail(error: VenueError) -> None:
        await trio.sleep(1)
        raise error

    tasks: list[Callable[[], Awaitable[None]]] = [wait, partial(fail, CUT), partial(fail, CUT)]
    with pytest.raises(VenueError, match="cut"):
        await together(*tasks)
    assert ended == ["wait"]
