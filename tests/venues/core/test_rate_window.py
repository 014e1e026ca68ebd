"""A rolling window is strict: in any period, no more than the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from komas.venues.core.rate_window import RollingWindow


def test_the_next_act_waits_for_the_oldest_to_leave() -> None:
    """Not for a refill."""
    window = RollingWindow(2, 1.0)
    window.record(0.0)
    window.record(0.4)
    assert window.free_at(0.5) == 1.0
    assert window.free_at(1.0) == 1.0


def test_acts_without_room_count_too() -> None:
    """A pong is sent whether or not there is room, and pushes requests back."""
    window = RollingWindow(2, 1.0)
    for now in (0.0, 0.1, 0.2):
        window.record(now)
    assert window.free_at(0.3) == 0.1 + 1.0


def test_room_is_kept_for_what_is_under_way() -> None:
    """When it will count is not known yet."""
    window = RollingWindow(4, 1.0)
    assert window.free_at(0.0, beside=3) == 0.0
    window.record(0.0)
    window.record(0.1)
    assert window.free_at(0.2, beside=1) == 0.2
    assert window.free_at(0.2, beside=2) == 1.0
    assert window.free_at(0.2, beside=3) == 0.1 + 1.0


@given(st.integers(1, 6), st.lists(st.floats(0, 0.5), max_size=60))
def test_no_period_holds_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    """Whoever waits as told is never over the limit, wherever the period starts."""
    window, now, acts = RollingWindow(limit, 1.0), 0.0, []
    for pause in pauses:
        now += pause
        now = window.free_at(now)
        window.record(now)
        acts.append(now)
    for start in acts:
        assert sum(start <= act and act - start < 1.0 - 1e-9 for act in acts) <= limit


@given(st.floats(0, 1e6), st.floats(0.01, 10))
def test_whoever_sleeps_until_the_moment_has_arrived(act: float, period_s: float) -> None:
    """No rounding keeps it waiting."""
    window = RollingWindow(1, period_s)
    window.record(act)
    moment = window.free_at(act)
    assert window.free_at(moment) == moment
    assert moment > act
