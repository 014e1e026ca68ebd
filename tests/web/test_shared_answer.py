"""One answer for many."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.web.shared_answer import FRESH_S, SharedAnswer


class Rendering:
    """Counts how often it is asked; takes its time."""

    def __init__(self, takes_s: float = 0.1) -> None:
        self.began_at: list[float] = []
        self.version = 0
        self._takes_s = takes_s
        self.answer = SharedAnswer(self._render, lambda: self.version)

    async def _render(self) -> bytes:
        self.began_at.append(trio.current_time())
        told = b"%d" % self.version
        await trio.sleep(self._takes_s)
        return told


async def test_all_who_ask_meanwhile_wait_for_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """One object, rendered once."""
    rendering, answers = Rendering(), list[bytes]()

    async def ask() -> None:
        answers.append(await rendering.answer.get())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert len(rendering.began_at) == 1
    assert len({id(answer) for answer in answers}) == 1


async def test_constant_changes_cost_no_more_than_none(autojump_clock: trio.testing.MockClock) -> None:
    """And who asks is told what is true at that moment."""
    rendering = Rendering(takes_s=0)
    began = trio.current_time()
    for _ in range(20):
        rendering.version += 1
        assert await rendering.answer.get() == b"%d" % rendering.version
    assert trio.current_time() - began == pytest.approx(19 * FRESH_S)


async def test_a_client_that_leaves_takes_nothing_from_the_others(autojump_clock: trio.testing.MockClock) -> None:
    """Who asks and leaves, again and again, would keep them waiting for ever."""
    rendering = Rendering()
    async with trio.open_nursery() as leaving:
        leaving.start_soon(rendering.answer.get)
        await trio.sleep(0.05)
        leaving.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await rendering.answer.get() == b"0"
    assert len(rendering.began_at) == 1


async def test_a_failure_is_not_kept(autojump_clock: trio.testing.MockClock) -> None:
    """The next one may be better."""
    failures = [ZeroDivisionError()]

    async def render() -> bytes:
        await trio.lowlevel.checkpoint()
        if failures:
            raise failures.pop()
        return b"better"

    answer = SharedAnswer(render)
    with pytest.raises(ZeroDivisionError):
        await answer.get()
    assert await answer.get() == b"better"
