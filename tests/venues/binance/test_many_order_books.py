"""Thousands of order books, few snapshots and slow ones: nobody else is held up, and every book is true in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import pytest
import trio
import trio.testing

from komas.hub.hub import Hub
from komas.model.kinds import Kind
from komas.model.market import Depth, DepthUpdate
from komas.model.streams import Stream
from komas.venues.binance.limits import DEPTH_ROWS
from komas.venues.binance.order_book_sync import AT_ONCE, ROOM_EVERY_S, SUSPECT_S, OrderBooks
from komas.venues.core.health import StreamHealth
from komas.venues.core.rest import Rest
from tests.venues.holders import AllWanted, Holding, HoldingConnection

NOW_MS = 1_770_000_000_000


class _Exchange:
    """Answers snapshots of any symbol, as they were ``lag_s`` ago: the update id is the second, times ten."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.weight = 50
        self.weight_of_one = 0  # added for each answer of the present minute
        self.takes_s = 0.0
        self.lag_s = 0.0
        self.levels: list[object] = [["100.0", "1.5"]]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        now = trio.current_time()
        self.asked.append((now, request.url.params["symbol"]))
        await trio.sleep(self.takes_s)
        body = {
            "lastUpdateId": max(0, int((now - self.lag_s) * 10)),
            "bids": self.levels,
            "asks": [["101.0", "2.0", []]],
        }
        return httpx.Response(200, content=json.dumps(body), headers={"w": str(self._weight(now))})

    def _weight(self, now: float) -> int:
        return self.weight + self.weight_of_one * sum(at // 60 == now // 60 for at, _ in self.asked)


class _CountingRest(Rest):
    """Counts how often the budget is looked at."""

    looked = 0

    @property
    def has_room(self) -> bool:
        _CountingRest.looked += 1
        return super().has_room


class _Books:
    def __init__(self, exchange: _Exchange, hub: Hub, order_books: OrderBooks, connection: HoldingConnection) -> None:
        self.exchange = exchange
        self.hub = hub
        self.order_books = order_books
        self._connection = connection

    def update(self, stream: Stream, first: int, last: int, *more: tuple[int, int]) -> None:
        """Changes of one book that came together."""
        self._connection.hear(stream)
        events = [
            DepthUpdate(
                symbol=stream.symbol,
                first=begin,
                last=end,
                bids=((Decimal("99.0"), Decimal(end)),),
                asks=(),
                timestamp=5,
            )
            for begin, end in ((first, last), *more)
        ]
        self.order_books.on_events(stream, events, 1)


@asynccontextmanager
async def _books(*streams: Stream) -> AsyncIterator[_Books]:
    exchange, hub = _Exchange(), Hub(linger_s=0)
    rest = _CountingRest("http://x.test", "w", 6000, httpx.MockTransport(exchange.answer))
    connection = HoldingConnection()
    holding = Holding(connection)
    holding.placed += streams
    health = StreamHealth(holding, AllWanted(), hub)
    order_books = OrderBooks(hub, rest, health, hub.interest, lambda: NOW_MS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(order_books.run)
        nursery.start_soon(health.run)
        yield _Books(exchange, hub, order_books, connection)
        nursery.cancel_scope.cancel()
    await rest.aclose()


def _streams(count: int) -> list[Stream]:
    return [Stream(Kind.DEPTH, f"S{number}USDT") for number in range(count)]


async def test_a_spent_budget_is_one_wait_for_two_thousand_books(autojump_clock: trio.testing.MockClock) -> None:
    """Each book looked for room by itself, each second, and looked through all others for that."""
    streams = _streams(2000)
    async with _books(*streams) as books:
        books.exchange.weight = 5000
        for stream in streams:
            books.update(stream, 1, 1)
        await trio.sleep(1)
        asked = len(books.exchange.asked)
        assert asked <= AT_ONCE
        _CountingRest.looked = 0
        await trio.sleep(50)
        assert len(books.exchange.asked) == asked
        assert 10 <= _CountingRest.looked <= 60
        books.exchange.weight = 50
        await trio.sleep(20)
        assert Counter(symbol for _, symbol in books.exchange.asked).keys() == {stream.symbol for stream in streams}


async def test_snapshots_that_drip_do_not_wait_one_behind_another(autojump_clock: trio.testing.MockClock) -> None:
    """Some are under way at once, and no more than these."""
    streams = _streams(2 * AT_ONCE)
    async with _books(*streams) as books:
        books.exchange.takes_s = 9
        for stream in streams:
            books.update(stream, 1, 1)
        await trio.sleep(8)
        assert [at for at, _ in books.exchange.asked] == [0] * AT_ONCE
        await trio.sleep(2)
        assert len({symbol for _, symbol in books.exchange.asked}) == 2 * AT_ONCE


async def test_a_book_in_which_nothing_changes_is_known_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """Halted, on a testnet, or seldom traded: the snapshot is asked for once the stream is acknowledged."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        books.order_books.on_suspect(stream)
        with trio.fail_after(SUSPECT_S + 1):
            book = await books.order_books.known(stream, 1)
        assert isinstance(book, Depth)
        assert (str(book.bids[0][0]), str(book.asks[0][1]), book.timestamp) == ("100.0", "2.0", NOW_MS)
        assert [at for at, _ in books.exchange.asked] == [SUSPECT_S]
        await trio.sleep(60)
        assert len(books.exchange.asked) == 1
        books.order_books.on_reset(stream)
        assert books.order_books.statistics().order_books == 0


async def test_the_first_change_of_a_new_book_asks_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """It does not wait for the time that one without changes is given."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        books.order_books.on_suspect(stream)
        await trio.sleep(SUSPECT_S / 4)
        books.update(stream, 1, 3)
        await books.order_books.known(stream, 1)
        assert [at for at, _ in books.exchange.asked] == [SUSPECT_S / 4]


@pytest.mark.parametrize(("lag_s", "true_at_s"), [(0.5, 1.5), (5, 8), (40, 62)])
async def test_snapshots_that_lag_behind_the_stream_fit_in_the_end(
    lag_s: float, true_at_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """What came before is kept for the next one: with 5 s it took 15.7, with more than 30 s there was never a book."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        await trio.sleep(100)
        books.exchange.lag_s = lag_s
        while books.order_books.depth(stream, 1) is None:
            now = round(trio.current_time() * 10)
            books.update(stream, now, now)
            await trio.sleep(0.1)
        assert trio.current_time() - 100 <= true_at_s


async def test_changes_that_came_together_are_shown_once(autojump_clock: trio.testing.MockClock) -> None:
    """A newer state replaces an older one; a hundred of them took as long as a hundred reads."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        books.update(stream, 0, 1)
        await books.order_books.known(stream, 1)
        with books.hub.subscribe([stream]):
            before = books.hub.statistics().published
            books.update(stream, 2, 2, *((number, number) for number in range(3, 100)))
            assert books.hub.statistics().published == before + 1
            book = books.order_books.depth(stream, 1)
            assert book is not None
            assert book.update_id == 99


async def test_who_waits_for_one_book_is_not_woken_by_others(autojump_clock: trio.testing.MockClock) -> None:
    """And all who wait for the same one get it; one that is cancelled leaves nothing."""
    first, second = _streams(2)
    async with _books(first, second) as books, trio.open_nursery() as nursery:
        found: list[Depth] = []

        async def wait() -> None:
            found.append(await books.order_books.known(second, 1))

        for _ in range(3):
            nursery.start_soon(wait)
        with trio.move_on_after(0.1):
            await books.order_books.known(second, 1)
        books.update(first, 0, 1)
        await books.order_books.known(first, 1)
        assert found == []
        books.update(second, 0, 1)
        await trio.sleep(0.1)
        assert len(found) == 3


async def test_a_snapshot_of_too_many_levels_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """And asked for again."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        books.exchange.levels = [[str(price), "1"] for price in range(1, DEPTH_ROWS + 2)]
        books.update(stream, 1, 1)
        await trio.sleep(0.5)
        assert books.order_books.depth(stream, 1) is None
        books.exchange.levels = [["100.0", "1"]]
        await books.order_books.known(stream, 1)


async def test_a_book_that_is_gapped_and_mended_all_the_time_fills_no_memory(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for when it stays gapped, and only then; a crossed one is logged once a minute."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        books.update(stream, 0, 1)
        await books.order_books.known(stream, 1)
        for number in range(2, 2000, 2):
            books.update(stream, number + 1, number + 1)
            books.update(stream, number, number)
        await trio.sleep(5)
        assert len(books.exchange.asked) == 1
        assert books.order_books.statistics().untrue == 0
        books.exchange.levels = [["105.0", "1"]]
        for _ in range(5):
            books.order_books.on_suspect(stream)
            await trio.sleep(5)
        assert sum(vars(record).get("event") == "order book crossed" for record in caplog.records) == 1


async def test_a_stream_that_is_silent_counts_as_untrue(autojump_clock: trio.testing.MockClock) -> None:
    """As the last look at all streams found it."""
    (stream,) = _streams(1)
    async with _books(stream) as books:
        for number in range(30):
            books.update(stream, number, number + 1)
            await trio.sleep(1)
        assert books.order_books.statistics().untrue == 0
        await trio.sleep(20)
        assert books.order_books.statistics().untrue == 1


async def test_a_reader_of_four_hundred_books_does_not_take_the_snapshots_of_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The snapshots of a minute went to whoever asked first; everybody else's first book came after minutes, or 504."""
    crowd, others = _streams(400), [Stream(Kind.DEPTH, f"O{number}USDT") for number in range(3)]
    async with _books(*crowd, *others) as books:
        books.exchange.weight_of_one = 50  # 48 of them are all that a minute has
        books.hub.interest.join(crowd, "the crowd's")
        for stream in crowd:
            books.update(stream, 1, 1)
        await trio.sleep(30)
        taken = len(books.exchange.asked)
        assert 48 <= taken <= 48 + AT_ONCE  # the budget is spent
        for number, stream in enumerate(others):
            began = trio.current_time()
            books.hub.interest.join([stream], f"reader {number % 2}")
            books.update(stream, 1, 1)
            await books.order_books.known(stream, 1)
            assert trio.current_time() - began <= ROOM_EVERY_S
        await trio.sleep(100)
        assert len(books.exchange.asked) > taken + 48  # and the crowd's are taken, one minute's after another's


async def test_a_book_that_a_crowd_asked_for_first_comes_in_its_second_readers_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Or whoever opens four hundred books could keep the most wanted of them from everybody."""
    crowd = _streams(400)
    async with _books(*crowd) as books:
        books.exchange.weight_of_one = 50
        books.hub.interest.join(crowd, "the crowd's")
        for stream in crowd:
            books.update(stream, 1, 1)
        await trio.sleep(30)
        began = trio.current_time()
        books.hub.interest.join(crowd[-1:], "another")
        await books.order_books.known(crowd[-1], 1)
        assert trio.current_time() - began <= ROOM_EVERY_S


async def test_readers_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """While there is room, too: who wants two books has both after two of another one's thirty."""
    crowd, few = _streams(30), [Stream(Kind.DEPTH, f"F{number}USDT") for number in range(2)]
    async with _books(*crowd, *few) as books:
        books.exchange.takes_s = 1
        books.hub.interest.join(crowd, "many")
        books.hub.interest.join(few, "few")
        for stream in (*crowd, *few):
            books.update(stream, 1, 1)
        await trio.sleep(40)
        symbols = [symbol for _, symbol in books.exchange.asked]
        assert max(symbols.index(stream.symbol) for stream in few) <= 2 * len(few)
        assert len(set(symbols)) == len(crowd) + len(few)
