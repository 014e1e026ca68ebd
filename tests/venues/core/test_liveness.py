"""A connection's own rhythm decides how long it may be silent."""

from __future__ import annotations

import random

import pytest

from komas.model.kinds import Kind
from komas.model.streams import Stream
from komas.venues.core.liveness import (
    FRAMES,
    LONGEST_S,
    REMEMBERED_S,
    SHORTEST_S,
    SPAN_S,
    UNKNOWN_S,
    LivenessTracker,
    promised_s,
)


def _heard(*moments: float) -> LivenessTracker:
    liveness = LivenessTracker()
    liveness.begin(moments[0])
    for moment in moments:
        liveness.heard(moment)
    return liveness


def test_a_connection_that_never_spoke_has_the_longest_patience() -> None:
    """Quiet pairs may take minutes to their first event; acknowledged and never delivered is noticed in the end."""
    liveness = LivenessTracker()
    liveness.begin(5)
    assert liveness.allowed_silence_s(1000) == LONGEST_S
    assert liveness.silent_s(1000) == 995


def test_a_busy_connection_is_dead_before_ten_seconds() -> None:
    """It had something every half second."""
    liveness = _heard(*(index / 2 for index in range(60)))
    assert liveness.allowed_silence_s(30) == SHORTEST_S
    assert liveness.silent_s(39.5) == 10
    assert not liveness.is_stale(29.5 + SHORTEST_S)
    assert liveness.is_stale(29.6 + SHORTEST_S)


def test_one_burst_is_no_rhythm() -> None:
    """A quiet pair that traded fifty times in a second may be quiet for a minute."""
    assert _heard(*(index / 50 for index in range(50))).allowed_silence_s(2) == UNKNOWN_S


def test_a_quiet_connection_has_more_time() -> None:
    """Four times its longest recent pause."""
    assert _heard(*(index * 12.0 for index in range(FRAMES))).allowed_silence_s(240) == 48


def test_few_frames_are_no_rhythm() -> None:
    """One trade in ninety seconds: nothing is known after the first, nor after the tenth."""
    assert _heard(*(index * 90.0 for index in range(10))).allowed_silence_s(900) == LONGEST_S


def test_nobody_waits_for_ever() -> None:
    """Whatever the rhythm."""
    assert _heard(*(index * 500.0 for index in range(FRAMES))).allowed_silence_s(10_000) == LONGEST_S


def test_old_pauses_are_forgotten() -> None:
    """A long night does not make a busy day's silence look harmless; but the newest few count however old they are."""
    liveness = _heard(*(index * 30.0 for index in range(FRAMES)))
    assert liveness.allowed_silence_s(5000) == 120
    for index in range(2000):
        liveness.heard(600 + index * 1.5)
    assert liveness.allowed_silence_s(3600) == SHORTEST_S


def test_an_outage_is_no_pause() -> None:
    """The rhythm goes on with the next connection; the time between them is not the streams' doing."""
    liveness = _heard(*(index / 2 for index in range(60)))
    liveness.begin(500)
    liveness.heard(500.5)
    assert liveness.allowed_silence_s(501) == SHORTEST_S


def test_a_stream_without_a_known_pace_is_never_stale() -> None:
    """A quiet pair's trade may come after hours."""
    liveness = _heard(*(index / 50 for index in range(50)))
    assert not liveness.is_stale(1e6)
    liveness = LivenessTracker()
    liveness.begin(0)
    assert not liveness.is_stale(1e6)


def test_a_candle_is_due_once_an_interval() -> None:
    """It closes, traded or not: a promise that needs no rhythm; trades promise nothing."""
    promised = promised_s(Stream(Kind.KLINE, "BTCUSDT", "1m"))
    assert 60 < promised < 80
    liveness = LivenessTracker(promised)
    liveness.begin(0)
    assert not liveness.is_stale(promised)
    assert liveness.is_stale(promised + 1)
    assert promised_s(Stream(Kind.TRADE, "BTCUSDT")) == float("inf")


def test_an_heir_knows_the_pace_and_has_heard_nothing() -> None:
    """The outage between two connections is no pause."""
    liveness = _heard(*(index / 2 for index in range(60))).successor()
    assert liveness.heard_at is None
    liveness.begin(1000)
    assert not liveness.is_stale(1005)
    assert liveness.is_stale(1009)
    liveness.heard(1010)
    assert liveness.heard_at == 1010


def test_a_new_connection_teaches_nothing_before_its_first_frame() -> None:
    """A stream that is taken over in the middle of its pause has not become faster, nor one that was cut slower."""
    quiet = _heard(*(index * 30.0 for index in range(FRAMES))).successor()
    quiet.begin(590)
    quiet.heard(595)
    assert not quiet.is_stale(700)
    busy = _heard(*(index / 5 for index in range(300))).successor()
    busy.begin(100)
    busy.heard(140)
    assert busy.is_stale(149)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_pause_is_the_longest_of_those_that_are_remembered(seed: int) -> None:
    """Against a list of all of them: the newest few however old they are, and others for twenty minutes."""
    dice = random.Random(seed)
    liveness, now, pauses = LivenessTracker(), 0.0, list[tuple[float, float]]()
    liveness.begin(now)
    liveness.heard(now, FRAMES)
    for _ in range(600):
        pause = dice.choice((0.5, 1.0, 2.0, dice.randrange(80) / 4, dice.randrange(600) / 4))
        now += pause
        liveness.heard(now)
        pauses += [(now, pause)] if pause > 1 else []
        if dice.random() < 0.1:
            liveness = liveness.successor()
            liveness.begin(now)
            liveness.heard(now)
        known = [
            each for place, (at, each) in enumerate(reversed(pauses)) if place < FRAMES or at >= now - REMEMBERED_S
        ]
        if now >= SPAN_S:
            assert liveness.allowed_silence_s(now) == min(LONGEST_S, max(SHORTEST_S, 4 * max(known, default=0.0)))


class _Counted(float):
    """A time that counts how often such times are compared."""

    compared = 0

    def __sub__(self, other: float) -> _Counted:
        return _Counted(float(self) - other)

    def __gt__(self, other: float) -> bool:
        _Counted.compared += 1
        return float(self) > other

    def __lt__(self, other: float) -> bool:
        _Counted.compared += 1
        return float(self) < other


def test_a_stream_with_many_pauses_costs_no_more_than_one_with_few() -> None:
    """Thousands of streams are asked each second: a thousand pauses of each were looked through."""
    liveness = LivenessTracker()
    liveness.begin(_Counted(0))
    for moment in range(1, 1001):
        liveness.heard(_Counted(moment * 1.1))
    _Counted.compared = 0
    for _ in range(100):
        assert liveness.is_stale(_Counted(1120))
    assert _Counted.compared < 1000
