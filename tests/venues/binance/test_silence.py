"""A connection's own rhythm decides how long it may be silent."""

from __future__ import annotations

from komas.venues.binance.silence import LONGEST_S, SHORTEST_S, UNKNOWN_S, Rhythm


def _heard(*moments: float) -> Rhythm:
    rhythm = Rhythm()
    for moment in moments:
        rhythm.heard(moment)
    return rhythm


def test_a_connection_that_never_spoke_has_no_rhythm() -> None:
    """Quiet pairs may take minutes to their first event."""
    assert Rhythm().patience_s(1000) is None
    assert Rhythm().silent_s(1000) == 0


def test_a_busy_connection_is_dead_after_ten_seconds() -> None:
    """It had something every half second."""
    rhythm = _heard(*(index / 2 for index in range(60)))
    assert rhythm.patience_s(30) == SHORTEST_S
    assert rhythm.silent_s(39.5) == 10


def test_one_burst_is_no_rhythm() -> None:
    """A quiet pair that traded fifty times in a second may be quiet for a minute."""
    assert _heard(*(index / 50 for index in range(50))).patience_s(2) == UNKNOWN_S


def test_a_quiet_connection_has_more_time() -> None:
    """Four times its longest recent pause."""
    assert _heard(0, 8, 20, 25).patience_s(26) == 48


def test_nobody_waits_for_ever() -> None:
    """Whatever the rhythm."""
    assert _heard(0, 100, 110).patience_s(120) == LONGEST_S


def test_old_pauses_are_forgotten() -> None:
    """A night's quiet says nothing of the day."""
    rhythm = _heard(0, 30, *range(31, 400))
    assert rhythm.patience_s(400) == SHORTEST_S
