"""Known, unknown, or not answered: which symbols are let through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing

from komas.venues.binance import limits
from komas.venues.binance.listings import FIRST_ANSWER_S, FRESH_S, RECHECK_S, RETRY_S, Listings
from komas.venues.core.rest import open_rest


class Exchange:
    """Answers exchangeInfo with its symbols, or fails."""

    def __init__(self, *symbols: str) -> None:
        self.symbols = list(symbols)
        self.asked_at: list[float] = []
        self.fails = False
        self.hangs = False
        self.status = "TRADING"

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/exchangeInfo"
        self.asked_at.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        if self.fails:
            return httpx.Response(503)
        return httpx.Response(
            200, json={"symbols": [{"symbol": symbol, "status": self.status} for symbol in self.symbols]}
        )


@asynccontextmanager
async def _listings(exchange: Exchange) -> AsyncIterator[Listings]:
    transport = httpx.MockTransport(exchange.answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        listings = Listings(rest)
        nursery.start_soon(listings.run)
        yield listings
        nursery.cancel_scope.cancel()


async def test_unknown_symbols_are_named(autojump_clock: trio.testing.MockClock) -> None:
    """The known ones are not."""
    async with _listings(Exchange("BTCUSDT", "币安人生USDT")) as listings:
        assert await listings.unknown(["BTCUSDT", "NOPEUSDT", "币安人生USDT"]) == ["NOPEUSDT"]
        assert listings.known


async def test_an_exchange_that_does_not_answer_lets_everything_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A failure does at once, silence after three seconds."""
    failing = Exchange()
    failing.fails = True
    async with _listings(failing) as listings:
        assert await listings.unknown(["NOPEUSDT"]) == []
        assert trio.current_time() == 0
    hanging = Exchange()
    hanging.hangs = True
    async with _listings(hanging) as listings:
        started = trio.current_time()
        assert await listings.unknown(["NOPEUSDT"]) == []
        assert trio.current_time() - started == FIRST_ANSWER_S


async def test_a_new_listing_is_found_by_asking_again_once_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    """However often somebody asks for a name that is not there."""
    exchange = Exchange("BTCUSDT")
    async with _listings(exchange) as listings:
        assert await listings.unknown(["NEWUSDT"]) == ["NEWUSDT"]
        exchange.symbols.append("NEWUSDT")
        assert await listings.unknown(["NEWUSDT"]) == ["NEWUSDT"]
        await trio.sleep(RECHECK_S)
        assert await listings.unknown(["NEWUSDT"]) == []
        assert exchange.asked_at == [0, RECHECK_S]


async def test_a_failure_later_keeps_what_was_known(autojump_clock: trio.testing.MockClock) -> None:
    """An exchange that stops answering has not delisted everything."""
    exchange = Exchange("BTCUSDT")
    async with _listings(exchange) as listings:
        await listings.unknown(["BTCUSDT"])
        exchange.fails = True
        await trio.sleep(2000)
        assert await listings.unknown(["BTCUSDT", "NOPEUSDT"]) == ["NOPEUSDT"]


async def test_an_exchange_that_lists_nothing_is_not_believed(autojump_clock: trio.testing.MockClock) -> None:
    """Everything would be refused; it is asked again soon."""
    exchange = Exchange()
    async with _listings(exchange) as listings:
        assert not await listings.answered()
        exchange.symbols = ["BTCUSDT"]
        await trio.sleep(RETRY_S + 1)
        assert listings.known
        exchange.symbols = []
        await trio.sleep(FRESH_S + 1)
        assert listings.trading() == ("BTCUSDT",)


async def test_a_symbol_that_one_answer_leaves_out_is_listed(autojump_clock: trio.testing.MockClock) -> None:
    """An answer may be incomplete; what the next one, soon after, leaves out, too, is gone."""
    exchange = Exchange("BTCUSDT", "ETHUSDT")
    async with _listings(exchange) as listings:
        assert await listings.answered()
        exchange.symbols = ["ETHUSDT"]
        await trio.sleep(FRESH_S + 1)
        assert set(listings.trading()) == {"BTCUSDT", "ETHUSDT"}
        exchange.symbols = ["ETHUSDT", "BTCUSDT"]
        await trio.sleep(2 * FRESH_S)
        assert set(listings.trading()) == {"BTCUSDT", "ETHUSDT"}
        exchange.symbols = ["ETHUSDT"]
        await trio.sleep(FRESH_S + RETRY_S + 1)
        assert listings.trading() == ("ETHUSDT",)


async def test_a_million_symbols_are_not_believed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No market has so many; what was known stays known, and it is said why, once a minute."""
    exchange = Exchange("BTCUSDT")
    async with _listings(exchange) as listings:
        assert await listings.answered()
        exchange.symbols = [f"S{number}" for number in range(limits.SYMBOLS + 1)]
        await trio.sleep(FRESH_S + RETRY_S + 1)
        assert listings.trading() == ("BTCUSDT",)
        assert len(exchange.asked_at) == 3
    assert [vars(record)["reason"] for record in caplog.records] == [
        "/api/v3/exchangeInfo answered more than 20,000 symbols"
    ]


async def test_what_the_exchange_says_of_a_symbol_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    """It is shown to users; a name of a thousand characters is none."""
    exchange = Exchange("BTCUSDT", "X" * 1000)
    exchange.status = "HALTED" * 1000
    async with _listings(exchange) as listings:
        assert await listings.unknown(["BTCUSDT", "X" * 1000]) == ["X" * 1000]
        status = listings.status("BTCUSDT")
        assert status is not None
        assert len(status) < 100
