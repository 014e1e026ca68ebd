"""A returning subscriber gets exactly what it missed, or is told that it cannot."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from komas.hub.history import TOO_SLOW, History
from komas.hub.overflow import Item
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.market import Gap
from tests.builders import KLINE, MINUTE_MS, TRADE, enveloped, kline, trade


def _history(first: int, last: int, length: int = 100) -> History:
    history = History(TRADE, "now", length)
    for number in range(first, last + 1):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    return history


def _recovered(history: History, epoch: str, offset: int) -> tuple[Gap | None, list[Item]]:
    gap, cursor = history.recover(StreamPosition(epoch, offset))
    return gap, cursor.take(len(cursor))


def _numbers(items: list[Item]) -> list[int | None]:
    return [item.sequence for item in items if isinstance(item, Envelope)]


def test_a_resume_is_exact() -> None:
    """Everything after the position, nothing before it, nothing else."""
    gap, items = _recovered(_history(1, 10), "now", 7)
    assert gap is None
    assert _numbers(items) == [8, 9, 10]


def test_a_resume_from_the_end_is_empty() -> None:
    """Nothing was missed."""
    assert _recovered(_history(1, 10), "now", 10) == (None, [])


def test_too_old_is_said() -> None:
    """What the ring has let go is named, and what is left follows."""
    gap, items = _recovered(_history(1, 10, length=4), "now", 3)
    assert gap == Gap(stream="btcusdt@trade", first=4, last=6)
    assert _numbers(items) == [7, 8, 9, 10]


def test_the_oldest_resumable_position_is_the_last_one_let_go() -> None:
    """Whoever has seen it misses nothing."""
    gap, items = _recovered(_history(1, 10, length=4), "now", 6)
    assert gap is None
    assert _numbers(items) == [7, 8, 9, 10]


def test_another_epoch_is_said() -> None:
    """The process was restarted, or the stream closed in between: the numbers say what is missing."""
    gap, items = _recovered(_history(20, 22), "then", 10)
    assert gap == Gap(stream="btcusdt@trade", first=11, last=19)
    assert _numbers(items) == [20, 21, 22]


def test_another_epoch_whose_numbers_prove_completeness_is_filled() -> None:
    """Told, but nothing is missing: what follows fills it."""
    gap, items = _recovered(_history(10, 14), "then", 12)
    assert gap == Gap(stream="btcusdt@trade", first=13, last=14, filled=True)
    assert _numbers(items) == [13, 14]


@pytest.mark.parametrize("epoch", ["now", "then"])
def test_a_position_from_the_future_is_said(epoch: str) -> None:
    """Nothing can be sent, and silence is not an answer."""
    assert _recovered(_history(1, 10), epoch, 99) == (Gap(stream="btcusdt@trade", first=100, last=None), [])


def test_an_empty_journal_knows_no_end_of_the_gap() -> None:
    """Right after a restart nothing has come yet."""
    gap, items = _recovered(History(TRADE, "now"), "then", 5)
    assert (gap, items) == (Gap(stream="btcusdt@trade", first=6, last=None), [])


def test_gaps_of_candles_are_open_times() -> None:
    """One candle is one interval, not one."""
    history = History(KLINE, "now", 2)
    for minute in range(1, 6):
        history.append(enveloped(KLINE, kline(minute, closed=True), 0, "now"))
    gap, items = _recovered(history, "now", 1 * MINUTE_MS)
    assert gap == Gap(stream="btcusdt@kline_1m", first=2 * MINUTE_MS, last=3 * MINUTE_MS)
    assert _numbers(items) == [4 * MINUTE_MS, 5 * MINUTE_MS]


def test_a_gap_notice_is_replayed_at_its_place() -> None:
    """Who comes back over a hole is told of the hole."""
    history = _history(1, 3)
    notice = NoticeEnvelope(Gap(stream="btcusdt@trade", first=4, last=5), TRADE)
    history.append_gap(notice)
    history.append(enveloped(TRADE, trade(6), 0, "now"))
    assert _recovered(history, "now", 2)[1][1] is notice
    assert _recovered(history, "now", 3)[1][0] is notice


def test_a_gap_that_the_ring_has_let_go_is_still_a_gap() -> None:
    """What was missing is as gone as what was there."""
    history = History(TRADE, "now", 3)
    for number in (3, 4, 5):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    history.append_gap(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    for number in (10, 11, 12):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    gap, items = _recovered(history, "now", 5)
    assert gap == Gap(stream="btcusdt@trade", first=6, last=9)
    assert _numbers(items) == [10, 11, 12]


def test_filled_reaches_to_the_next_gap() -> None:
    """Another epoch, numbers that connect, and a hole further on."""
    history = _history(4, 5)
    history.append_gap(NoticeEnvelope(Gap(stream="btcusdt@trade", first=6, last=9), TRADE))
    history.append(enveloped(TRADE, trade(10), 0, "now"))
    gap, _ = history.recover(StreamPosition("then", 4))
    assert gap == Gap(stream="btcusdt@trade", first=5, last=5, filled=True)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 60))
def test_a_replay_and_its_gap_are_everything_after_the_position(count: int, length: int, offset: int) -> None:
    """For every position: gap and items together are without hole and without repeat."""
    gap, items = _recovered(_history(1, count, length), "now", offset)
    if offset > count:
        assert gap is not None
        assert not items
        return
    missing = [] if gap is None else list(range(gap.first or 0, (gap.last or 0) + 1))
    assert missing + _numbers(items) == list(range(offset + 1, count + 1))


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=12), st.integers(1, 9))
def test_together_or_one_by_one_is_the_same(batches: list[list[bool]], length: int) -> None:
    """Events, and gaps between them; what is lost, what is left, and from where one can resume."""
    together, singly, number = History(TRADE, "now", length), History(TRADE, "now", length), 0
    for batch in batches:
        events: list[Envelope] = []
        for is_gap in batch:
            number += 1
            if is_gap:
                gap = NoticeEnvelope(Gap(stream=TRADE.name, first=number, last=number), TRADE)
                _append(together, events)
                together.append_gap(gap)
                singly.append_gap(gap)
            else:
                events.append(enveloped(TRADE, trade(number), 0, "now"))
                singly.append(events[-1])
        _append(together, events)
        assert len(together) == len(singly) == together.end - together.first
        for epoch in ("now", "then"):
            for offset in range(number + 2):
                assert _recovered(together, epoch, offset) == _recovered(singly, epoch, offset)


def _append(history: History, events: list[Envelope]) -> None:
    if events:
        history.append(*events)
        events.clear()


def test_a_new_count_that_another_epochs_position_meets_is_told_once() -> None:
    """What is missing has no end that is known, and is one gap, not two."""
    history = History(TRADE, "now")
    history.append_gap(NoticeEnvelope(Gap(stream="btcusdt@trade", first=10, last=None), TRADE))
    assert _recovered(history, "then", 9) == (Gap(stream="btcusdt@trade", first=10, last=None), [])


def test_a_hole_at_the_beginning_is_told_once() -> None:
    """The gap ends where the notice that is kept begins."""
    history = History(TRADE, "now")
    notice = NoticeEnvelope(Gap(stream="btcusdt@trade", first=4, last=5), TRADE)
    history.append_gap(notice)
    history.append(enveloped(TRADE, trade(6), 0, "now"))
    gap, items = _recovered(history, "then", 1)
    assert gap == Gap(stream="btcusdt@trade", first=2, last=3)
    assert items[0] is notice


def test_another_epoch_that_misses_nothing_is_told_nothing() -> None:
    """The newest event is the one that the reader has: a gap "from 11 to 10" is none."""
    assert _recovered(_history(8, 10), "then", 10) == (None, [])


def test_a_history_that_was_let_go_still_knows_what_it_had() -> None:
    """The limit of all histories took everything: both ends of the gap are known, and the last position is good."""
    history = _history(1, 10)
    assert history.let_go(64) == 10
    assert history.let_go(64) == 0
    for epoch in ("now", "then"):
        assert _recovered(history, epoch, 4) == (Gap(stream="btcusdt@trade", first=5, last=10), [])
        assert _recovered(history, epoch, 10) == (None, [])
    history.append(enveloped(TRADE, trade(11), 0, "now"))
    gap, items = _recovered(history, "now", 4)
    assert gap == Gap(stream="btcusdt@trade", first=5, last=10)
    assert _numbers(items) == [11]


def test_filled_candles_reach_to_the_open_time_before_the_next_gap() -> None:
    """Not to a millisecond before its first candle."""
    history = History(KLINE, "now")
    history.append(enveloped(KLINE, kline(1, closed=True), 0, "now"), enveloped(KLINE, kline(2, closed=True), 0, "now"))
    hole = Gap(stream=KLINE.name, first=3 * MINUTE_MS, last=4 * MINUTE_MS)
    history.append_gap(NoticeEnvelope(hole, KLINE))
    gap, _ = history.recover(StreamPosition("then", 1 * MINUTE_MS))
    assert gap == Gap(stream=KLINE.name, first=2 * MINUTE_MS, last=2 * MINUTE_MS, filled=True)


def test_a_reader_on_its_way_that_is_overtaken_is_told() -> None:
    """A gap, from what it had last to what is left; then what is left, once."""
    history = _history(1, 10, length=10)
    _, cursor = history.recover(StreamPosition("now", 2))
    assert _numbers(cursor.take(3)) == [3, 4, 5]
    for number in range(11, 19):
        history.append(enveloped(TRADE, trade(number), 0, "now"))
    notice, *items = cursor.take(4)
    assert isinstance(notice, NoticeEnvelope)
    assert notice.notice == Gap(stream="btcusdt@trade", first=6, last=8, reason=TOO_SLOW)
    assert _numbers(items) == [9, 10, 11, 12]
    assert len(cursor) == 6
    assert cursor.give_up() == Gap(stream="btcusdt@trade", first=13, last=18, reason=TOO_SLOW)
    assert (len(cursor), cursor.give_up()) == (0, None)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 60), st.lists(st.integers(0, 9), max_size=30))
def test_whoever_goes_through_has_everything_once_or_is_told(
    count: int, length: int, offset: int, steps: list[int]
) -> None:
    """However it goes: some are taken, some come, and some are let go for others' sake."""
    history, number = _history(1, count, length), count
    gap, cursor = history.recover(StreamPosition("now", min(offset, count)))
    told: list[int] = [] if gap is None else [*_missing(gap)]
    for step in [*steps, 10**6]:
        for item in cursor.take(step):
            told += [item.sequence or 0] if isinstance(item, Envelope) else _missing(item.notice)
        for _ in range(step if step < 9 else 0):
            number += 1
            history.append(enveloped(TRADE, trade(number), 0, "now"))
        if step == 9:
            history.let_go(5)
    last = cursor.give_up()
    told += [] if last is None else _missing(last)
    assert told == list(range(min(offset, count) + 1, number + 1))


def _missing(notice: object) -> range:
    assert isinstance(notice, Gap)
    assert notice.first is not None
    assert notice.last is not None
    return range(notice.first, notice.last + 1)
