"""Next, seen, or a gap: by the exchange's own numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model.kinds import Kind
from komas.model.market import BookTicker, Event, Gap
from komas.model.streams import Stream
from komas.venues.core.sequencing import LATE_MS, RESTART, RESTART_MS, RESTART_STATES, Sequencer
from tests.builders import EVENT_MS, KLINE, MINUTE_MS, TICKER, TRADE, kline, ticker, trade

NOW_MS = 1_770_000_000_000
AGAIN_MS = EVENT_MS + LATE_MS  # a count that starts again
BOOK = Stream(Kind.BOOK_TICKER, "BTCUSDT")


def _quote(update_id: int) -> BookTicker:
    one = Decimal(1)
    return BookTicker(
        symbol="BTCUSDT",
        bid_price=one,
        bid_quantity=one,
        ask_price=one,
        ask_quantity=one,
        update_id=update_id,
        timestamp=1,
    )


def _run(stream: Stream, *events: Event) -> list[object]:
    continuity = Sequencer()
    verdicts = (continuity.judge(stream, event, NOW_MS) for event in events)
    return [verdict.gap if verdict.gap is not None else verdict.is_new for verdict in verdicts]


def test_trades_count_up_by_one() -> None:
    """Repeats and reorderings are dropped, holes are named."""
    gap = Gap(stream="btcusdt@trade", first=8, last=9)
    assert _run(TRADE, *map(trade, (5, 6, 7, 6, 7, 10, 8, 11))) == [True, True, True, False, False, gap, False, True]


def test_a_candle_may_come_many_times_and_close_once() -> None:
    """What comes after its closing is old; so is an update that another connection brought already."""
    events = (kline(1), kline(1, trades=4), kline(1), kline(1, trades=4), kline(1, closed=True, trades=4),
              kline(1, trades=4), kline(1, closed=True, trades=4), kline(2))  # fmt: skip
    assert _run(KLINE, *events) == [True, True, False, False, True, False, False, True]


def test_a_candle_whose_closing_was_lost_is_a_gap() -> None:
    """The closing that never came is named by its open time."""
    assert _run(KLINE, kline(1), kline(2)) == [
        True,
        Gap(stream="btcusdt@kline_1m", first=1 * MINUTE_MS, last=1 * MINUTE_MS),
    ]


def test_candles_that_never_came_are_a_gap() -> None:
    """From the first missing open time to the last."""
    assert _run(KLINE, kline(1, closed=True), kline(5)) == [
        True,
        Gap(stream="btcusdt@kline_1m", first=2 * MINUTE_MS, last=4 * MINUTE_MS),
    ]


def test_an_older_candle_is_old() -> None:
    """Two connections may overlap."""
    assert _run(KLINE, kline(5), kline(4, closed=True)) == [True, False]


def test_quotes_only_rise() -> None:
    """An older ticker is dropped, another of the same millisecond is not; a book ticker has a number of its own."""
    tickers = [ticker(timestamp=ms) for ms in (5, 5, 4, 6)]
    assert _run(TICKER, *tickers) == [True, False, False, True]
    assert _run(TICKER, tickers[0], ticker("1.6", timestamp=5)) == [True, True]
    assert _run(BOOK, *map(_quote, (5, 5, 9, 8))) == [True, False, True, False]


def test_a_forgotten_stream_starts_anew() -> None:
    """Nobody wanted it for a while: nothing is missing."""
    continuity = Sequencer()
    continuity.judge(TRADE, trade(5), NOW_MS)
    continuity.forget(TRADE)
    assert continuity.judge(TRADE, trade(500), NOW_MS).gap is None
    assert continuity.latest(TRADE) == trade(500)


def _restarts(events: list[Event], received_ms: list[int], stream: Stream = TRADE) -> list[int]:
    continuity = Sequencer()
    verdicts = [continuity.judge(stream, event, ms) for event, ms in zip(events, received_ms, strict=True)]
    return [place for place, verdict in enumerate(verdicts) if verdict.is_restart]


def test_numbers_that_start_again_are_told_by_their_times() -> None:
    """Fifty old ids in a row that happened after the newest one: a testnet was wiped."""
    events: list[Event] = [trade(1000), *(trade(number, event_ms=AGAIN_MS + number) for number in range(1, 60))]
    assert _restarts(events, [NOW_MS] * 60) == [RESTART]


def test_a_second_connection_that_lags_is_no_new_life() -> None:
    """It brings hundreds of old events in a row, in one read; all of them happened before the newest."""
    trades = [trade(number, event_ms=EVENT_MS + number) for number in range(1, 400)]
    assert _restarts([*trades, *trades], [NOW_MS] * 798) == []


def test_a_stream_that_repeats_what_rest_has_brought_is_no_new_life() -> None:
    """REST tells when a trade was made, a frame when it was sent: a burst comes again, each of it a little younger."""
    asked_for = [trade(number, event_ms=EVENT_MS) for number in range(1, 200)]
    sent = [trade(number, event_ms=EVENT_MS + 200) for number in range(1, 200)]
    assert _restarts([*asked_for, *sent], [NOW_MS] * 398) == []


def test_a_garbage_number_does_not_kill_a_stream() -> None:
    """Far too high, with a time to match: what goes on below it for half a minute is the stream."""
    garbage = trade(2**52, event_ms=2**52)
    events: list[Event] = [garbage, *(trade(number) for number in range(1, 200))]
    received = [NOW_MS + place * 1000 for place in range(200)]
    assert _restarts(events, received) == [RESTART]
    assert _restarts(events, [NOW_MS + place * 100 for place in range(200)]) == []


@pytest.mark.parametrize("lag", [0, 3])
def test_numbers_that_start_again_on_two_connections(lag: int) -> None:
    """What one of them repeats, at once or a little later, is no other beginning."""
    old: list[Event] = [trade(number, event_ms=AGAIN_MS + number) for number in range(1, 60)]
    events: list[Event] = [trade(1000)]
    for place, event in enumerate(old):
        events += [event, old[max(0, place - lag)]]
    assert _restarts(events, [NOW_MS] * len(events)) == [2 * RESTART - 1]


def test_late_trades_among_numbers_that_start_again_delay_nothing() -> None:
    """A second connection may bring the last of the old ones: by their times they are no part of it."""
    events: list[Event] = [trade(1000)]
    events += [trade(number, event_ms=AGAIN_MS + number) for number in range(1, 4)]
    events += [trade(number) for number in range(900, 1000)]
    events += [trade(number, event_ms=AGAIN_MS + number) for number in range(4, 60)]
    assert _restarts(events, [NOW_MS] * len(events)) == [100 + RESTART]


def test_the_newest_itself_is_no_old_one() -> None:
    """A candle that stays as it is for minutes, after older ones that were asked for over REST."""
    old = [kline(minute) for minute in range(20)]
    received = [NOW_MS] * 21 + [NOW_MS + place * 2000 for place in range(60)]
    assert _restarts([kline(20), *old, *[kline(20)] * 60], received, KLINE) == []
    assert _restarts([kline(20), *old, *[kline(7)] * 60], received, KLINE) == []


def test_garbage_among_numbers_that_start_again_delays_them() -> None:
    """It is newer than what follows, and forgotten when that has gone on for half a minute."""
    numbers = [2**40, 1, 2, 2**30, *range(3, 200)]
    events: list[Event] = [_quote(number) for number in numbers]
    received = [NOW_MS + place * 1000 for place in range(len(numbers))]
    assert _restarts(events, received, BOOK) == [3 + RESTART_MS // 1000 + RESTART_MS // 1000]


def test_states_that_start_again_are_told_by_half_a_minute() -> None:
    """A few are enough, for only the newest of a burst comes here; one that goes on repeating itself is none."""
    numbers = [2**40, *range(1, 30)]
    received = [NOW_MS + place * 5000 for place in range(len(numbers))]
    assert _restarts([_quote(number) for number in numbers], received, BOOK) == [RESTART_STATES]
    assert _restarts([_quote(2**40), *[_quote(1)] * 29], received, BOOK) == []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=100))
def test_published_and_declared_trades_are_every_number(numbers: list[int]) -> None:
    """Whatever comes in whatever order: new events and gaps together cover from the first to the last, once."""
    continuity = Sequencer()
    covered: list[int] = []
    for number in numbers:
        verdict = continuity.judge(TRADE, trade(number), NOW_MS)
        if verdict.gap is not None:
            covered += range(verdict.gap.first or 0, (verdict.gap.last or 0) + 1)
        if verdict.is_new:
            covered.append(number)
    assert covered == list(range(covered[0], max(numbers) + 1))
