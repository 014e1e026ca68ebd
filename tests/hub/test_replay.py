"""Who comes back takes what it missed at its own pace, then is live: everything once, in order, or told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import trio
import trio.testing

from komas.errors import SlowConsumer
from komas.hub.buffer import Buffer
from komas.hub.history import TOO_SLOW
from komas.hub.hub import Hub, MarketSubscription
from komas.hub.overflow import Item, Overflow
from komas.hub.replay import SLICE
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import KINDS, Kind
from komas.model.market import FeedState, FeedStatus, Gap, Health, HealthNotice, Kline
from komas.web.sse import Show
from tests.builders import KLINE, MINUTE_MS, TRADE, count_alive, kline, trade

Subscribe = Callable[..., AbstractContextManager[MarketSubscription]]


class _Socket:
    """A connection that takes everything; what was written directly is counted."""

    def __init__(self) -> None:
        self.text = b""

    def write_nowait(self, data: bytes) -> int:
        self.text += data
        return 0

    async def flush(self) -> bool:
        return False


@pytest.fixture(params=["own task", "direct"])
def subscribe(request: pytest.FixtureRequest) -> Subscribe:
    """Both ways to subscribe."""
    if request.param == "own task":
        return lambda hub, stream, since: hub.subscribe([stream], since=since)
    return lambda hub, stream, since: hub.subscribe_writer([stream], _Socket(), Show(), since=since)


def _hub(first: int, last: int, length: int = 4096) -> Hub:
    epochs = (f"e{number}" for number in itertools.count())
    hub = Hub(epoch=lambda: next(epochs), history_length=length)
    hub.interest.pin([TRADE])
    _publish(hub, first, last)
    return hub


def _publish(hub: Hub, first: int, last: int) -> None:
    for number in range(first, last + 1):
        hub.publish(TRADE, trade(number), 0)


def _told(items: list[Item]) -> Iterator[object]:
    for item in items:
        yield item.sequence if isinstance(item, Envelope) else item.notice


async def test_a_replay_comes_in_slices_and_nothing_of_it_waits(subscribe: Subscribe) -> None:
    """What comes meanwhile is not put into a buffer that could overflow: the history has it."""
    hub = _hub(1, 1000)
    with subscribe(hub, TRADE, StreamPosition("e0", 100)) as subscription:
        assert len(subscription.initial) == SLICE
        assert subscription.behind == 900 - SLICE
        seen = list(_told(subscription.initial))
        _publish(hub, 1001, 4000)
        assert subscription._buffer.waiting == 0  # noqa: SLF001 - what this is about
        while subscription.behind:
            batch = await subscription.receive()
            assert (len(batch.items) <= SLICE, batch.dropped) == (True, 0)
            seen += _told(batch.items)
        assert seen == list(range(101, 4001))
        _publish(hub, 4001, 4002)
        assert list(_told((await subscription.receive()).items)) == [4001, 4002]
    assert hub.statistics().dropped == 0


async def test_what_the_history_let_go_meanwhile_is_told_and_what_follows_comes(subscribe: Subscribe) -> None:
    """A reader that is slower than the history is kept: both ends, the reason, and the rest without a repeat."""
    hub = _hub(1, 1000, length=1000)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        seen = list(_told(subscription.initial))
        _publish(hub, 1001, 1500)
        while subscription.behind:
            seen += _told((await subscription.receive()).items)
    lost = Gap(stream="btcusdt@trade", first=SLICE + 1, last=500, reason=TOO_SLOW)
    assert seen == [*range(1, SLICE + 1), lost, *range(501, 1501)]


async def test_notices_that_no_history_has_come_during_a_replay(subscribe: Subscribe) -> None:
    """The newest state of the feed, and of the stream; a gap comes at its place, once."""
    hub = _hub(1, 200)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        hub.publish_status(FeedStatus(state=FeedState.RECONNECTING))
        hub.publish_status(FeedStatus(state=FeedState.CONNECTED))
        health = HealthNotice(stream=TRADE.name, health=Health.STALE, reason="silent")
        hub.publish_health(TRADE, health)
        gap = Gap(stream=TRADE.name, first=201, last=204)
        hub.publish_gap(TRADE, gap)
        _publish(hub, 205, 205)
        seen = list(_told(subscription.initial))
        while subscription.behind:
            seen += _told((await subscription.receive()).items)
    status = FeedStatus(state=FeedState.CONNECTED)
    assert seen == [*range(1, SLICE + 1), status, health, *range(SLICE + 1, 201), gap, 205]


async def test_a_new_count_in_the_middle_of_a_replay_is_told_and_followed(subscribe: Subscribe) -> None:
    """What was left of the old one is a gap, with both ends; then the reset, then the new count."""
    hub = _hub(1, 200)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        reset = Gap(stream=TRADE.name, first=201, last=None)
        hub.reset_sequence(TRADE, reset)
        _publish(hub, 7, 8)
        items = (await subscription.receive()).items
        left = Gap(stream=TRADE.name, first=SLICE + 1, last=200, reason=TOO_SLOW)
        assert list(_told(items)) == [left, reset, 7, 8]
        assert [item.epoch for item in items if isinstance(item, Envelope)] == ["e1", "e1"]


async def test_a_refusal_in_the_middle_of_a_replay_is_told_and_the_stream_may_come_again(subscribe: Subscribe) -> None:
    """Its history is gone: what was left is a gap."""
    hub = _hub(1, 200)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        hub.reject(TRADE, "delisted")
        hub.interest.pin([TRADE])
        _publish(hub, 300, 300)
        refusal, gap, event = _told((await subscription.receive()).items)
        assert isinstance(refusal, FeedStatus)
        assert refusal.reason == "delisted"
        assert (gap, event) == (Gap(stream=TRADE.name, first=SLICE + 1, last=200, reason=TOO_SLOW), 300)


async def test_draining_does_not_wait_for_a_replay(subscribe: Subscribe) -> None:
    """Whoever is cut off there comes back with its position."""
    hub = _hub(1, 1000)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        hub.drain()
        with pytest.raises(trio.EndOfChannel):
            await subscription.receive()


async def test_who_leaves_in_the_middle_of_a_replay_leaves_nothing_behind(
    subscribe: Subscribe, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Its stream closes after lingering, though it was never live."""
    before = count_alive(Buffer)
    hub = _hub(1, 1000)
    nursery.start_soon(hub.interest.sweep)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        await subscription.receive()
    del subscription
    assert count_alive(Buffer) == before
    hub.interest.unpin([TRADE])
    hub.publish_status(FeedStatus(state=FeedState.CONNECTED))
    await trio.sleep(31)
    assert (hub.statistics().streams, hub.statistics().subscribers, hub.statistics().history_bytes) == (0, 0, 0)


async def test_a_task_that_is_cancelled_has_taken_nothing(subscribe: Subscribe) -> None:
    """The next ``receive()`` goes on where the last one that returned was."""
    hub = _hub(1, 300)
    with subscribe(hub, TRADE, StreamPosition("e0", 0)) as subscription:
        with trio.CancelScope() as scope:
            scope.cancel()
            await subscription.receive()
        items = (await subscription.receive()).items
        assert list(_told(items)) == list(range(SLICE + 1, 2 * SLICE + 1))


async def test_tasks_that_share_a_subscription_share_its_replay(nursery: trio.Nursery) -> None:
    """Each item goes to one of them."""
    hub, seen = _hub(1, 1000), list[object]()

    async def read(subscription: MarketSubscription) -> None:
        while subscription.behind:
            seen.extend(_told((await subscription.receive()).items))

    with hub.subscribe([TRADE], since=StreamPosition("e0", 0)) as subscription:
        seen += _told(subscription.initial)
        async with trio.open_nursery() as readers:
            for _ in range(3):
                readers.start_soon(read, subscription)
            await trio.testing.wait_all_tasks_blocked()
            _publish(hub, 1001, 1003)  # two of them may have waited for what comes next
            await trio.testing.wait_all_tasks_blocked()
            readers.cancel_scope.cancel()
    assert len(seen) == 1003
    assert set(seen) == set(range(1, 1004))


async def test_a_subscriber_that_may_lose_nothing_is_not_disconnected_by_its_replay() -> None:
    """However much comes meanwhile; once it is live, its buffer counts."""
    hub = _hub(1, 500)
    with hub.subscribe(
        [TRADE], since=StreamPosition("e0", 0), capacity=16, overflow=Overflow.DISCONNECT
    ) as subscription:
        _publish(hub, 501, 1000)
        while subscription.behind:
            await subscription.receive()
        _publish(hub, 1001, 1017)
        with pytest.raises(SlowConsumer):
            await subscription.receive()


def _candles(items: list[Item]) -> list[tuple[int, bool]]:
    events = [item.event for item in items if isinstance(item, Envelope)]
    return [(event.timestamp // MINUTE_MS, event.is_closed) for event in events if isinstance(event, Kline)]


async def test_an_open_candle_never_follows_its_closing(subscribe: Subscribe) -> None:
    """Closed candles of the replay, those that were closed meanwhile, and the open one at the very end."""
    hub = Hub(epoch=lambda: "now")
    hub.interest.pin([KLINE])
    for minute in range(200):
        hub.publish(KLINE, kline(minute, closed=True), 0)
    hub.publish(KLINE, kline(200), 0)
    with subscribe(hub, KLINE, StreamPosition("now", 0)) as subscription:
        seen = _candles(subscription.initial)
        hub.publish(KLINE, kline(200, closed=True), 0)
        hub.publish(KLINE, kline(201), 0)
        while subscription.behind:
            seen += _candles((await subscription.receive()).items)
        assert seen == [*((minute, True) for minute in range(1, 201)), (201, False)]
        hub.publish(KLINE, kline(201, closed=True), 0)
        assert _candles((await subscription.receive()).items) == [(201, True)]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_everything_comes_once_in_order_or_is_told(seed: int, subscribe: Subscribe) -> None:
    """Readers of all paces, holes, and a limit that takes from the history, until all are live and quiet."""
    chance, number = random.Random(seed), 300
    hub = Hub(epoch=lambda: "now", history_length=256, history_bytes=200 * KINDS[Kind.TRADE].kept_bytes)
    hub.interest.pin([TRADE])
    _publish(hub, 1, number)
    with subscribe(hub, TRADE, StreamPosition("now", 150)) as subscription:
        seen = list(_told(subscription.initial))
        while subscription.behind:
            for _ in range(chance.randrange(100)):
                number += 1
                if chance.random() < 0.02:
                    hub.publish_gap(TRADE, Gap(stream=TRADE.name, first=number, last=number))
                else:
                    _publish(hub, number, number)
            seen += _told((await subscription.receive()).items)
    numbers: list[int] = []
    for each in seen:
        numbers += range(each.first or 0, (each.last or 0) + 1) if isinstance(each, Gap) else [each]  # type: ignore[list-item]
    assert numbers == list(range(151, number + 1))


async def test_a_notice_is_no_item_of_a_replay_that_is_over() -> None:
    """A reader that missed nothing is live at once."""
    hub = _hub(1, 10)
    with hub.subscribe([TRADE], since=StreamPosition("e0", 10)) as subscription:
        assert (subscription.initial, subscription.behind) == ([], 0)
        hub.publish_gap(TRADE, Gap(stream=TRADE.name, first=11, last=12))
        (notice,) = (await subscription.receive()).items
        assert isinstance(notice, NoticeEnvelope)
