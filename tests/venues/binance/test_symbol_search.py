"""Search over symbols: what is meant most probably comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import pytest
import trio
import trio.testing

from komas.venues.binance import limits
from komas.venues.binance.listings import Listings
from komas.venues.binance.symbol_search import FRESH_S, RETRY_S, SymbolSearch
from komas.venues.core.rest import open_rest

_VOLUMES = {"BTCUSDT": "900.5", "BTCEUR": "50", "WBTCBTC": "70", "ETHBTC": "800", "OLDBTC": "1"}


class _Exchange:
    def __init__(self) -> None:
        self.volumes_asked = 0
        self.status = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == limits.EXCHANGE_INFO_PATH:
            return httpx.Response(200, json={"symbols": [_listed(symbol) for symbol in _VOLUMES]})
        self.volumes_asked += 1
        rows = [{"symbol": symbol, "quoteVolume": volume} for symbol, volume in _VOLUMES.items()]
        return httpx.Response(self.status, json=rows if self.status == 200 else {})


def _listed(symbol: str) -> dict[str, object]:
    quote = next(quote for quote in ("USDT", "EUR", "BTC") if symbol.endswith(quote))
    return {
        "symbol": symbol,
        "status": "BREAK" if symbol == "OLDBTC" else "TRADING",
        "baseAsset": symbol.removesuffix(quote),
        "quoteAsset": quote,
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "NaN" if symbol == "ETHBTC" else "0.01000000"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00000000"},
        ],
    }


@asynccontextmanager
async def _search() -> AsyncIterator[tuple[SymbolSearch, _Exchange]]:
    exchange = _Exchange()
    transport = httpx.MockTransport(exchange.answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        listings = Listings(rest)
        nursery.start_soon(listings.run)
        yield SymbolSearch(rest, listings, limits.VOLUMES_PATH), exchange
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("btc", ["BTCUSDT", "BTCEUR", "ETHBTC", "WBTCBTC", "OLDBTC"]),
        ("BTCEUR", ["BTCEUR"]),
        ("", ["BTCUSDT", "ETHBTC", "WBTCBTC", "BTCEUR", "OLDBTC"]),
        ("nothing", []),
    ],
)
async def test_the_best_match_comes_first(
    query: str, expected: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    """The base itself before names that have it inside; what is traded more before what is traded less."""
    async with _search() as (search, _):
        assert [info.symbol for info in await search.find(query, 10)] == expected
        assert [info.symbol for info in await search.find(query, 2)] == expected[:2]


async def test_a_symbol_has_its_parts_and_steps(autojump_clock: trio.testing.MockClock) -> None:
    """As the exchange writes them; what is no step is none."""
    async with _search() as (search, _):
        (btc,) = await search.find("BTCUSDT", 10)
        assert (btc.base, btc.quote, btc.status, btc.market) == ("BTC", "USDT", "TRADING", "spot")
        assert (str(btc.tick_size), btc.step_size, btc.volume_24h) == ("0.01000000", None, Decimal("900.5"))
        (eth,) = await search.find("ETHBTC", 10)
        assert eth.tick_size is None


async def test_volumes_are_asked_for_seldom_and_may_fail(autojump_clock: trio.testing.MockClock) -> None:
    """Names are found all the same; the old ones serve until there are new ones."""
    async with _search() as (search, exchange):
        exchange.status = 500
        assert (await search.find("BTCUSDT", 1))[0].volume_24h is None
        await search.find("BTCUSDT", 1)
        assert exchange.volumes_asked == 1
        await trio.sleep(RETRY_S)
        exchange.status = 200
        assert (await search.find("BTCUSDT", 1))[0].volume_24h is not None
        exchange.status = 500
        await trio.sleep(FRESH_S)
        assert (await search.find("BTCUSDT", 1))[0].volume_24h is not None
        assert exchange.volumes_asked == 3
