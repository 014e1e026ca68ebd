"""What REST tells of a market, whoever holds its streams: its symbols, and what happened before now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from komas.venues.binance import limits
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.listings import Listings
from komas.venues.binance.past import PastEvents
from komas.venues.binance.symbol_search import SymbolSearch
from komas.venues.core.rest import Rest, open_rest


class MarketReference:
    """``run()`` it, or the symbols are never known."""

    def __init__(self, spec: MarketSpec, rest: Rest, clock_ms: Callable[[], int]) -> None:
        self.rest = rest
        self.listings = Listings(rest, spec.exchange_info_path, spec.code)
        self.symbol_search = SymbolSearch(rest, self.listings, spec.volumes_path)
        self.past = PastEvents(rest, clock_ms)

    async def run(self) -> None:
        """Keep the listings fresh until cancelled."""
        await self.listings.run()


@asynccontextmanager
async def open_reference(
    spec: MarketSpec, rest_url: str, clock_ms: Callable[[], int]
) -> AsyncIterator[MarketReference]:
    """One over its own REST client, which is closed when the block is left."""
    async with open_rest(
        rest_url, weight_header=limits.WEIGHT_HEADER, weight_per_minute=spec.weight_per_minute
    ) as rest:
        yield MarketReference(spec, rest, clock_ms)
