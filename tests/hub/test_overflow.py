"""What waits for a subscriber: merged, dropped from the front, or a reason to let it go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.hub.overflow import BoundedQueue, ConflatingQueue, Item, Overflow
from komas.model.codec import Envelope, NoticeEnvelope
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Gap
from komas.model.streams import Stream
from tests.builders import KLINE, TICKER, TRADE, enveloped, kline, ticker, trade


def _trade(number: int) -> Envelope:
    return enveloped(TRADE, trade(number), 0)


def _prices(queue: ConflatingQueue) -> list[str]:
    return [str(item.event["price"]) for item in queue.drain().items if isinstance(item, Envelope)]


def test_quotes_merge_to_the_latest() -> None:
    """Of many tickers of one stream the last is delivered, at the last one's place."""
    queue = ConflatingQueue(2, Overflow.DROP_OLDEST)
    other = Stream(Kind.TICKER, "ETHUSDT")
    queue.put(enveloped(TICKER, ticker("1"), 0))
    queue.put(enveloped(other, ticker("2", symbol="ETHUSDT"), 0))
    queue.put(enveloped(TICKER, ticker("3"), 0))
    assert _prices(queue) == ["2", "3"]


def test_trades_keep_their_order_and_drop_the_oldest() -> None:
    """A full post drops from the front, and says how many."""
    queue = ConflatingQueue(3, Overflow.DROP_OLDEST)
    for number in range(1, 6):
        queue.put(_trade(number))
    batch = queue.drain()
    assert [item.sequence for item in batch.items if isinstance(item, Envelope)] == [3, 4, 5]
    assert batch.dropped == 2
    assert queue.drain().dropped == 0


def test_a_gap_is_told_although_what_came_after_it_had_to_go() -> None:
    """Two of one stream become one, a refusal stays; notices are not counted as what was lost."""
    queue = ConflatingQueue(3, Overflow.DROP_OLDEST)
    other = Stream(Kind.TRADE, "ETHUSDT")
    refusal = NoticeEnvelope(FeedStatus(state=FeedState.CONNECTED, stream=other.name, reason="gone"), other)
    gaps = [NoticeEnvelope(Gap(stream=TRADE.name, first=first, last=first + 1), TRADE) for first in (2, 5)]
    for item in (_trade(1), gaps[0], _trade(4), gaps[1], refusal, _trade(7), _trade(8), _trade(9)):
        queue.put(item)
    batch = queue.drain()
    assert batch.dropped == 2
    assert [item.notice if isinstance(item, NoticeEnvelope) else item.sequence for item in batch.items] == [
        Gap(stream=TRADE.name, first=2, last=6),
        refusal.notice,
        7,
        8,
        9,
    ]
    assert not queue.drain().items


def test_a_closing_candle_supersedes_its_open_updates() -> None:
    """No open update of a candle is delivered after, or needlessly before, its closing."""
    queue = ConflatingQueue(10, Overflow.DROP_OLDEST)
    for event in (kline(1), kline(1, closed=True), kline(2), kline(2, close="9.0")):
        queue.put(enveloped(KLINE, event, 0))
    events = [item.event for item in queue.drain().items if isinstance(item, Envelope)]
    assert events == [kline(1, closed=True), kline(2, close="9.0")]


def test_a_full_post_that_may_not_drop_dismisses() -> None:
    """The item is refused; what was there before is untouched."""
    queue = ConflatingQueue(2, Overflow.DISCONNECT)
    assert queue.put(_trade(1))
    assert queue.put(_trade(2))
    assert not queue.put(_trade(3))
    assert len(queue) == 2


def test_only_the_newest_state_of_the_feed_waits_but_every_gap_does() -> None:
    """States merge, gaps and refusals do not."""
    queue = ConflatingQueue(10, Overflow.DROP_OLDEST)
    gap = NoticeEnvelope(Gap(stream="s", first=1, last=2), TRADE)
    refusal = NoticeEnvelope(FeedStatus(state=FeedState.CONNECTED, stream="s", reason="no"), TRADE)
    for item in (
        NoticeEnvelope(FeedStatus(state=FeedState.RECONNECTING)),
        gap,
        refusal,
        gap,
        NoticeEnvelope(FeedStatus(state=FeedState.CONNECTED)),
    ):
        queue.put(item)
    notices = [item.notice for item in queue.drain().items if isinstance(item, NoticeEnvelope)]
    assert notices == [gap.notice, refusal.notice, gap.notice, FeedStatus(state=FeedState.CONNECTED)]


@given(st.lists(st.one_of(st.integers(1, 1), st.integers(2, 2), st.none()), max_size=200), st.integers(1, 20))
def test_bounds_order_and_count_hold_for_any_traffic(traffic: list[int | None], capacity: int) -> None:
    """Delivered plus dropped is what was kept; order is publication's; never more than the capacity waits."""
    queue, number, delivered, dropped, last_quote = ConflatingQueue(capacity, Overflow.DROP_OLDEST), 0, [], 0, None
    for step in [*traffic, None]:
        if step is None:
            batch = queue.drain()
            dropped += batch.dropped
            delivered += [item for item in batch.items if isinstance(item, Envelope)]
        elif step == 1:
            number += 1
            queue.put(_trade(number))
        else:
            last_quote = enveloped(TICKER, ticker(), 0)
            queue.put(last_quote)
        assert len(queue) <= capacity + 1
    trades = [item.sequence for item in delivered if item.sequence is not None]
    assert trades == sorted(set(trades))
    assert len(trades) + dropped == number
    assert last_quote is None or last_quote in delivered


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=12), st.integers(1, 9), st.sampled_from(Overflow))
def test_together_or_one_by_one_waits_the_same(batches: list[list[int]], capacity: int, overflow: Overflow) -> None:
    """Trades, tickers, candles and notices; up to the moment at which the subscriber is to go."""
    together, singly, number = ConflatingQueue(capacity, overflow), ConflatingQueue(capacity, overflow), 0
    for batch in batches:
        items: list[Item] = []
        for kind in batch:
            number += 1
            items.append(
                (
                    _trade(number),
                    enveloped(TICKER, ticker(str(number)), 0),
                    enveloped(KLINE, kline(number // 3, closed=number % 3 == 2), 0),
                    NoticeEnvelope(FeedStatus(state=FeedState.CONNECTED)),
                )[kind]
            )
        fitted = all(singly.put(item) for item in items)
        assert together.put(*items) == fitted
        if not fitted:
            return
        assert together.drain() == singly.drain()


@pytest.mark.parametrize("count", range(5))
def test_a_line_takes_what_fits(count: int) -> None:
    """And says whether that was all."""
    line = BoundedQueue[int](3)
    assert line.put(*range(count)) == (count <= 3)
    assert line.drain() == list(range(min(count, 3)))
