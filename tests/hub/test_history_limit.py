"""All histories together stay within one limit; those that are read least give first."""

from __future__ import annotations

import gc
import tracemalloc
from decimal import Decimal

import pytest

from komas.hub.history import History
from komas.hub.history_limit import AT_ONCE, HistoryLimit
from komas.hub.hub import Hub
from komas.model.codec import StreamPosition
from komas.model.kinds import KINDS, Kind
from komas.model.market import AggTrade, Event, Gap, Kline
from komas.model.streams import Stream
from komas.web.encoding import server_sent_event
from tests.builders import EVENT_MS, TRADE, enveloped, kline, trade

EVENT_BYTES = KINDS[Kind.TRADE].kept_bytes
SYMBOLS = "ABCDEFGH"


class _House:
    """Histories of several symbols, under a limit of so many trades."""

    def __init__(self, most: int, symbols: str = SYMBOLS) -> None:
        self.limit = HistoryLimit(most * EVENT_BYTES)
        self.histories = {symbol: History(Stream(Kind.TRADE, symbol), "now") for symbol in symbols}
        self.counts = dict.fromkeys(symbols, 0)
        for history in self.histories.values():
            self.limit.opened(history, is_read=False)

    def publish(self, symbol: str, count: int) -> None:
        history = self.histories[symbol]
        for _ in range(count):
            self.counts[symbol] += 1
            event = enveloped(history.stream, trade(self.counts[symbol]), 0, "now")
            self.limit.grew(history, history.append(event))

    @property
    def held(self) -> dict[str, int]:
        assert self.limit.held_bytes == sum(len(each) for each in self.histories.values()) * EVENT_BYTES
        return {symbol: len(history) for symbol, history in self.histories.items() if len(history)}


def test_streams_that_nobody_reads_give_first_the_one_left_longest_ago_before_others() -> None:
    """What somebody reads now is touched by nothing until they have nothing left."""
    house = _House(1000, "ABC")
    for symbol in "ABC":
        house.limit.read(house.histories[symbol])
        house.publish(symbol, 300)
    house.limit.left(house.histories["B"])
    house.limit.left(house.histories["A"])
    house.publish("C", 300)
    assert house.held["B"] < 300
    assert (house.held["A"], house.held["C"]) == (300, 600)
    house.publish("C", 200)
    assert house.held == {"A": pytest.approx(200, abs=AT_ONCE), "C": 800}
    house.publish("C", 2000)
    assert house.held == {"C": pytest.approx(1000, abs=AT_ONCE)}
    assert house.limit.evicted == 300 + 300 + 2800 - house.held["C"]


def test_one_busy_stream_does_not_take_the_histories_of_quiet_ones() -> None:
    """Among those that are read, who holds less than its share is passed over."""
    house = _House(1000)
    for history in house.histories.values():
        house.limit.read(history)
    for symbol in SYMBOLS[1:]:
        house.publish(symbol, 50)
    house.publish("A", 10_000)
    assert {house.held[symbol] for symbol in SYMBOLS[1:]} == {50}
    assert house.held["A"] == pytest.approx(1000 - 7 * 50, abs=AT_ONCE)


def test_a_history_that_gave_all_and_goes_on_gives_first_again() -> None:
    """It was the least read one, and still is."""
    house = _House(100, "AB")
    house.publish("A", 10)
    house.publish("B", 100)
    assert "A" not in house.held
    house.publish("A", 10)
    house.publish("B", 100 - house.held["B"])
    assert "A" not in house.held


def test_what_is_closed_counts_no_more() -> None:
    """Neither with what it holds nor as one that could give."""
    house = _House(100, "AB")
    house.publish("A", 60)
    house.limit.closed(house.histories.pop("A"))
    assert house.limit.held_bytes == 0
    house.publish("B", 1000)
    assert len(house.histories["B"]) > 0


def test_a_limit_below_one_event_keeps_nothing() -> None:
    """And nothing breaks."""
    house = _House(0, "AB")
    house.publish("A", 5)
    house.publish("B", 5)
    assert (house.held, house.limit.evicted) == ({}, 10)


def test_one_event_costs_a_few_looks_with_ten_thousand_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """No publish looks at every stream: those that hold a little are passed over, but not all of them in one go."""
    count, looks = 10_000, 0
    limit = HistoryLimit(count * EVENT_BYTES)
    histories = [History(Stream(Kind.TRADE, f"S{number}"), "now") for number in range(count)]
    for history in histories:
        limit.opened(history, is_read=True)
        limit.grew(history, history.append(enveloped(history.stream, trade(1), 0, "now")))

    def length(history: History) -> int:
        nonlocal looks
        looks += 1
        return history.end - history.first

    monkeypatch.setattr(History, "__len__", length)
    for number in range(2, 200):
        before = looks
        limit.grew(histories[7], histories[7].append(enveloped(histories[7].stream, trade(number), 0, "now")))
        assert looks - before < 200
    assert limit.held_bytes <= count * EVENT_BYTES


async def test_what_the_limit_took_is_told_to_who_comes_back() -> None:
    """With both ends; never in silence."""
    hub = Hub(epoch=lambda: "now", history_bytes=200 * EVENT_BYTES)
    other = Stream(Kind.TRADE, "ETHUSDT")
    hub.interest.pin([TRADE, other])
    for number in range(1, 101):
        hub.publish(TRADE, trade(number), 0)
    for number in range(1, 151):
        hub.publish(other, trade(number), 0)
    statistics = hub.statistics()
    assert statistics.history_bytes == statistics.history_events * EVENT_BYTES <= 200 * EVENT_BYTES
    assert statistics.history_evicted == 250 - statistics.history_events == AT_ONCE
    with hub.subscribe([TRADE], since=StreamPosition("now", 10)) as subscription:
        notice, first, *_ = subscription.initial
        assert notice.notice == Gap(stream="btcusdt@trade", first=11, last=AT_ONCE)  # type: ignore[union-attr]
        assert first.sequence == AT_ONCE + 1  # type: ignore[union-attr]


async def test_a_stream_that_is_read_is_not_the_first_to_give() -> None:
    """From the subscription to its end, whoever else reads it."""
    hub = Hub(history_bytes=200 * EVENT_BYTES)
    other = Stream(Kind.TRADE, "ETHUSDT")
    hub.interest.pin([TRADE, other])

    def held() -> list[int]:
        return [len(hub.open_streams.by_stream[stream].history) for stream in (TRADE, other)]

    with hub.subscribe([TRADE]):
        with hub.subscribe([TRADE]):
            pass
        for stream in (TRADE, other):
            for number in range(150):
                hub.publish(stream, trade(number), 0)
        assert held()[0] == 150
    with hub.subscribe([other]):
        for number in range(150, 200):
            hub.publish(other, trade(number), 0)
    assert held()[0] < 150


def _distinct(kind: Kind, number: int) -> Event:
    """An event that shares nothing with its neighbours, as in the worst case of a busy market."""

    def amount(place: int) -> Decimal:
        return Decimal(f"{61_837 + number + place}.{number:08d}")

    event_ms, trade_id = EVENT_MS + number, 3_000_000_000 + number
    match kind:
        case Kind.TRADE:
            return trade(trade_id, str(amount(0)), event_ms)
        case Kind.AGG_TRADE:
            return AggTrade(
                symbol="BTCUSDT",
                trade_id=trade_id,
                price=amount(0),
                quantity=amount(1),
                first_trade_id=trade_id + 10**9,
                last_trade_id=trade_id + 10**9 + 1,
                timestamp=event_ms,
                is_buyer_maker=True,
            )
        case _:
            return Kline(
                symbol="BTCUSDT",
                interval="1m",
                timestamp=kline(number).timestamp + EVENT_MS,
                open=amount(0),
                high=amount(1),
                low=amount(2),
                close=amount(3),
                volume=amount(4),
                is_closed=True,
                trades=number + 1000,
                quote_volume=amount(5),
            )


@pytest.mark.parametrize("kind", [kind for kind, spec in KINDS.items() if spec.kept_bytes])
async def test_an_event_takes_what_is_counted_for_it(kind: Kind) -> None:
    """Its fields, its envelope, and the bytes that every client gets; the allocator's word on it."""
    count = 4000
    stream = Stream.of(kind, "BTCUSDT", "1m" if KINDS[kind].has_interval else None)
    hub = Hub()
    hub.interest.pin([stream])
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        hub.publish(stream, _distinct(kind, number), EVENT_MS + 10**6 + number)
        envelope = hub.latest.get(stream)
        assert envelope is not None
        server_sent_event(envelope)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == pytest.approx(hub.statistics().history_bytes, rel=0.1)


def test_every_kind_that_is_kept_is_counted() -> None:
    """A new one would have a history without a limit."""
    for spec in KINDS.values():
        assert bool(spec.kept_bytes) == (not spec.is_state or spec.has_interval)
