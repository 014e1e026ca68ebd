"""publish() and listen(): what a subscriber gets, and that it leaves nothing behind."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.hub.buffer import Buffer
from komas.hub.hub import Hub, MarketSubscription
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Gap
from komas.model.streams import Stream
from tests.builders import KLINE, TICKER, TRADE, count_alive, kline, ticker, trade


async def _events(subscription: MarketSubscription) -> list[object]:
    return [item.event for item in (await subscription.receive()).items if isinstance(item, Envelope)]


async def test_everybody_who_listens_gets_it() -> None:
    """Two subscribers, one event, the same envelope."""
    hub = Hub()
    with hub.subscribe([TRADE]) as one, hub.subscribe([TRADE, TICKER]) as two:
        hub.publish(TRADE, trade(1), 5)
        first, second = (await one.receive()).items, (await two.receive()).items
        assert first[0] is second[0]


async def test_nothing_is_missed_between_what_is_known_and_what_comes() -> None:
    """A newcomer gets the latest ticker and the current candle, then news."""
    hub = Hub()
    hub.interest.pin([TICKER, KLINE])
    hub.publish(TICKER, ticker("1"), 0)
    hub.publish(TICKER, ticker("2"), 0)
    hub.publish(KLINE, kline(1), 0)
    with hub.subscribe([TICKER, KLINE]) as subscription:
        initial = [item.event for item in subscription.initial if isinstance(item, Envelope)]
        assert initial == [ticker("2"), kline(1)]
        hub.publish(TICKER, ticker("3"), 0)
        assert await _events(subscription) == [ticker("3")]


async def test_a_past_trade_is_no_state() -> None:
    """A newcomer to trades starts with the next one."""
    hub = Hub()
    hub.interest.pin([TRADE])
    hub.publish(TRADE, trade(1), 0)
    with hub.subscribe([TRADE]) as subscription:
        assert subscription.initial == []


async def test_a_resume_is_replayed_then_live() -> None:
    """What was missed is known at once, what comes follows, nothing twice."""
    hub = Hub(epoch=lambda: "now")
    hub.interest.pin([TRADE])
    for number in (1, 2, 3):
        hub.publish(TRADE, trade(number), 0)
    with hub.subscribe([TRADE], since=StreamPosition("now", 1)) as subscription:
        assert [item.sequence for item in subscription.initial if isinstance(item, Envelope)] == [2, 3]
        hub.publish(TRADE, trade(4), 0)
        assert await _events(subscription) == [trade(4)]


async def test_a_resumed_candle_listener_gets_the_current_candle_too() -> None:
    """Closed candles since the position, then the open one."""
    hub = Hub(epoch=lambda: "now")
    hub.interest.pin([KLINE])
    for event in (kline(1, closed=True), kline(2, closed=True), kline(3)):
        hub.publish(KLINE, event, 0)
    with hub.subscribe([KLINE], since=StreamPosition("now", 60_000)) as subscription:
        initial = [item.event for item in subscription.initial if isinstance(item, Envelope)]
        assert initial == [kline(2, closed=True), kline(3)]


async def test_a_resume_from_a_closed_life_starts_with_a_gap() -> None:
    """The stream was closed in between: its new life has a new epoch."""
    epochs = iter(["one", "two"])
    hub = Hub(epoch=lambda: next(epochs))
    hub.interest.pin([TRADE])
    hub.publish(TRADE, trade(5), 0)
    hub.interest.unpin([TRADE])
    hub.interest.pin([TRADE])
    with hub.subscribe([TRADE], since=StreamPosition("one", 5)) as subscription:
        (notice,) = subscription.initial
        assert isinstance(notice, NoticeEnvelope)
        assert notice.notice == Gap(stream="btcusdt@trade", first=6, last=None)


async def test_facts_of_unwanted_streams_are_counted_and_dropped() -> None:
    """A few still come after an unsubscription; an old price must not be shown later."""
    hub = Hub()
    hub.interest.pin([TICKER])
    hub.publish(TICKER, ticker(), 0)
    hub.interest.unpin([TICKER])
    hub.publish(TICKER, ticker(), 0)
    assert hub.latest.get(TICKER) is None
    assert (hub.statistics().published, hub.statistics().unwanted) == (1, 1)


async def test_a_gap_reaches_listeners_in_its_place() -> None:
    """Between the trade before and the trade after."""
    hub = Hub()
    gap = Gap(stream="btcusdt@trade", first=2, last=4)
    with hub.subscribe([TRADE]) as subscription:
        hub.publish(TRADE, trade(1), 0)
        hub.publish_gap(TRADE, gap)
        hub.publish(TRADE, trade(5), 0)
        items = (await subscription.receive()).items
        assert [item.notice if isinstance(item, NoticeEnvelope) else item.sequence for item in items] == [1, gap, 5]


async def test_the_state_of_the_feed_reaches_everybody_a_refusal_its_stream() -> None:
    """A refused stream is told to its subscribers alone, and is wanted no more."""
    hub = Hub()
    with hub.subscribe([TICKER]) as one, hub.subscribe([TRADE]) as two:
        hub.publish_status(FeedStatus(state=FeedState.CONNECTED))
        hub.reject(TRADE, "invalid stream")
        assert len((await one.receive()).items) == 1
        state, refusal = (item.notice for item in (await two.receive()).items if isinstance(item, NoticeEnvelope))
        assert state == FeedStatus(state=FeedState.CONNECTED)
        assert refusal == FeedStatus(state=FeedState.CONNECTED, stream="btcusdt@trade", reason="invalid stream")
        assert hub.interest.streams() == (TICKER,)


async def test_listeners_of_a_refused_stream_hear_it_again_when_it_is_wanted_again() -> None:
    """They kept their place; leaving, they are counted out of it, and nothing keeps them."""
    before = count_alive(Buffer)
    hub = Hub(linger_s=0)
    with hub.subscribe([TRADE]) as first:
        hub.reject(TRADE, "no")
        with hub.subscribe([TRADE]) as second:
            hub.publish(TRADE, trade(1), 0)
            assert await _events(first) == await _events(second) == [trade(1)]
        hub.reject(TRADE, "no")
    del first, second
    assert count_alive(Buffer) == before
    assert hub.interest.subscribers(TRADE) == 0


@pytest.mark.parametrize("since", [None, StreamPosition("then", 0)], ids=["new", "back"])
async def test_a_listener_that_cannot_be_greeted_leaves_nothing_behind(
    since: StreamPosition | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails between counting and the first news."""
    before = count_alive(Buffer)
    hub = Hub()
    monkeypatch.setattr(hub.latest, "get", lambda _stream: 1 // 0)
    with pytest.raises(ZeroDivisionError), hub.subscribe([KLINE], since=since):
        pytest.fail("the block was entered")
    assert hub.interest.subscribers(KLINE) == 0
    assert hub.subscribers == 0
    assert count_alive(Buffer) == before


async def test_a_new_count_is_a_new_life() -> None:
    """Old positions are void, subscribers stay."""
    epochs = iter(["one", "two"])
    hub = Hub(epoch=lambda: next(epochs))
    with hub.subscribe([TRADE]) as subscription:
        hub.publish(TRADE, trade(9), 0)
        hub.reset_sequence(TRADE, Gap(stream="btcusdt@trade", first=10, last=None))
        hub.publish(TRADE, trade(1), 0)
        before, gap, after = (await subscription.receive()).items
        assert isinstance(before, Envelope)
        assert isinstance(gap, NoticeEnvelope)
        assert isinstance(after, Envelope)
        assert (before.epoch, before.sequence, after.epoch, after.sequence) == ("one", 9, "two", 1)


async def test_draining_ends_listeners_after_what_waits() -> None:
    """Those there are, and those that come too late."""
    hub = Hub()
    with hub.subscribe([TRADE]) as subscription:
        hub.publish(TRADE, trade(1), 0)
        hub.drain()
        assert await _events(subscription) == [trade(1)]
        with pytest.raises(trio.EndOfChannel):
            await subscription.receive()
    with hub.subscribe([TRADE]) as late, pytest.raises(trio.EndOfChannel):
        await late.receive()


async def test_leaving_leaves_nothing_behind(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """Cancelled at its wait, a subscriber's counts go back to zero, and its stream closes after lingering."""
    hub = Hub()
    nursery.start_soon(hub.interest.sweep)

    async def subscribe() -> None:
        with hub.subscribe([TRADE, TICKER]) as subscription:
            await subscription.receive()

    async with trio.open_nursery() as subscribers:
        for _ in range(10):
            subscribers.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        assert hub.statistics().subscribers == 10
        subscribers.cancel_scope.cancel()
    assert hub.statistics().subscribers == 0
    assert hub.interest.subscribers(TRADE) == 0
    await trio.sleep(31)
    assert (hub.statistics().streams, hub.statistics().history_events) == (0, 0)


async def test_a_slow_listener_pays_alone() -> None:
    """It loses the oldest and hears how many; its neighbour loses nothing."""
    hub = Hub()
    with hub.subscribe([TRADE], capacity=16) as slow, hub.subscribe([TRADE]) as quick:
        for number in range(100):
            hub.publish(TRADE, trade(number), 0)
        assert len((await quick.receive()).items) == 100
        batch = await slow.receive()
        assert (len(batch.items), batch.dropped) == (16, 84)
        assert hub.statistics().dropped == 84


async def test_prices_prefer_the_full_ticker() -> None:
    """The mini ticker stands in where there is no other."""
    hub = Hub()
    mini = Stream(Kind.MINI_TICKER, "BTCUSDT")
    hub.interest.pin([TICKER, mini])
    hub.publish(mini, ticker("1"), 0)
    assert hub.latest.prices()["BTCUSDT"].event["price"] == 1
    hub.publish(TICKER, ticker("2"), 0)
    hub.publish(mini, ticker("3"), 0)
    assert hub.latest.prices()["BTCUSDT"].event["price"] == 2
    assert hub.latest.prices(["ETHUSDT"]) == {}
