"""How late tasks run."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.observability.loop_lag import EVERY_S, REMEMBERED_S, LoopLag


def test_the_longest_of_the_last_minute_is_remembered_and_no_longer() -> None:
    """And all of them are counted."""
    lag = LoopLag()
    for tenths in range(20):
        lag.note(tenths / 10, 0.002)
    lag.note(2.05, 0.3)
    lag.note(2.15, 0.001)
    assert (lag.last_s, lag.longest_s(3)) == (0.001, 0.3)
    assert lag.longest_s(2 + REMEMBERED_S) == 0.3
    assert lag.longest_s(5 + REMEMBERED_S) == 0
    assert dict(lag.histogram.cumulative())[0.25] == 21
    assert lag.histogram.sum == pytest.approx(0.341)


def test_what_is_remembered_is_bounded() -> None:
    """However often it is measured."""
    lag = LoopLag()
    for count in range(10_000):
        lag.note(count / 10, 0.001)
    assert len(lag._longest) <= REMEMBERED_S + 2  # noqa: SLF001 - memory is what this is about


async def test_it_notes_how_late_it_was(mock_clock: trio.testing.MockClock) -> None:
    """Whoever holds the loop for so long makes everybody so late."""
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(EVERY_S + 0.4)  # nothing ran meanwhile
        await trio.testing.wait_all_tasks_blocked()
        assert lag.last_s == pytest.approx(0.4)
        mock_clock.jump(EVERY_S)
        await trio.testing.wait_all_tasks_blocked()
        assert lag.last_s == pytest.approx(0, abs=1e-6)
        assert lag.longest_s(trio.current_time()) == pytest.approx(0.4)
        nursery.cancel_scope.cancel()
