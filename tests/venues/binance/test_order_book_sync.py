"""OrderBooks over a feed: snapshots when they are needed, one after another, and nothing untrue is shown."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import trio
import trio.testing

from komas.hub.hub import Hub
from komas.hub.overflow import Batch
from komas.model.codec import Envelope, NoticeEnvelope, encode
from komas.model.kinds import Kind
from komas.model.market import Depth, DepthUpdate, FeedState, FeedStatus, Health, HealthNotice
from komas.model.streams import Stream
from komas.venues.binance.order_book_sync import LATE_S, SUSPECT_S, OrderBooks
from komas.venues.core.health import StreamHealth
from komas.venues.core.rest import open_rest
from tests.venues.holders import AllWanted, Holding, HoldingConnection

DEPTH = Stream(Kind.DEPTH, "BTCUSDT")


class _Exchange:
    """Answers snapshots: one level a side, at a given update id."""

    def __init__(self) -> None:
        self.update_id = 10
        self.asked_at: list[float] = []
        self.fails = False
        self.takes_s = 0.0
        self.levels = 1
        self.weight = 50

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/depth"
        assert dict(request.url.params) == {"symbol": "BTCUSDT", "limit": "1000"}
        self.asked_at.append(trio.current_time())
        if self.fails:
            return httpx.Response(503)
        bids = [["100.0", "1.50"], *([str(99 - place / 1000), "1.0"] for place in range(self.levels - 1))]
        body = {"lastUpdateId": self.update_id, "bids": bids, "asks": [["101.0", "2.0"]]}
        await trio.sleep(self.takes_s)
        return httpx.Response(200, content=json.dumps(body), headers={"w": str(self.weight)})


class _Harness:
    def __init__(
        self,
        exchange: _Exchange,
        hub: Hub,
        order_books: OrderBooks,
        connection: HoldingConnection,
        health: StreamHealth,
    ) -> None:
        self.connection = connection
        self.health = health
        self.exchange = exchange
        self.hub = hub
        self.order_books = order_books

    def update(self, first: int, last: int, bid: str = "99.0", size: str = "1.0") -> None:
        """One change of the book, as the feed hands it over."""
        bids = ((Decimal(bid), Decimal(size)),)
        event = DepthUpdate(symbol="BTCUSDT", first=first, last=last, bids=bids, asks=(), timestamp=5)
        self.connection.hear(DEPTH)
        self.order_books.on_events(DEPTH, [event], 1)

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def _harness(promised_s: float = math.inf) -> AsyncIterator[_Harness]:
    exchange, hub = _Exchange(), Hub(linger_s=0)
    transport = httpx.MockTransport(exchange.answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        connection = HoldingConnection(promised_s)
        holding = Holding(connection)
        holding.placed.append(DEPTH)
        health = StreamHealth(holding, AllWanted(), hub)
        order_books = OrderBooks(hub, rest, health, hub.interest, lambda: 1)
        nursery.start_soon(order_books.run)
        nursery.start_soon(health.run)
        yield _Harness(exchange, hub, order_books, connection, health)
        nursery.cancel_scope.cancel()


async def test_the_first_change_asks_for_a_snapshot_and_then_the_book_is_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With the exchange's digits, and again at each change."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]) as subscription:
            harness.update(9, 11)
            assert harness.order_books.depth(DEPTH, 10) is None
            assert harness.health.of(DEPTH).health is Health.PENDING
            await harness.order_books.known(DEPTH, 1)
            harness.update(12, 12, "100.0", "0")
            items = (await subscription.receive()).items
            facts = [item for item in items if isinstance(item, Envelope)]
            assert encode(facts[0].event) == (
                b'{"type":"depth","symbol":"BTCUSDT","update_id":12,"bids":[[99.0,1.0]],'
                b'"asks":[[101.0,2.0]],"timestamp":5}'
            )
            assert facts[0].received_ms == 1
        book = harness.order_books.depth(DEPTH, 1)
        assert isinstance(book, Depth)
        assert len(harness.exchange.asked_at) == 1
        assert harness.order_books.statistics().snapshots == 1


async def test_a_gapped_book_is_not_shown_and_mended(autojump_clock: trio.testing.MockClock) -> None:
    """After a moment in which the missing change may come by itself; who listens is told both times."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]) as subscription:
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            await subscription.receive()
            harness.update(20, 21)
            assert harness.order_books.depth(DEPTH, 1) is None
            harness.exchange.update_id = 20
            await trio.sleep(LATE_S / 2)
            assert len(harness.exchange.asked_at) == 1
            await trio.sleep(LATE_S)
            book = harness.order_books.depth(DEPTH, 1)
            assert book is not None
            assert book.update_id == 21
            told = [item.notice for item in (await subscription.receive()).items if isinstance(item, NoticeEnvelope)]
            assert [notice.health for notice in told if isinstance(notice, HealthNotice)] == [Health.LIVE]


async def test_a_change_that_is_only_late_costs_no_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    """Two connections."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.update(13, 14)
            harness.update(12, 12)
            await trio.sleep(5)
            assert harness.order_books.statistics().untrue == 0
            assert len(harness.exchange.asked_at) == 1


async def test_a_snapshot_that_is_too_old_or_fails_is_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    """With a pause that grows; nothing is shown in the meantime."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.exchange.update_id = 3
            harness.update(9, 11)
            await trio.sleep(0.5)
            harness.exchange.fails = True
            await trio.sleep(4)
            assert harness.exchange.asked_at == [0, 1, 3]
            assert harness.order_books.depth(DEPTH, 1) is None
            harness.exchange.fails = False
            harness.exchange.update_id = 11
            await harness.order_books.known(DEPTH, 1)
            assert harness.exchange.asked_at[3:] == [7]


async def test_a_book_that_nobody_wants_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    """Also one that the exchange refuses, and while its snapshot is under way."""
    async with _harness() as harness:
        harness.update(9, 11)
        harness.order_books.on_reset(DEPTH)
        await harness.settle()
        assert harness.order_books.statistics().order_books == 0
        harness.update(9, 11)
        harness.order_books.on_refused(DEPTH, "gone")
        await trio.sleep(1)
        assert harness.order_books.depth(DEPTH, 1) is None


async def test_a_crossed_book_is_taken_anew(autojump_clock: trio.testing.MockClock) -> None:
    """It is never shown."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.update(12, 12, "105.0")
            assert harness.order_books.depth(DEPTH, 1) is None
            harness.exchange.update_id = 12
            await harness.order_books.known(DEPTH, 1)
            assert len(harness.exchange.asked_at) == 2


async def test_a_book_that_was_cut_is_not_shown_before_it_is_proven(autojump_clock: trio.testing.MockClock) -> None:
    """By a change that joins on, or, where none comes, by a snapshot: a quiet pair's may have moved meanwhile."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.order_books.on_suspect(DEPTH)
            assert harness.order_books.depth(DEPTH, 1) is None
            assert harness.hub.latest.get(DEPTH) is None
            harness.update(12, 12)
            assert harness.order_books.depth(DEPTH, 1) is not None
            harness.order_books.on_suspect(DEPTH)
            harness.exchange.update_id = 40
            await trio.sleep(SUSPECT_S * 1.5)
            book = harness.order_books.depth(DEPTH, 1)
            assert book is not None
            assert book.update_id == 40
            assert harness.hub.latest.get(DEPTH) is not None
            harness.order_books.close_all()
            harness.hub.publish_status(FeedStatus(state=FeedState.DISCONNECTED))
            assert harness.order_books.depth(DEPTH, 1) is None
            assert (
                harness.hub.latest.get(DEPTH) is None
            )  # nor is it shown to whoever comes before the next one is known


async def test_a_snapshot_that_was_asked_for_before_a_doubt_does_not_end_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may be older than what was missed: another one is asked for, or the next change joins on."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.exchange.takes_s = 3
            harness.update(9, 11)
            await trio.sleep(1)
            harness.order_books.on_suspect(DEPTH)
            await trio.sleep(2.5)
            assert harness.order_books.depth(DEPTH, 1) is None
            harness.exchange.update_id = 12
            await harness.order_books.known(DEPTH, 1)
            assert harness.exchange.asked_at == [0, 4]


async def test_a_book_that_needs_a_refresh_whose_snapshots_are_late_costs_nobody_else_anything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is asked for with pauses that grow, and mended by the first snapshot that joins on."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.exchange.levels = 1000
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.exchange.update_id = 5
            harness.update(12, 12, "100.0", "0")
            for place in range(850):
                harness.update(13 + place, 13 + place, str(99 - place / 1000), "0")
            await trio.sleep(0.5)
            asked = len(harness.exchange.asked_at)
            await trio.sleep(60)
            assert len(harness.exchange.asked_at) - asked < 8
            harness.exchange.update_id = 862
            await trio.sleep(31)
            assert harness.order_books.depth(DEPTH, 1) is not None
            asked = len(harness.exchange.asked_at)
            await trio.sleep(60)
            assert len(harness.exchange.asked_at) == asked


async def test_an_update_of_a_far_future_does_not_cost_the_book_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing joins on to it: after some snapshots, further and further apart, the book is begun anew."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.update(10**6, 10**6)
            for number in range(12, 52):
                harness.exchange.update_id = number
                harness.update(number, number)
                await trio.sleep(1)
            assert harness.order_books.depth(DEPTH, 1) is not None
            assert len(harness.exchange.asked_at) < 8


async def test_snapshots_leave_room_for_missing_trades(autojump_clock: trio.testing.MockClock) -> None:
    """While most of the minute's weight is used, a book waits."""
    async with _harness() as harness:
        with harness.hub.subscribe([DEPTH]):
            harness.exchange.weight = 4000
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            harness.update(20, 21)
            harness.exchange.update_id = 21
            await trio.sleep(50)
            assert len(harness.exchange.asked_at) == 1
            await trio.sleep(15)
            assert harness.order_books.depth(DEPTH, 1) is not None


async def test_a_book_whose_stream_is_silent_that_should_not_be_is_not_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever a snapshot says: what comes after that would be missed; what is heard again ends it."""
    async with _harness(promised_s=10) as harness:
        with harness.hub.subscribe([DEPTH]) as subscription:
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            await trio.sleep(11)
            harness.order_books.on_suspect(DEPTH)
            harness.exchange.update_id = 40
            await trio.sleep(60)
            assert len(harness.exchange.asked_at) == 2
            assert harness.order_books.depth(DEPTH, 1) is None
            assert harness.hub.latest.get(DEPTH) is None
            assert _told(await subscription.receive()) == [Health.STALE]
            harness.update(41, 41)
            assert harness.order_books.depth(DEPTH, 1) is not None
            await trio.sleep(1.5)
            assert _told(await subscription.receive()) == [Health.LIVE]


async def test_a_gapped_book_that_is_heard_again_is_not_said_to_be_well(autojump_clock: trio.testing.MockClock) -> None:
    """Its stream was silent, and has missed something: it is well when the book is."""
    async with _harness(promised_s=10) as harness:
        with harness.hub.subscribe([DEPTH]) as subscription:
            harness.update(9, 11)
            await harness.order_books.known(DEPTH, 1)
            await trio.sleep(11.5)
            assert _told(await subscription.receive()) == [Health.STALE]
            harness.update(20, 21)
            assert _told(await subscription.receive()) == [Health.RECOVERING]
            harness.exchange.update_id = 20
            await harness.order_books.known(DEPTH, 1)
            assert _told(await subscription.receive()) == [Health.LIVE]


def _told(batch: Batch) -> list[Health]:
    """The words on the stream's health, as they were heard."""
    notices = [item.notice for item in batch.items if isinstance(item, NoticeEnvelope)]
    return [notice.health for notice in notices if isinstance(notice, HealthNotice)]
