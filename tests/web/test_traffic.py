"""What clients asked for, counted."""

from __future__ import annotations

from functools import partial

import pytest

from komas.errors import Closing
from komas.web.traffic import Traffic


def test_what_a_client_may_write_makes_no_new_label() -> None:
    """A path that there is not, a method that there is not."""
    traffic = Traffic()
    traffic.answered("/api/ws/status", "GET", 200)
    traffic.answered("/api/ws/status", "BREW-1", 405)
    traffic.answered(None, "GET", 404)
    traffic.answered(None, "GET", 404)
    assert traffic.requests == {
        ("/api/ws/status", "GET", "200"): 1,
        ("/api/ws/status", "other", "405"): 1,
        ("other", "GET", "404"): 2,
    }


def test_a_socket_is_counted_by_who_ended_it_and_how() -> None:
    """Our own words for our own closes; a client may close with any of 4,000 codes."""
    traffic = Traffic()
    with traffic.socket("signals", lambda: 1006) as end:
        end.closing = Closing.VIP_REQUIRED
    for code in (1000, 1001, 3000, 4999):
        with traffic.socket("market", partial(int, code)):
            pass
    assert traffic.closes == {
        ("signals", "1008", "vip_required"): 1,
        ("market", "1000", "client"): 1,
        ("market", "1001", "client"): 1,
        ("market", "other", "client"): 2,
    }


def test_a_socket_whose_handler_is_cancelled_is_counted_too() -> None:
    """So a client that leaves is seen."""
    traffic = Traffic()
    with pytest.raises(KeyboardInterrupt), traffic.socket("market", lambda: 1006):
        raise KeyboardInterrupt
    assert traffic.closes == {("market", "1006", "client"): 1}
