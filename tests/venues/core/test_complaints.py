"""What an exchange can cause in the log: of each kind one line a minute, and the count of the others."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from komas.event_log import event_logger
from komas.venues.core.complaints import EVERY_S, Complaints
from komas.venues.core.ports import Unreadable
from komas.venues.core.words import MOST, cut

log = event_logger("komas.test")


def _lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [(vars(record)["event"], vars(record).get("left_out")) for record in caplog.records]


async def test_one_line_a_minute_says_how_many_there_were(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Kinds are counted apart; the first is written at once."""
    complaints = Complaints(log)
    for number in range(1000):
        complaints.warning("gap", first=number)
    complaints.error("crossed")
    assert _lines(caplog) == [("gap", None), ("crossed", None)]
    await trio.sleep(EVERY_S)
    complaints.warning("gap", first=1000)
    complaints.warning("gap", first=1001)
    complaints.error("crossed")
    assert _lines(caplog)[2:] == [("gap", 999), ("crossed", None)]


async def test_what_is_said_once_of_a_stream_is_written_some_times(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As many lines as were allowed, with their level and keys."""
    complaints = Complaints(log, lines=3)
    for number in range(5):
        complaints.write(logging.ERROR, "refused", stream=number)
    assert [vars(record)["stream"] for record in caplog.records] == [0, 1, 2]
    assert caplog.records[0].levelno == logging.ERROR


def test_foreign_words_are_cut() -> None:
    """With their length, so that nobody takes them for the whole; short ones stay as they are."""
    assert cut("x" * MOST) == "x" * MOST
    assert cut("x" * 7_000_000) == f"{'x' * MOST}... (7000000 characters)"
    assert len(str(Unreadable("9" * 7_000_000))) < MOST + 50
