"""The waits between dials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from komas.errors import Cause, VenueError
from komas.venues.core.retry import DIALS, DIALS_PERIOD_S, Backoff, RetryPolicy

CUT = VenueError("cut", cause=Cause.NETWORK)
BANNED = VenueError("banned", cause=Cause.REFUSED, status=418)


def _waits(error: VenueError, count: int, retry_policy: RetryPolicy | None = None) -> list[float]:
    backoff = Backoff(retry_policy or RetryPolicy(), lambda: 1.0)
    return [backoff.failed(error, now=index * 1000.0) for index in range(count)]


def test_network_trouble_is_retried_at_once_then_within_ten_seconds() -> None:
    """The first retry at once, then doubling from a second, never longer than the cap."""
    assert _waits(CUT, 7) == [0, 1, 2, 4, 8, 10, 10]


def test_a_refusal_grows_to_a_minute() -> None:
    """The user's document: 1 s to 60 s."""
    assert _waits(BANNED, 9) == [1, 1, 2, 4, 8, 16, 32, 60, 60]


def test_the_caps_are_settings() -> None:
    """Both of them."""
    assert max(_waits(CUT, 20, RetryPolicy(network_max_s=3))) == 3
    assert max(_waits(BANNED, 20, RetryPolicy(refused_max_s=5))) == 5


def test_an_outage_of_a_year_is_no_overflow() -> None:
    """The exponent stops growing."""
    assert _waits(CUT, 5000)[-1] == 10


def test_jitter_is_full() -> None:
    """The wait is anywhere between nothing and the cap."""
    backoff = Backoff(RetryPolicy(), lambda: 0.25)
    assert [backoff.failed(CUT, now=index * 1000.0) for index in range(4)] == [0, 0.25, 0.5, 1]


def test_the_venues_own_time_is_waited() -> None:
    """Retry-After beats the jitter, up to an hour."""
    backoff = Backoff(RetryPolicy(), lambda: 0.0)
    assert backoff.failed(VenueError("", cause=Cause.REFUSED, retry_after_s=90), 0.0) == 90
    assert backoff.failed(VenueError("", cause=Cause.REFUSED, retry_after_s=10**6), 0.0) == 3600


def test_the_first_event_resets_the_waits() -> None:
    """Success is data, not a handshake."""
    backoff = Backoff(RetryPolicy(), lambda: 1.0)
    for now in range(5):
        backoff.failed(CUT, now * 1000.0)
    backoff.succeeded()
    assert backoff.failed(CUT, 10_000.0) == 0


def test_attempts_run_out() -> None:
    """As many failures in a row as are allowed, and no more."""
    backoff = Backoff(RetryPolicy(attempts=2), lambda: 1.0)
    backoff.failed(CUT, 0.0)
    assert not backoff.exhausted
    backoff.failed(CUT, 0.0)
    assert backoff.exhausted


def test_the_end_of_a_connection_that_brought_data_is_no_failed_attempt() -> None:
    """With one attempt allowed there is one, before it is given up."""
    backoff = Backoff(RetryPolicy(attempts=1), lambda: 1.0)
    backoff.dialled(0.0)
    backoff.succeeded()
    assert backoff.failed(CUT, 100.0) == 0
    assert not backoff.exhausted
    backoff.dialled(100.0)
    backoff.failed(CUT, 101.0)
    assert backoff.exhausted
    backoff.reset()
    assert not backoff.exhausted
    backoff.failed(CUT, 102.0)
    assert backoff.exhausted


@given(st.lists(st.floats(0, 3), max_size=100), st.floats(0, 0.999))
def test_a_flapping_connection_keeps_within_the_exchanges_count_of_dials(lives: list[float], jitter: float) -> None:
    """Each connection brings data and dies: 300 dials in 5 min are never near."""
    backoff, now, dials = Backoff(RetryPolicy(), lambda: jitter), 0.0, []
    for life in lives:
        now = backoff.dial_at(now)
        backoff.dialled(now)
        dials.append(now)
        backoff.succeeded()
        now += life
        now += backoff.failed(CUT, now)
    for start in dials:
        assert sum(start <= dial < start + DIALS_PERIOD_S - 1e-6 for dial in dials) <= DIALS
