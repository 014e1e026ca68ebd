"""A returning subscriber gets exactly what it missed, or is told that it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.hub.history import History, Recovered
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.market import Gap
from tests.builders import KLINE, MINUTE_MS, TRADE, enveloped, kline, trade


def _history(first: int, last: int, length: int = 100) -> History:
    history = History(TRADE, "now", length)
    for number in range(first, last + 1):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    return history


def _numbers(recover: Recovered) -> list[int | None]:
    return [item.sequence for item in recover.items if isinstance(item, Envelope)]


def test_a_resume_is_exact() -> None:
    """Everything after the position, nothing before it, nothing else."""
    recover = _history(1, 10).recover(StreamPosition("now", 7))
    assert recover.gap is None
    assert _numbers(recover) == [8, 9, 10]


def test_a_resume_from_the_end_is_empty() -> None:
    """Nothing was missed."""
    assert _history(1, 10).recover(StreamPosition("now", 10)) == Recovered([], None)


def test_too_old_is_said() -> None:
    """What the ring has let go is named, and what is left follows."""
    recover = _history(1, 10, length=4).recover(StreamPosition("now", 3))
    assert recover.gap == Gap(stream="btcusdt@trade", first=4, last=6)
    assert _numbers(recover) == [7, 8, 9, 10]


def test_the_oldest_resumable_position_is_the_last_one_let_go() -> None:
    """Whoever has seen it misses nothing."""
    recover = _history(1, 10, length=4).recover(StreamPosition("now", 6))
    assert recover.gap is None
    assert _numbers(recover) == [7, 8, 9, 10]


def test_another_epoch_is_said() -> None:
    """The process was restarted, or the stream closed in between: the numbers say what is missing."""
    recover = _history(20, 22).recover(StreamPosition("then", 10))
    assert recover.gap == Gap(stream="btcusdt@trade", first=11, last=19)
    assert _numbers(recover) == [20, 21, 22]


def test_another_epoch_whose_numbers_prove_completeness_is_filled() -> None:
    """Told, but nothing is missing: what follows fills it."""
    recover = _history(10, 14).recover(StreamPosition("then", 12))
    assert recover.gap == Gap(stream="btcusdt@trade", first=13, last=14, filled=True)
    assert _numbers(recover) == [13, 14]


@pytest.mark.parametrize("epoch", ["now", "then"])
def test_a_position_from_the_future_is_said(epoch: str) -> None:
    """Nothing can be sent, and silence is not an answer."""
    assert _history(1, 10).recover(StreamPosition(epoch, 99)) == Recovered(
        [], Gap(stream="btcusdt@trade", first=100, last=None)
    )


def test_an_empty_journal_knows_no_end_of_the_gap() -> None:
    """Right after a restart nothing has come yet."""
    recover = History(TRADE, "now").recover(StreamPosition("then", 5))
    assert recover == Recovered([], Gap(stream="btcusdt@trade", first=6, last=None))


def test_gaps_of_candles_are_open_times() -> None:
    """One candle is one interval, not one."""
    history = History(KLINE, "now", 2)
    for minute in range(1, 6):
        history.append(enveloped(KLINE, kline(minute, closed=True), 0, "now"))
    recover = history.recover(StreamPosition("now", 1 * MINUTE_MS))
    assert recover.gap == Gap(stream="btcusdt@kline_1m", first=2 * MINUTE_MS, last=3 * MINUTE_MS)
    assert _numbers(recover) == [4 * MINUTE_MS, 5 * MINUTE_MS]


def test_a_gap_notice_is_replayed_at_its_place() -> None:
    """Who comes back over a hole is told of the hole."""
    history = _history(1, 3)
    notice = NoticeEnvelope(Gap(stream="btcusdt@trade", first=4, last=5), TRADE)
    history.append(notice)
    history.append(enveloped(TRADE, trade(6), 0, "now"))
    assert history.recover(StreamPosition("now", 2)).items[1] is notice
    assert history.recover(StreamPosition("now", 3)).items[0] is notice


def test_a_gap_that_the_ring_has_let_go_is_still_a_gap() -> None:
    """What was missing is as gone as what was there."""
    history = History(TRADE, "now", 3)
    for number in (3, 4, 5):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    history.append(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    for number in (10, 11, 12):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    recover = history.recover(StreamPosition("now", 5))
    assert recover.gap == Gap(stream="btcusdt@trade", first=6, last=9)
    assert _numbers(recover) == [10, 11, 12]


def test_filled_reaches_to_the_next_gap() -> None:
    """Another epoch, numbers that connect, and a hole further on."""
    history = _history(4, 5)
    history.append(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    history.append(enveloped(TRADE, trade(10), 0, "now"))
    assert history.recover(StreamPosition("then", 4)).gap == Gap(stream="btcusdt@trade", first=5, last=5, filled=True)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 60))
def test_a_replay_and_its_gap_are_everything_after_the_position(count: int, length: int, offset: int) -> None:
    """For every position: gap and items together are without hole and without repeat."""
    recover = _history(1, count, length).recover(StreamPosition("now", offset))
    if offset > count:
        assert recover.gap is not None
        assert not recover.items
        return
    missing = [] if recover.gap is None else list(range(recover.gap.first or 0, (recover.gap.last or 0) + 1))
    assert missing + _numbers(recover) == list(range(offset + 1, count + 1))


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=12), st.integers(1, 9))
def test_together_or_one_by_one_is_the_same(batches: list[list[bool]], length: int) -> None:
    """Events, and gaps between them; what is lost, what is left, and from where one can resume."""
    together, singly, number = History(TRADE, "now", length), History(TRADE, "now", length), 0
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
                position = StreamPosition(epoch, offset)
                assert together.recover(position) == singly.recover(position)
