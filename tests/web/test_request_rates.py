"""So many at once, so many a second after that."""

from __future__ import annotations

import pytest

from komas.web.request_rates import RequestRates

HERE, THERE = "192.0.2.1", "192.0.2.2"


def _taken(rates: RequestRates, address: str, at: float, count: int) -> int:
    return sum(rates.take(address, at) == 0 for _ in range(count))


def test_a_burst_and_then_a_rate() -> None:
    """Whatever else came in between; the time is the caller's."""
    rates = RequestRates(10, 5)
    assert _taken(rates, HERE, 100.0, 20) == 5
    assert _taken(rates, HERE, 100.25, 20) == 2
    assert _taken(rates, HERE, 1000.0, 20) == 5
    assert rates.refused == 15 + 18 + 15


def test_who_is_refused_is_told_how_long_to_wait() -> None:
    """Then there is room for one."""
    rates = RequestRates(0.5, 1)
    assert rates.take(HERE, 100.0) == 0
    wait_s = rates.take(HERE, 100.5)
    assert wait_s == pytest.approx(1.5)
    assert rates.take(HERE, 100.5 + wait_s) == 0


def test_addresses_do_not_share() -> None:
    """One that asks too often costs the others nothing."""
    rates = RequestRates(1, 2)
    assert _taken(rates, HERE, 0.0, 100) == 2
    assert _taken(rates, THERE, 0.0, 100) == 2


def test_what_is_given_back_can_be_taken_again() -> None:
    """By who is known; of others there is nothing to give back."""
    rates = RequestRates(1, 2)
    for _ in range(100):
        assert rates.take(HERE, 0.0) == 0
        rates.give_back(HERE)
    rates.give_back(THERE)
    assert _taken(rates, HERE, 0.0, 100) == 2


def test_no_more_addresses_are_remembered_than_fit() -> None:
    """The one that asked longest ago is forgotten; who goes on asking is not."""
    rates = RequestRates(1, 2, addresses=10)
    for number in range(100):
        rates.take(HERE, number / 10)
        rates.take(f"10.0.0.{number}", number / 10)
    assert len(rates) == 10
    assert rates.take(HERE, 9.91) > 0


def test_a_rate_of_none_is_no_limit() -> None:
    """For a server that only its owner reaches."""
    assert _taken(RequestRates(0, 1), HERE, 0.0, 10_000) == 10_000
