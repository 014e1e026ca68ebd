"""One subscription to many streams: one order over all of them, a way back into it, and changes while it lasts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import msgspec
import pytest
import trio
import trio.testing

from komas.hub.history import NOT_OPEN
from komas.hub.hub import Hub
from komas.hub.multiplex import MultiplexedSubscription
from komas.hub.overflow import Item
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Kind
from komas.model.market import Gap, Kline, StreamList
from komas.model.streams import Stream
from komas.web.multiplex import MultiplexedShow
from tests.builders import KLINE, MINUTE_MS, TICKER, kline, ticker, trade

SHOW = MultiplexedShow(levels=20, epoch=lambda: "e")
TRADES = [Stream.of(Kind.TRADE, f"S{number}USDT") for number in range(4)]


class _House:
    """A hub whose streams are kept open, and the next trade of each."""

    def __init__(self, *streams: Stream) -> None:
        self.hub = Hub(linger_s=0)
        self.hub.interest.pin(streams)
        self.next = dict.fromkeys(TRADES, 1)

    def publish(self, stream: Stream, count: int = 1) -> None:
        """The next trades of a stream."""
        for _ in range(count):
            number = self.next[stream]
            self.next[stream] += 1
            self.hub.publish(stream, msgspec.structs.replace(trade(number), symbol=stream.symbol), 0)

    def at(self, number: int) -> StreamPosition:
        """A place among the events of all streams."""
        return StreamPosition(self.hub.epoch, number)


async def _all(subscription: MultiplexedSubscription) -> list[Item]:
    """Everything that is there now."""
    items = list(subscription.initial)
    subscription.initial.clear()
    with trio.move_on_after(1):
        while True:
            items += (await subscription.receive()).items
    return items


def _trades(items: Iterable[Item], stream: Stream) -> list[int]:
    return [item.sequence for item in items if isinstance(item, Envelope) and item.stream == stream and item.sequence]


def _numbers(items: Iterable[Item]) -> list[int]:
    return [item.publication for item in items if isinstance(item, Envelope) and item.publication]


def _gaps(items: Iterable[Item]) -> list[Gap]:
    return [item.notice for item in items if isinstance(item, NoticeEnvelope) and isinstance(item.notice, Gap)]


async def test_one_place_is_a_way_back_into_all_streams(autojump_clock: trio.testing.MockClock) -> None:
    """Each stream's missed events once, in the one order in which all were published; then what is live."""
    house = _House(*TRADES)
    for number in range(50):
        house.publish(TRADES[number % 4])
    with house.hub.multiplex(TRADES, SHOW, since=house.at(20)) as subscription:
        house.publish(TRADES[0], 3)
        items = await _all(subscription)
        house.publish(TRADES[1], 2)
        items += await _all(subscription)
    assert _numbers(items) == list(range(21, 56))
    assert _trades(items, TRADES[0]) == [*range(6, 14), 14, 15, 16]
    assert _gaps(items) == []


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_cut_and_changed_nothing_is_lost_or_doubled(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """A reader that comes back with its last number, each time after some slices, with one stream more or less."""
    pick, house, seen = random.Random(seed), _House(*TRADES), list[Item]()
    place = house.at(0)
    for _ in range(12):
        with house.hub.multiplex(TRADES[:3], SHOW, since=place) as subscription:
            seen += subscription.initial
            for _ in range(pick.randint(0, 6)):
                for stream in pick.choices(TRADES, k=pick.randint(0, 60)):
                    house.publish(stream)
                if pick.random() < 0.3:
                    subscription.change(TRADES[3:], [], ())
                if pick.random() < 0.3:
                    subscription.change([], TRADES[3:], ())
                with trio.move_on_after(0.1):
                    seen += (await subscription.receive()).items
        numbers = _numbers(seen)
        assert numbers == sorted(set(numbers))
        place = house.at(numbers[-1] if numbers else 0)
        for stream in pick.choices(TRADES, k=pick.randint(0, 90)):
            house.publish(stream)
    with house.hub.multiplex(TRADES[:3], SHOW, since=place) as subscription:
        seen += await _all(subscription)
    for stream in TRADES[:3]:
        assert _trades(seen, stream) == list(range(1, house.next[stream]))
    assert _gaps(seen) == []


async def test_a_stream_that_was_not_open_all_the_time_is_told_to_be_missing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each stream by itself; a place of another process is one before everything."""
    house = _House(*TRADES[:2])
    house.publish(TRADES[0], 5)
    house.publish(TRADES[1], 5)
    house.hub.interest.unpin(TRADES[1:2])
    house.hub.interest.pin(TRADES[1:2])
    house.publish(TRADES[1], 2)
    with house.hub.multiplex(TRADES[:2], SHOW, since=house.at(3)) as subscription:
        items = await _all(subscription)
    assert _gaps(items) == [Gap(stream=TRADES[1].name, first=None, last=5, reason=NOT_OPEN)]
    assert (_trades(items, TRADES[0]), _trades(items, TRADES[1])) == ([4, 5], [6, 7])
    with house.hub.multiplex(TRADES[:1], SHOW, since=StreamPosition("another", 3)) as subscription:
        items = await _all(subscription)
    (gap,) = _gaps(items)
    assert (gap.first, gap.last) == (None, 0)
    assert _trades(items, TRADES[0]) == [1, 2, 3, 4, 5]


async def test_what_the_history_let_go_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """Up to the last event that is gone; where it begins nobody knows."""
    house = _House(*TRADES[:2])
    house.hub = Hub(linger_s=0, history_length=10)
    house.hub.interest.pin(TRADES[:2])
    house.publish(TRADES[0], 30)
    house.publish(TRADES[1], 5)
    with house.hub.multiplex(TRADES[:2], SHOW, since=house.at(1)) as subscription:
        items = await _all(subscription)
    assert [(gap.stream, gap.first, gap.last) for gap in _gaps(items)] == [(TRADES[0].name, None, 20)]
    assert _trades(items, TRADES[0]) == list(range(21, 31))
    assert _trades(items, TRADES[1]) == [1, 2, 3, 4, 5]


async def test_a_change_is_told_and_brings_what_is_known(autojump_clock: trio.testing.MockClock) -> None:
    """All streams, then the state of the new ones, then what is live; what was removed is heard no more."""
    house = _House(TICKER, *TRADES)
    house.hub.publish(TICKER, ticker("5.0"), 0)
    with house.hub.multiplex(TRADES[:1], SHOW) as subscription:
        subscription.change([TICKER, TRADES[1]], TRADES[:1], ())
        house.publish(TRADES[0])
        house.publish(TRADES[1])
        items = await _all(subscription)
        assert isinstance(items[0], NoticeEnvelope)
        assert items[0].notice == StreamList(streams=(TICKER.name, TRADES[1].name))
        assert [str(item.stream) for item in items[1:]] == [TICKER.name, TRADES[1].name]
        assert house.hub.interest.subscribers(TRADES[0]) == 0
        subscription.change([TICKER], [TRADES[3]], ())  # it has the one, and not the other
        assert list(subscription.streams) == [TICKER, TRADES[1]]
    assert (house.hub.interest.subscribers(TICKER), house.hub.subscribers) == (0, 0)


async def test_streams_without_a_reader_close_whatever_was_changed(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is left of a connection that read many, in the middle of whatever it did."""
    hub = Hub(linger_s=0)
    with (
        pytest.raises(RuntimeError, match="cut"),
        hub.multiplex([*TRADES, KLINE], SHOW, since=StreamPosition(hub.epoch, 0), past=[KLINE]) as subscription,
    ):
        subscription.change([TICKER], TRADES[:1], ())
        raise RuntimeError("cut")
    assert (hub.subscribers, hub.statistics().history_bytes) == (0, 0)
    assert not any(hub.interest.subscribers(stream) for stream in (*TRADES, KLINE, TICKER))


def _candles(items: Iterable[Item]) -> list[tuple[int, bool]]:
    return [
        (item.event.timestamp // MINUTE_MS, item.event.is_closed)
        for item in items
        if isinstance(item, Envelope) and isinstance(item.event, Kline)
    ]


async def test_past_and_live_candles_have_no_seam(autojump_clock: trio.testing.MockClock) -> None:
    """The past ones, then those that closed while they were asked for, then the one that is open; each once."""
    house = _House(KLINE)
    house.hub.publish(KLINE, kline(9, trades=1), 0)
    with house.hub.multiplex([KLINE, *TRADES[:1]], SHOW, past=[KLINE]) as subscription:
        assert subscription.initial == []
        house.hub.publish(KLINE, kline(10, trades=8), 0)
        house.publish(TRADES[0])
        house.hub.publish(KLINE, kline(10, closed=True, trades=9), 0)
        house.hub.publish(KLINE, kline(11, trades=2), 0)
        assert subscription.awaits_past(KLINE)
        past = [kline(8, closed=True), kline(9, closed=True), kline(10, trades=5)]
        subscription.add_past(KLINE, past, 0)
        house.hub.publish(KLINE, kline(11, trades=3), 0)
        house.hub.publish(KLINE, kline(11, closed=True, trades=3), 0)
        items = await _all(subscription)
    assert _candles(items) == [(8, True), (9, True), (10, True), (11, False), (11, True)]
    assert [item.publication for item in items if isinstance(item, Envelope) and item.publication] == [1, 3]
    assert _gaps(items) == []


@pytest.mark.parametrize(("live", "past", "shown"), [(5, 7, 7), (7, 5, 7), (7, 7, 7)])
async def test_of_an_open_candle_the_newer_count_is_shown(
    live: int, past: int, shown: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The exchange's answer may be newer than what came live, or older."""
    house = _House(KLINE)
    with house.hub.multiplex([KLINE], SHOW, past=[KLINE]) as subscription:
        house.hub.publish(KLINE, kline(9, trades=live), 0)
        subscription.add_past(KLINE, [kline(8, closed=True), kline(9, trades=past)], 0)
        items = await _all(subscription)
    assert [item.event.trades for item in items if isinstance(item, Envelope) and isinstance(item.event, Kline)][
        1:
    ] == [shown]


async def test_past_candles_that_cannot_be_had_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """And the live ones come all the same; those of a stream that was removed meanwhile are nobody's."""
    house = _House(KLINE)
    with house.hub.multiplex([KLINE], SHOW, past=[KLINE]) as subscription:
        subscription.add_past(KLINE, (), 0, "no past candles: the exchange answered HTTP 418")
        house.hub.publish(KLINE, kline(9, closed=True), 0)
        items = await _all(subscription)
        assert [gap.reason for gap in _gaps(items)] == ["no past candles: the exchange answered HTTP 418"]
        assert _candles(items) == [(9, True)]
        subscription.change([], [KLINE], ())
        subscription.change([KLINE], [], [KLINE])
        subscription.change([], [KLINE], ())
        subscription.add_past(KLINE, [kline(8, closed=True)], 0)
        assert _candles(await _all(subscription)) == []


async def test_a_stream_that_is_added_during_a_replay_waits_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its events are newer than what is still missed: with one of them as the last place, that would be lost."""
    house = _House(*TRADES)
    house.publish(TRADES[0], 300)
    with house.hub.multiplex(TRADES[:1], SHOW, since=house.at(0)) as subscription:
        items = list((await subscription.receive()).items)
        subscription.change(TRADES[1:2], [], ())
        house.publish(TRADES[1], 3)
        items += await _all(subscription)
    assert _numbers(items) == list(range(1, 304))
    assert _trades(items, TRADES[1]) == [1, 2, 3]


class _Connection:
    """A connection that takes what it likes, and a task that is begun whenever something waits."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.heard: list[int] = []
        self._woken = trio.Event()

    def write_nowait(self, data: bytes) -> int:
        """All, or nothing."""
        if self._chance.random() < 0.3:
            return len(data)
        self._hear(data)
        return 0

    async def flush(self) -> bool:
        """No rest is ever kept."""
        return False

    def _hear(self, data: bytes) -> None:
        self.heard += [int(place) for place in re.findall(rb"^id: \w+-(\d+)$", data, re.MULTILINE)]

    async def run(self, subscription: MultiplexedSubscription) -> None:
        """As the connection of a response without an end."""
        events = SHOW.new_events()
        self._hear(b"".join(map(events.render, subscription.initial)))
        while True:
            while not subscription.rest(self._woken.set):
                batch = subscription.take()
                await trio.sleep(self._chance.random() * 0.01)
                self._hear(b"" if batch is None else b"".join(events.of(batch)))
            await self._woken.wait()
            self._woken = trio.Event()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("missed", [0, 1, 7, 200])
async def test_who_rests_without_a_task_hears_everything_once_from_its_place_on(
    missed: int, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Also who comes back with nothing missed: the way back has no end before it was walked."""
    chance, house = random.Random(seed), _House(*TRADES)
    for _ in range(250):
        house.publish(chance.choice(TRADES))
    connection = _Connection(chance)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.hub.run)
        since = house.at(250 - missed)
        with house.hub.multiplex(TRADES, SHOW, writer=connection, since=since) as subscription:
            nursery.start_soon(connection.run, subscription)
            for _ in range(100):
                for _ in range(chance.randrange(3)):
                    house.publish(chance.choice(TRADES))
                house.hub.flush()
                await trio.sleep(chance.choice((0, 0.001, 0.02)))
            await trio.sleep(1)
            assert connection.heard == list(range(251 - missed, sum(house.next.values()) - 3))
            nursery.cancel_scope.cancel()
