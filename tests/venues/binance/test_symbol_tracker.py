"""What follows the exchange's listings: all symbols of a kind, and news of those that are gone or halted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
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
from komas.venues.core.complaints import EACH
from komas.venues.core.connection import Connection
from komas.venues.core.gap_fill import GapFiller
from komas.venues.core.health import BREATH, StreamHealth
from komas.venues.core.rest import open_rest
from komas.venues.core.shards import Shards

OLD, NEW = Stream(Kind.TICKER, "OLDUSDT"), Stream(Kind.TICKER, "NEWUSDT")


class _Hub(Hub):
    """Counts whose readers were told."""

    def __init__(self) -> None:
        super().__init__(linger_s=0)
        self.told = 0
        self.first = trio.Event()

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        self.told += 1
        self.first.set()
        super().publish_health(stream, health)


class _Harness:
    """A hub, and what follows the listings of an exchange whose symbols may change."""

    def __init__(self) -> None:
        self.symbols = {"BTCUSDT": "TRADING", "OLDUSDT": "TRADING", "HALTUSDT": "BREAK"}
        self.hub = _Hub()

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


async def test_a_thousand_symbols_that_are_halted_at_once_hold_nobody_up(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers of each are told, some are logged, and others run in between."""
    turns = 0

    async def count(hub: _Hub) -> None:
        nonlocal turns
        await hub.first.wait()
        while hub.told < 1000:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with _harness() as (harness, symbol_tracker), trio.open_nursery() as nursery:
        harness.symbols = {f"S{number}USDT": "TRADING" for number in range(1000)}
        await trio.sleep(FRESH_S + RETRY_S + 1)
        assert len(symbol_tracker.follow(Kind.TICKER)) == 1000
        caplog.clear()
        nursery.start_soon(count, harness.hub)
        harness.symbols = dict.fromkeys(harness.symbols, "HALT")
        with trio.fail_after(FRESH_S + 1):
            await harness.hub.first.wait()
        await trio.sleep(1)
        assert harness.hub.told == 1000
    assert turns >= 1000 / BREATH - 2
    assert len(caplog.records) <= 2 * EACH
