"""What follows the exchange's listings: all symbols of a kind, and news of those that are gone or halted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio
import trio.testing

from komas.hub.hub import Hub
from komas.model.codec import NoticeEnvelope
from komas.model.kinds import Kind, Venue
from komas.model.market import FeedStatus, Health, HealthNotice
from komas.model.streams import Stream
from komas.venues.binance.listings import FRESH_S, RETRY_S, Listings
from komas.venues.binance.rows import RestHistory
from komas.venues.binance.symbol_tracker import SymbolTracker
from komas.venues.core.connection import Connection
from komas.venues.core.gap_fill import GapFiller
from komas.venues.core.health import StreamHealth
from komas.venues.core.rest import open_rest
from komas.venues.core.shards import Shards

OLD, NEW = Stream(Kind.TICKER, "OLDUSDT"), Stream(Kind.TICKER, "NEWUSDT")


class _Harness:
    """A hub, and what follows the listings of an exchange whose symbols may change."""

    def __init__(self) -> None:
        self.symbols = {"BTCUSDT": "TRADING", "OLDUSDT": "TRADING", "HALTUSDT": "BREAK"}
        self.hub = Hub(linger_s=0)

    async def answer(self, _request: httpx.Request) -> httpx.Response:
        rows = [{"symbol": symbol, "status": status} for symbol, status in self.symbols.items()]
        return httpx.Response(200, json={"symbols": rows})

    def names(self) -> set[str]:
        return {stream.symbol for stream in self.hub.interest.streams()}


@asynccontextmanager
async def _harness() -> AsyncIterator[tuple[_Harness, SymbolTracker]]:
    harness = _Harness()
    transport = httpx.MockTransport(harness.answer)
    async with (
        open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport) as rest,
        trio.open_nursery() as nursery,
    ):
        listings = Listings(rest)
        interest = harness.hub.interest
        health = StreamHealth(Shards[Connection](1024), interest, harness.hub)
        gap_filler = GapFiller(harness.hub, RestHistory(rest), health, lambda: 1)
        symbol_tracker = SymbolTracker(Venue.BINANCE, listings, interest, health, refuse=gap_filler.on_refused)
        nursery.start_soon(listings.run)
        nursery.start_soon(symbol_tracker.run)
        assert await listings.answered()
        yield harness, symbol_tracker
        nursery.cancel_scope.cancel()


async def test_every_symbol_follows_listings_and_delistings(autojump_clock: trio.testing.MockClock) -> None:
    """A new one is subscribed, one that is gone is dropped, one that does not trade is left out."""
    async with _harness() as (harness, symbol_tracker):
        assert [stream.symbol for stream in symbol_tracker.follow(Kind.TICKER)] == ["BTCUSDT", "OLDUSDT"]
        del harness.symbols["OLDUSDT"]
        harness.symbols |= {"NEWUSDT": "TRADING", "HALTUSDT": "TRADING"}
        await trio.sleep(FRESH_S + RETRY_S + 1)
        assert harness.names() == {"BTCUSDT", "NEWUSDT", "HALTUSDT"}
        harness.hub.interest.pin([Stream(Kind.MINI_TICKER, "BTCUSDT")])
        assert len(symbol_tracker.unfollow(Kind.TICKER)) == 3
        assert harness.hub.interest.streams() == (Stream(Kind.MINI_TICKER, "BTCUSDT"),)
        harness.symbols["MOREUSDT"] = "TRADING"
        await trio.sleep(FRESH_S + 1)
        assert len(harness.hub.interest) == 1


async def test_a_symbol_that_is_gone_is_said_to_who_listens(autojump_clock: trio.testing.MockClock) -> None:
    """And so is one that halts, and trades again."""
    async with _harness() as (harness, _symbol_tracker):
        halted = Stream(Kind.TRADE, "BTCUSDT")
        with harness.hub.subscribe([OLD, halted, Stream(Kind.TICKER, "BTCUSDT")]) as subscription:
            del harness.symbols["OLDUSDT"]
            harness.symbols["BTCUSDT"] = "HALT"
            await trio.sleep(FRESH_S + RETRY_S + 1)
            notices = [item.notice for item in (await subscription.receive()).items if isinstance(item, NoticeEnvelope)]
            *halts, refusal = notices
            assert isinstance(refusal, FeedStatus)
            assert (refusal.stream, refusal.reason) == (OLD.name, "OLDUSDT is not listed by the exchange")
            reason = "BTCUSDT is in status HALT"
            assert halts == [
                HealthNotice(stream=name, health=Health.QUIET, reason=reason)
                for name in ("btcusdt@trade", "btcusdt@ticker")
            ]
            assert OLD not in harness.hub.interest
            harness.symbols["BTCUSDT"] = "TRADING"
            await trio.sleep(FRESH_S + 1)
            again = (await subscription.receive()).items[0]
            assert isinstance(again, NoticeEnvelope)
            assert isinstance(again.notice, HealthNotice)
            assert again.notice.reason == "BTCUSDT is in status TRADING"
