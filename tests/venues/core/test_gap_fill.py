"""A gap is filled before what follows it; what cannot be filled is declared. On the deterministic clock."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import msgspec
import pytest
import trio
import trio.testing

from komas.hub.buffer import BUFFER_EVENTS
from komas.hub.hub import Hub
from komas.model.kinds import Kind
from komas.model.market import AggTrade, Event, FeedState, FeedStatus, Gap, Health, HealthNotice, Kline, Trade
from komas.model.streams import Stream
from komas.venues.binance.rows import RestHistory
from komas.venues.core.filling import GapQueue, WaitingEvent
from komas.venues.core.gap_fill import ASKED, DEADLINE_S, LATE_S, RELEASED, WAITING, GapFiller
from komas.venues.core.health import StreamHealth
from komas.venues.core.prober import PROBE_S
from komas.venues.core.rest import open_rest
from komas.venues.core.sequencing import LATE_MS, RESTART
from komas.web.sse import Show
from tests.builders import EVENT_MS, KLINE, MINUTE_MS, TICKER, TRADE, kline, ticker, trade
from tests.venues.holders import AllWanted, Holding, HoldingConnection

AGG_TRADE = Stream(Kind.AGG_TRADE, "BTCUSDT")
NOW_MS = 1_770_000_000_000


class _Sink:
    """Keeps what it is given, in order."""

    def __init__(self) -> None:
        self.status = FeedStatus(state=FeedState.DISCONNECTED)
        self.taken: list[object] = []
        self.facts: list[Event] = []
        self.backfilled: list[int] = []
        self.settles_s = 0.001

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        number = event.trade_id if isinstance(event, Trade | AggTrade) else event.timestamp
        self.taken.append(number)
        self.facts.append(event)
        if backfilled:
            assert received_ms == NOW_MS
            self.backfilled.append(number)

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        for event in events:
            self.publish(stream, event, received_ms)

    def flush(self) -> None:
        self.taken.append("flushed")

    async def settled(self) -> None:
        await trio.sleep(self.settles_s)

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        self.taken.append((gap.first, gap.last))
        self.reason = gap.reason

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        self.taken.append(health.health)

    def publish_status(self, status: FeedStatus) -> None:
        self.status = status

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        self.taken.append("renewed")

    def reject(self, stream: Stream, reason: str) -> None:
        self.taken.append("refused")


def _trades(request: httpx.Request, *, missing: tuple[int, ...] = ()) -> httpx.Response:
    """The exchange's tape: every trade there ever was, but for those that are missing."""
    first, limit = int(request.url.params["fromId"]), int(request.url.params["limit"])
    assert request.url.path == "/api/v3/historicalTrades"
    assert limit <= 1000
    rows = [
        {"id": number, "price": "1.50000000", "qty": "0.02000000", "time": 5, "isBuyerMaker": True, "isBestMatch": True}
        for number in range(first, first + limit)
        if number not in missing
    ]
    return httpx.Response(200, content=json.dumps(rows))


class _Harness:
    """A backfill over a scripted REST host."""

    def __init__(self, gap_filler: GapFiller, sink: _Sink, health: StreamHealth) -> None:
        self.gap_filler = gap_filler
        self.health = health
        self.sink = sink

    def take(self, *numbers: int) -> None:
        """What the feed hands over: trades by their ids."""
        for number in numbers:
            self.gap_filler.on_events(TRADE, [trade(number)], NOW_MS)

    def miss_one(self, streams: Sequence[Stream]) -> None:
        """Two trades of each stream, and one missing between them."""
        for stream in streams:
            for number in (1, 3):
                fact = msgspec.structs.replace(trade(number), symbol=stream.symbol)
                self.gap_filler.on_events(stream, [fact], NOW_MS)

    async def settle(self) -> None:
        """Let everything happen that needs no time but that in which late events are waited for."""
        await trio.sleep(LATE_S + 0.05)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def _harness(answer: Callable[[httpx.Request], httpx.Response]) -> AsyncIterator[_Harness]:
    sink = _Sink()
    transport = httpx.MockTransport(answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        connection = HoldingConnection()
        connection.hear(TRADE)
        health = StreamHealth(Holding(connection), AllWanted(), sink)
        gap_filler = GapFiller(sink, RestHistory(rest), health, lambda: NOW_MS)
        nursery.start_soon(gap_filler.run)
        yield _Harness(gap_filler, sink, health)
        nursery.cancel_scope.cancel()


async def test_what_is_missing_comes_first_and_what_is_live_waits(autojump_clock: trio.testing.MockClock) -> None:
    """In order, each once, marked; other streams do not wait, and afterwards nothing does."""
    async with _harness(_trades) as harness:
        harness.take(1, 2501, 2502)
        harness.gap_filler.on_events(TICKER, [ticker(timestamp=-1)], NOW_MS)
        assert harness.sink.taken == [1, -1]
        assert harness.health.of(TRADE).health is Health.RECOVERING
        await harness.settle()
        assert harness.sink.taken == [1, -1, *range(2, 2503)]
        assert harness.sink.backfilled == list(range(2, 2501))
        assert harness.health.of(TRADE).health is Health.LIVE
        harness.take(2503, 2503, 7)
        assert harness.sink.taken[-1] == 2503
        counts = harness.gap_filler.statistics()
        assert (counts.gaps, counts.filled, counts.declared, counts.recovering, counts.repeated) == (1, 2499, 0, 0, 2)


async def test_a_gap_behind_a_gap_is_filled_in_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    """Found while the first one was asked for."""
    async with _harness(_trades) as harness:
        harness.take(0, 6, 10)
        await harness.settle()
        assert harness.sink.taken == list(range(11))


async def test_what_came_before_this_process_led_is_asked_for_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A takeover held every stream up for half a second more; a gap that comes later may be one of order only."""
    async with _harness(_trades) as harness:
        harness.gap_filler.resume(TRADE, trade(1))
        began_at = trio.current_time()
        harness.take(5)
        await trio.testing.wait_all_tasks_blocked()
        assert harness.sink.taken == [1 + number for number in range(1, 5)]
        assert trio.current_time() == began_at
        harness.take(8)
        await trio.testing.wait_all_tasks_blocked()
        harness.take(6, 7)
        await trio.testing.wait_all_tasks_blocked()
        assert harness.sink.backfilled == [2, 3, 4]


async def test_nothing_is_asked_for_at_once_where_a_takeover_missed_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its streams are as any other from their first event on."""

    def answer(_request: httpx.Request) -> httpx.Response:
        raise AssertionError

    async with _harness(answer) as harness:
        harness.gap_filler.resume(TRADE, trade(1))
        harness.take(2, 4, 3)
        await harness.settle()
        assert harness.sink.taken == [2, 3, 4]


async def test_what_is_only_late_is_not_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """Two connections, or frames out of order: each event once, none of them marked."""

    def answer(_request: httpx.Request) -> httpx.Response:
        raise AssertionError

    async with _harness(answer) as harness:
        harness.take(1, 5, 3, 2, 3, 8, 4, 6, 7)
        await trio.testing.wait_all_tasks_blocked()
        assert harness.sink.taken == list(range(1, 9))
        assert harness.sink.backfilled == []
        assert harness.gap_filler.statistics().repeated == 1


async def test_what_comes_late_by_itself_and_what_is_asked_for_are_put_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each from where it came first; what neither brings is declared around them."""
    async with _harness(lambda request: _trades(request, missing=(3, 5))) as harness:
        harness.take(1, 8, 3, 6)
        await harness.settle()
        assert harness.sink.taken == [1, 2, 3, 4, (5, 5), 6, 7, 8]
        assert harness.sink.backfilled == [2, 4, 6, 7]


async def test_what_came_late_is_sent_although_nothing_can_be_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Only the rest is declared."""
    async with _harness(lambda _: httpx.Response(404)) as harness:
        harness.take(1, 9, 4, 5)
        await harness.settle()
        assert harness.sink.taken == [1, (2, 3), 4, 5, (6, 8), 9]


async def test_a_closing_update_may_be_late(autojump_clock: trio.testing.MockClock) -> None:
    """The other connection brings it; its earlier updates are old."""
    async with _harness(lambda _: httpx.Response(404)) as harness:
        for candle in (kline(1), kline(2), kline(1, trades=4), kline(1, closed=True, trades=5), kline(2, trades=4)):
            harness.gap_filler.on_events(KLINE, [candle], NOW_MS)
        await harness.settle()
        assert harness.sink.taken == [minute * MINUTE_MS for minute in (1, 1, 2, 2)]
        assert harness.gap_filler.statistics().declared == 0


async def test_a_stream_that_is_heard_again_is_asked_for_although_it_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A quiet pair traded during the outage: nobody waits an hour for its next trade to find out."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v3/klines":
            assert request.url.params["startTime"] == str(MINUTE_MS)
            assert "endTime" not in request.url.params
            row = ["1.0", "2.50", "0.5", "1.10", "3.0", 0, "4.0", 7, "1", "1", "0"]
            return httpx.Response(200, content=json.dumps([[minute * MINUTE_MS, *row] for minute in (1, 2, 3)]))
        first = int(request.url.params["fromId"])
        return _trades(request, missing=tuple(range(max(first, 5), first + 1000)))

    async with _harness(answer) as harness:
        harness.gap_filler.on_suspect(TRADE)  # nothing is known of it yet
        harness.take(2)
        harness.gap_filler.on_events(KLINE, [kline(1)], NOW_MS)
        harness.gap_filler.on_events(TICKER, [ticker()], NOW_MS)
        for stream in (TRADE, KLINE, TICKER):
            harness.gap_filler.on_suspect(stream)
        await trio.sleep(PROBE_S + 0.1)
        assert harness.sink.taken == [2, MINUTE_MS, 1, 3, 4, MINUTE_MS, 2 * MINUTE_MS]
        assert harness.sink.backfilled == [3, 4, MINUTE_MS, 2 * MINUTE_MS]
        harness.take(5)
        assert harness.sink.taken[-1] == 5
        assert harness.gap_filler.statistics().filled == 4


async def test_a_stream_that_speaks_by_itself_is_not_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """Neither is one that nobody wants any more; and a probe that fails declares nothing."""

    def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down")

    async with _harness(answer) as harness:
        harness.take(1)
        harness.gap_filler.on_suspect(TRADE)
        harness.take(2)
        await trio.sleep(PROBE_S * 2)
        harness.gap_filler.on_suspect(TRADE)
        harness.gap_filler.on_reset(TRADE)
        await trio.sleep(PROBE_S * 2)
        harness.take(50)
        harness.gap_filler.on_suspect(TRADE)
        await trio.sleep(PROBE_S * 2)
        assert harness.sink.taken == [1, 2, 50]


async def test_a_candle_is_not_believed_before_another_one_follows_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REST's database lags: it still counts trades of a candle that is over, and would pass for its closing."""
    looks = 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += 1
        row = ["1.0", "2.50", "0.5", "1.10", "3.0", 0, "4.0", 7 if looks < 3 else 12, "1", "1", "0"]
        return httpx.Response(200, content=json.dumps([[minute * MINUTE_MS, *row] for minute in (1, 2)[: looks - 1]]))

    async with _harness(answer) as harness:
        for candle in (kline(1, trades=10), kline(2)):
            harness.gap_filler.on_events(KLINE, [candle], NOW_MS)
        await trio.sleep(5)
        assert looks == 3
        assert harness.sink.taken == [MINUTE_MS, MINUTE_MS, 2 * MINUTE_MS]
        assert harness.sink.facts[1]["trades"] == 12


async def test_a_gap_that_had_to_wait_for_others_is_asked_for_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REST hung for the first gap until its deadline; the second one, behind it, is not declared unasked."""
    looks = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += 1
        if looks < 3:
            await trio.sleep_forever()
        return _trades(request)

    async with _harness(answer) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.take(0, 3, 6)
        await trio.sleep(DEADLINE_S * 2)
        assert harness.sink.taken == [0, (1, 2), 3, 4, 5, 6]


async def test_what_the_exchange_has_not_is_declared_where_it_is_missing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Between what it has."""
    async with _harness(lambda request: _trades(request, missing=(3, 4))) as harness:
        harness.take(0, 7)
        await harness.settle()
        assert harness.sink.taken == [0, 1, 2, (3, 4), 5, 6, 7]
        assert harness.sink.reason == "the exchange has it not"


async def test_a_refusal_that_is_over_in_time_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """429 with two seconds: obeyed, and the gap is filled."""
    asked_at: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked_at.append(trio.current_time())
        return httpx.Response(429, headers={"Retry-After": "2"}) if len(asked_at) == 1 else _trades(request)

    async with _harness(answer) as harness:
        harness.take(0, 4)
        await trio.sleep(5)
        assert harness.sink.taken == [0, 1, 2, 3, 4]
        assert asked_at[1] - asked_at[0] >= 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: httpx.Response(404, content=b"{}"), "the exchange answered HTTP 404"),
        (lambda _: httpx.Response(429, headers={"Retry-After": "30"}), "the exchange answered HTTP 429"),
        (lambda _: httpx.Response(400, content=b'{"code":-1121,"msg":"Invalid symbol."}'), "Invalid symbol."),
    ],
)
async def test_a_refusal_is_declared_at_once(
    answer: Callable[[httpx.Request], httpx.Response], reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    """With the exchange's words; what follows goes out."""
    async with _harness(answer) as harness:
        harness.take(0, 4)
        await harness.settle()
        assert harness.sink.taken == [0, (1, 3), 4]
        assert reason in str(harness.sink.reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "cannot read"),
        (b'[{"id":"x"}]', "cannot read"),
        (b'[{"id":1,"price":"NaN","qty":"1","time":1,"isBuyerMaker":true}]', "is not a price"),
    ],
)
async def test_an_answer_that_cannot_be_read_is_asked_for_again(
    content: bytes, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Once is not for ever: whoever stands in between answers, too. At the deadline its fault is the reason."""
    is_well = False

    def answer(request: httpx.Request) -> httpx.Response:
        return _trades(request) if is_well else httpx.Response(200, content=content)

    async with _harness(answer) as harness:
        harness.take(0, 4)
        await trio.sleep(DEADLINE_S - 1)
        assert harness.sink.taken == [0]
        await trio.sleep(2)
        assert harness.sink.taken == [0, (1, 3), 4]
        assert reason in str(harness.sink.reason)
        harness.take(8)
        await harness.settle()
        is_well = True
        await trio.sleep(3)
        assert harness.sink.taken == [0, (1, 3), *range(4, 9)]


async def test_rows_in_another_order_are_rows(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing of one page is declared missing because of its place."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(_trades(request).json()[::-1]))

    async with _harness(answer) as harness:
        harness.take(0, 4)
        await harness.settle()
        assert harness.sink.taken == [0, 1, 2, 3, 4]


async def test_a_host_that_is_down_is_asked_again_until_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """Up again in time: filled; not: declared, and nothing waits for longer."""
    is_up = trio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if not is_up.is_set():
            raise httpx.ConnectError("down")
        return _trades(request)

    async with _harness(answer) as harness:
        harness.take(0, 4)
        await trio.sleep(DEADLINE_S / 2)
        assert harness.sink.taken == [0]
        is_up.set()
        await trio.sleep(1)
        assert harness.sink.taken == [0, 1, 2, 3, 4]
        is_up = trio.Event()
        began = trio.current_time()
        harness.take(7)
        while harness.sink.taken[-1] != 7:  # noqa: ASYNC110 - what a sink took has no event
            await trio.sleep(0.1)
        assert harness.sink.taken[5:] == [(5, 6), 7]
        assert f"within {DEADLINE_S:g} s" in str(harness.sink.reason)
        assert DEADLINE_S <= trio.current_time() - began < DEADLINE_S + 1


async def test_an_answer_that_lags_behind_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """The newest trades are not there yet at the first look."""
    looks = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += 1
        return _trades(request, missing=(3,) if looks < 4 else ())

    async with _harness(answer) as harness:
        harness.take(0, 4)
        await trio.sleep(5)
        assert harness.sink.taken == [0, 1, 2, 3, 4]


class _Writer:
    """A socket that takes everything."""

    def __init__(self) -> None:
        self.text = b""

    def write_nowait(self, chunk: bytes) -> int:
        self.text += chunk
        return 0

    async def flush(self) -> bool:
        return False


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "own task"])
async def test_what_waited_is_more_than_a_buffer_takes_and_no_reader_loses_any(
    autojump_clock: trio.testing.MockClock, *, direct: bool
) -> None:
    """It is passed on in pieces, each of which subscribers have taken before the next."""
    count = 3 * BUFFER_EVENTS
    hub, outlet, heard = Hub(), _Writer(), list[int]()

    async def listen() -> None:
        with hub.subscribe_writer([TRADE], outlet, Show()) if direct else hub.subscribe([TRADE]) as subscription:
            while True:
                batch = await subscription.receive()
                assert not batch.dropped
                heard.extend(item.sequence for item in batch.items if item.sequence is not None)  # type: ignore[union-attr]

    async def late(request: httpx.Request) -> httpx.Response:
        await trio.sleep(2)
        return _trades(request)

    async with (
        open_rest(
            "http://x.test", weight_header="w", weight_per_minute=6000, transport=httpx.MockTransport(late)
        ) as rest,
        trio.open_nursery() as nursery,
    ):
        health = StreamHealth(Holding(HoldingConnection()), AllWanted(), hub)
        gap_filler = GapFiller(hub, RestHistory(rest), health, lambda: NOW_MS)
        nursery.start_soon(gap_filler.run)
        nursery.start_soon(hub.run)
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        for number in (1, *range(3, count)):
            gap_filler.on_events(TRADE, [trade(number)], NOW_MS)
            hub.flush()
        await trio.sleep(10)
        gap_filler.on_events(TRADE, [trade(count)], NOW_MS)
        hub.flush()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    heard += [int(number) for number in re.findall(rb'"trade_id":(\d+)', outlet.text)]
    assert b"lagged" not in outlet.text
    assert heard == list(range(1, count + 1))


async def test_listeners_that_cannot_follow_do_not_make_more_wait_than_may(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is beyond the bound goes out without a pause; the rest at their pace."""
    async with _harness(lambda _: httpx.Response(404)) as harness:
        harness.sink.settles_s = 1.0
        harness.take(0, 4)
        harness.take(*range(5, WAITING + 505))
        await harness.settle()
        assert 500 < len(harness.sink.taken) < 1000
        await trio.sleep(3600)
        assert harness.sink.taken == [0, (1, 3), *range(4, WAITING + 505)]


async def test_too_much_behind_a_gap_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    """The buffer is bounded, and nothing in it is lost."""

    async def never(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with _harness(never) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.take(0, 4)
        await trio.sleep(1)
        harness.take(*range(5, WAITING + 5))
        await trio.sleep(1)
        assert harness.sink.taken == [0, (1, 3), *range(4, WAITING + 5)]
        assert harness.sink.reason == "too much came in the meantime"


@pytest.mark.parametrize("end", ["renewed", "refused", "forgotten"])
async def test_a_stream_that_ends_lets_everything_go(end: str, autojump_clock: trio.testing.MockClock) -> None:
    """What was filled stays, the rest is declared, what waits goes out, and then the end is told."""

    async def slow(request: httpx.Request) -> httpx.Response:
        if int(request.url.params["fromId"]) > 1:
            await trio.sleep_forever()
        return _trades(request, missing=(3, 4, 5))

    async with _harness(slow) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.take(0, 6, 9)
        await trio.sleep(1)
        match end:
            case "renewed":
                for number in range(1, RESTART + 1):
                    harness.gap_filler.on_events(
                        TRADE, [trade(number - 1000, event_ms=EVENT_MS + LATE_MS + number)], NOW_MS
                    )
            case "refused":
                harness.gap_filler.on_refused(TRADE, "gone")
            case _:
                harness.gap_filler.on_reset(TRADE)
        taken = [0, 1, 2] if end == "forgotten" else [0, 1, 2, (3, 5), 6, (7, 8), 9, end]
        assert harness.sink.taken[: len(taken)] == taken
        await trio.sleep(60)
        assert harness.gap_filler.statistics().recovering == 0


@pytest.mark.parametrize("end", ["renewed", "refused"])
async def test_the_end_of_a_stream_behind_which_much_waits_is_told_in_its_turn(
    end: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Ten thousand events in one go held up everybody, and were more than any reader's buffer takes."""
    waiting = 5000

    async def never(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with _harness(never) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.take(0, 6, 9, 7, *range(10, waiting))
        await trio.sleep(1)
        before = len(harness.sink.taken)
        restarted = [trade(number - 10**6, event_ms=EVENT_MS + LATE_MS + number) for number in range(1, RESTART + 1)]
        if end == "renewed":
            for event in restarted:
                harness.gap_filler.on_events(TRADE, [event], NOW_MS)
        else:
            harness.gap_filler.on_refused(TRADE, "gone")
            harness.gap_filler.on_refused(TRADE, "gone")  # which is told once
        assert len(harness.sink.taken) == before
        sizes = []
        while end not in harness.sink.taken:
            before = len(harness.sink.taken)
            await trio.sleep(harness.sink.settles_s / 2)
            sizes.append(len(harness.sink.taken) - before)
        assert max(sizes) <= RELEASED + 8
        await trio.sleep(60)
        taken = [0, (1, 5), 6, 7, (8, 8), *range(9, waiting), end]
        assert harness.sink.taken[: len(taken)] == taken
        assert harness.sink.taken[len(taken) :] == ([RESTART - 10**6] if end == "renewed" else [])
        assert harness.gap_filler.statistics().recovering == 0
        assert harness.gap_filler.statistics().declared == 2


async def test_what_waits_for_a_stream_that_nobody_wants_any_more_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also while its end is being told; when it is wanted again, it starts from nothing."""
    async with _harness(lambda _: httpx.Response(404)) as harness:
        harness.take(0, *range(2, 5000))
        await trio.sleep(0.1)
        harness.gap_filler.on_refused(TRADE, "gone")
        await trio.sleep(0.01)
        harness.gap_filler.on_reset(TRADE)
        count = len(harness.sink.taken)
        assert count < 4000
        harness.take(7, 8)
        await trio.sleep(60)
        assert harness.sink.taken[count:] == [7, 8]
        assert harness.gap_filler.statistics().recovering == 0


async def test_candles_are_asked_for_by_their_open_times(autojump_clock: trio.testing.MockClock) -> None:
    """Closed ones, with the exchange's digits."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/klines"
        asked = {key: request.url.params[key] for key in ("symbol", "interval", "startTime", "endTime")}
        span = {"startTime": str(2 * MINUTE_MS), "endTime": str(5 * MINUTE_MS)}
        assert asked == {"symbol": "BTCUSDT", "interval": "1m", **span}
        rows = [
            [minute * MINUTE_MS, "1.0", "2.50", "0.5", "1.10", "3.0", 0, "4.0", 7, "1", "1", "0"]
            for minute in (2, 3, 4, 5)
        ]
        return httpx.Response(200, content=json.dumps(rows))

    async with _harness(answer) as harness:
        harness.gap_filler.on_events(KLINE, [kline(1, closed=True)], NOW_MS)
        harness.gap_filler.on_events(KLINE, [kline(5)], NOW_MS)
        await harness.settle()
        assert harness.sink.taken == [minute * MINUTE_MS for minute in (1, 2, 3, 4, 5)]


async def test_aggregate_trades_are_asked_for_by_their_ids(autojump_clock: trio.testing.MockClock) -> None:
    """The aggregate's, not the trades'."""
    seen: list[Event] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/aggTrades"
        first = int(request.url.params["fromId"])
        row = {"a": first, "p": "1.50", "q": "2.0", "f": 100, "l": 101, "T": 5, "m": False, "M": True}
        return httpx.Response(200, content=json.dumps([row]))

    async with _harness(answer) as harness:
        publish = harness.sink.publish

        def keep(stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
            seen.append(event)
            publish(stream, event, received_ms, backfilled=backfilled)

        harness.sink.publish = keep  # type: ignore[method-assign]
        for number in (6, 8):
            harness.gap_filler.on_events(AGG_TRADE, [trade(number)], NOW_MS)
        await harness.settle()
        assert seen[1] == AggTrade(
            symbol="BTCUSDT",
            trade_id=7,
            price=Decimal("1.50"),
            quantity=Decimal("2.0"),
            first_trade_id=100,
            last_trade_id=101,
            timestamp=5,
            is_buyer_maker=False,
        )
        assert not isinstance(seen[1], Kline)


async def test_hundreds_of_gaps_wait_for_no_more_than_one_does(autojump_clock: trio.testing.MockClock) -> None:
    """After a cut, with REST down: every stream goes on after the deadline, and few questions are asked at once."""
    streams = [Stream(Kind.TRADE, f"S{number}USDT") for number in range(300)]
    asking = most = 0

    async def never(_request: httpx.Request) -> httpx.Response:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        try:
            await trio.sleep_forever()
        finally:
            asking -= 1
        raise AssertionError

    async with _harness(never) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.miss_one(streams)
        await trio.sleep(DEADLINE_S + 1)
        assert harness.gap_filler.statistics().recovering == 0
        assert harness.gap_filler.statistics().declared == len(streams)
        assert most == ASKED


async def test_too_much_in_all_streams_waits_for_nobody(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for those that nobody has begun to ask for."""
    monkeypatch.setattr("komas.venues.core.gap_fill.WAITING_IN_ALL", 50)
    streams = [Stream(Kind.TRADE, f"S{number}USDT") for number in range(60)]

    async def never(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with _harness(never) as harness:  # type: ignore[arg-type]  # MockTransport takes both kinds
        harness.miss_one(streams)
        await trio.testing.wait_all_tasks_blocked()
        assert harness.gap_filler.statistics().recovering <= 50
        assert harness.sink.reason == "too much came in the meantime"


async def test_a_probe_waits_for_no_later_one(autojump_clock: trio.testing.MockClock) -> None:
    """One stream's is put off for long; another one's is due before."""
    asked: list[tuple[str, float]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.params["symbol"], trio.current_time()))
        return httpx.Response(403)

    other = Stream(Kind.TRADE, "ETHUSDT")
    async with _harness(answer) as harness:
        harness.take(1)
        harness.gap_filler.on_events(other, [msgspec.structs.replace(trade(1), symbol="ETHUSDT")], NOW_MS)
        harness.gap_filler.on_suspect(TRADE)
        await trio.sleep(PROBE_S + 1)
        harness.gap_filler.on_suspect(other)
        await trio.sleep(PROBE_S + 1)
        assert asked == [("BTCUSDT", PROBE_S), ("ETHUSDT", 2 * PROBE_S + 1)]


async def test_ids_that_jump_with_every_frame_are_two_lines_in_the_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """They were two for each frame, a megabyte a second."""
    caplog.set_level("INFO", "komas")
    async with _harness(_trades) as harness:
        for number in range(1, 2000, 10):
            harness.take(number)
            await trio.sleep(0.1)
        await trio.sleep(30)
        lines = [vars(record)["event"] for record in caplog.records]
        assert lines.count("gap") == 1
        assert lines.count("gap filled") == 1
        assert harness.gap_filler.statistics().gaps == 199
        await trio.sleep(60)
        harness.take(10_000)
        assert vars(caplog.records[-1])["left_out"] == 198


class _Counted(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        _Counted.compared += 1
        return int(self) < other

    def __le__(self, other: int) -> bool:
        _Counted.compared += 1
        return int(self) <= other

    def __ge__(self, other: int) -> bool:
        _Counted.compared += 1
        return int(self) >= other


async def test_whether_a_number_is_missing_does_not_depend_on_how_much_waits() -> None:
    """Ten thousand wait, and each repeat was compared with all of them."""
    queue = GapQueue()
    for number in range(10, 100_000, 10):
        gap = Gap(stream="x", first=number - 9, last=number - 1)
        queue.wait(WaitingEvent(trade(number), 0, 0.0, gap))
    for number, is_missing in ((0, False), (1, True), (9, True), (10, False), (50_005, True), (50_010, False)):
        assert queue.is_missing(_Counted(number)) is is_missing
    assert _Counted.compared < 6 * 20
