"""A returning listener gets exactly what it missed, or is told that it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.hub.history import Journal, Replay
from komas.model.codec import Envelope, NoticeEnvelope, Position
from komas.model.market import Gap
from tests.builders import KLINE, MINUTE_MS, TRADE, enveloped, kline, trade


def _journal(first: int, last: int, length: int = 100) -> Journal:
    journal = Journal(TRADE, "now", length)
    for number in range(first, last + 1):
        journal.append(enveloped(TRADE, trade(number), 0, "now"))
    return journal


def _numbers(replay: Replay) -> list[int | None]:
    return [item.sequence for item in replay.items if isinstance(item, Envelope)]


def test_a_resume_is_exact() -> None:
    """Everything after the position, nothing before it, nothing else."""
    replay = _journal(1, 10).replay(Position("now", 7))
    assert replay.gap is None
    assert _numbers(replay) == [8, 9, 10]


def test_a_resume_from_the_end_is_empty() -> None:
    """Nothing was missed."""
    assert _journal(1, 10).replay(Position("now", 10)) == Replay([], None)


def test_too_old_is_said() -> None:
    """What the ring has let go is named, and what is left follows."""
    replay = _journal(1, 10, length=4).replay(Position("now", 3))
    assert replay.gap == Gap(stream="btcusdt@trade", first=4, last=6)
    assert _numbers(replay) == [7, 8, 9, 10]


def test_the_oldest_resumable_position_is_the_last_one_let_go() -> None:
    """Whoever has seen it misses nothing."""
    replay = _journal(1, 10, length=4).replay(Position("now", 6))
    assert replay.gap is None
    assert _numbers(replay) == [7, 8, 9, 10]


def test_another_epoch_is_said() -> None:
    """The process was restarted, or the stream closed in between: the numbers say what is missing."""
    replay = _journal(20, 22).replay(Position("then", 10))
    assert replay.gap == Gap(stream="btcusdt@trade", first=11, last=19)
    assert _numbers(replay) == [20, 21, 22]


def test_another_epoch_whose_numbers_prove_completeness_is_filled() -> None:
    """Told, but nothing is missing: what follows fills it."""
    replay = _journal(10, 14).replay(Position("then", 12))
    assert replay.gap == Gap(stream="btcusdt@trade", first=13, last=14, filled=True)
    assert _numbers(replay) == [13, 14]


@pytest.mark.parametrize("epoch", ["now", "then"])
def test_a_position_from_the_future_is_said(epoch: str) -> None:
    """Nothing can be sent, and silence is not an answer."""
    assert _journal(1, 10).replay(Position(epoch, 99)) == Replay([], Gap(stream="btcusdt@trade", first=100, last=None))


def test_an_empty_journal_knows_no_end_of_the_gap() -> None:
    """Right after a restart nothing has come yet."""
    replay = Journal(TRADE, "now").replay(Position("then", 5))
    assert replay == Replay([], Gap(stream="btcusdt@trade", first=6, last=None))


def test_gaps_of_candles_are_open_times() -> None:
    """One candle is one interval, not one."""
    journal = Journal(KLINE, "now", 2)
    for minute in range(1, 6):
        journal.append(enveloped(KLINE, kline(minute, closed=True), 0, "now"))
    replay = journal.replay(Position("now", 1 * MINUTE_MS))
    assert replay.gap == Gap(stream="btcusdt@kline_1m", first=2 * MINUTE_MS, last=3 * MINUTE_MS)
    assert _numbers(replay) == [4 * MINUTE_MS, 5 * MINUTE_MS]


def test_a_gap_notice_is_replayed_at_its_place() -> None:
    """Who comes back over a hole is told of the hole."""
    journal = _journal(1, 3)
    notice = NoticeEnvelope(Gap(stream="btcusdt@trade", first=4, last=5), TRADE)
    journal.append(notice)
    journal.append(enveloped(TRADE, trade(6), 0, "now"))
    assert journal.replay(Position("now", 2)).items[1] is notice
    assert journal.replay(Position("now", 3)).items[0] is notice


def test_a_gap_that_the_ring_has_let_go_is_still_a_gap() -> None:
    """What was missing is as gone as what was there."""
    journal = Journal(TRADE, "now", 3)
    for number in (3, 4, 5):
        journal.append(enveloped(TRADE, trade(number), 0, "now"))
    journal.append(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    for number in (10, 11, 12):
        journal.append(enveloped(TRADE, trade(number), 0, "now"))
    replay = journal.replay(Position("now", 5))
    assert replay.gap == Gap(stream="btcusdt@trade", first=6, last=9)
    assert _numbers(replay) == [10, 11, 12]


def test_filled_reaches_to_the_next_gap() -> None:
    """Another epoch, numbers that connect, and a hole further on."""
    journal = _journal(4, 5)
    journal.append(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    journal.append(enveloped(TRADE, trade(10), 0, "now"))
    assert journal.replay(Position("then", 4)).gap == Gap(stream="btcusdt@trade", first=5, last=5, filled=True)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 60))
def test_a_replay_and_its_gap_are_everything_after_the_position(count: int, length: int, offset: int) -> None:
    """For every position: gap and items together are without hole and without repeat."""
    replay = _journal(1, count, length).replay(Position("now", offset))
    if offset > count:
        assert replay.gap is not None
        assert not replay.items
        return
    missing = [] if replay.gap is None else list(range(replay.gap.first or 0, (replay.gap.last or 0) + 1))
    assert missing + _numbers(replay) == list(range(offset + 1, count + 1))


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=12), st.integers(1, 9))
def test_together_or_one_by_one_is_the_same(batches: list[list[bool]], length: int) -> None:
    """Facts, and gaps between them; what is lost, what is left, and from where one can resume."""
    together, singly, number = Journal(TRADE, "now", length), Journal(TRADE, "now", length), 0
    for batch in batches:
        items: list[Envelope | NoticeEnvelope] = []
        for is_gap in batch:
            number += 1
            gap = NoticeEnvelope(Gap(stream=TRADE.name, first=number, last=number), TRADE)
            items.append(gap if is_gap else enveloped(TRADE, trade(number), 0, "now"))
        together.append(*items)
        for item in items:
            singly.append(item)
        for epoch in ("now", "then"):
            for offset in range(number + 2):
                position = Position(epoch, offset)
                assert together.replay(position) == singly.replay(position)
