"""The feed against a scripted exchange, on the deterministic clock."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import msgspec
import pytest
import trio
import trio.testing

from komas.errors import Cause, VenueError
from komas.hub.hub import Hub, MarketSubscription
from komas.model.codec import Envelope, NoticeEnvelope
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Gap, Health, HealthNotice, Ticker, Trade
from komas.model.streams import Stream
from komas.simulator import frames
from komas.venues.binance import limits
from komas.venues.binance.frame_router import AT_ONCE
from komas.venues.binance.market import BinanceMarket, MarketOptions
from komas.venues.binance.reference import MarketReference
from komas.venues.core.rest import Rest, open_rest
from komas.venues.core.retry import RetryPolicy
from komas.venues.core.sequencing import LATE_MS
from tests.builders import EVENT_MS, TICKER, TRADE, ticker_frame, trade_frame
from tests.venues.exchange import REFUSED, Act, Peer, ScriptedExchange, listening, obeying, saying


class _RecordingHub(Hub):
    """Notes how much was published each time that all that came together was there."""

    def __init__(self) -> None:
        super().__init__(linger_s=0)
        self.flushed: list[int] = []

    def flush(self) -> None:
        self.flushed.append(self.statistics().published)
        super().flush()


class Harness:
    """A feed with its hub, and the exchange it talks to, which has no REST."""

    def __init__(
        self,
        nursery: trio.Nursery,
        rest: Rest,
        retry_policy: RetryPolicy | None,
        streams_per_connection: int = 1024,
        redundancy: int = 1,
    ) -> None:
        self.exchange = ScriptedExchange(nursery)
        self.hub = _RecordingHub()
        options = MarketOptions(
            url="ws://exchange.test:9443",
            retry_policy=retry_policy or RetryPolicy(),
            open_stream=self.exchange,
            clock_ms=lambda: 1_770_000_000_000,
            jitter=lambda: 1.0,
            streams_per_connection=streams_per_connection,
            redundancy=redundancy,
        )
        self.market = BinanceMarket(
            limits.SPOT,
            MarketReference(limits.SPOT, rest, options.clock_ms),
            sink=self.hub,
            interest=self.hub.interest,
            options=options,
        )
        self.feed = self.market.feed

    def health(self, stream: Stream) -> Health:
        """One word on a stream."""
        return self.market.health.of(stream).health


@asynccontextmanager
async def _harness(
    retry_policy: RetryPolicy | None = None, *, streams_per_connection: int = 1024, redundancy: int = 1
) -> AsyncIterator[Harness]:
    async with _no_rest() as rest, trio.open_nursery() as nursery:
        harness = Harness(nursery, rest, retry_policy, streams_per_connection, redundancy)
        await nursery.start(harness.feed.run)
        nursery.start_soon(harness.market.gap_filler.run)
        nursery.start_soon(harness.market.health.run)
        nursery.start_soon(harness.hub.interest.sweep)
        yield harness
        nursery.cancel_scope.cancel()


def _no_rest() -> AbstractAsyncContextManager[Rest]:
    transport = httpx.MockTransport(lambda _request: httpx.Response(404))
    return open_rest("http://x.test", weight_header="w", weight_per_minute=6000, transport=transport)


async def _trades(subscription: MarketSubscription, count: int) -> list[object]:
    seen: list[object] = []
    while len(seen) < count:
        for item in (await subscription.receive()).items:
            if isinstance(item, Envelope):
                seen.append(item.sequence)
            elif isinstance(item.notice, Gap):
                seen.append(msgspec.structs.replace(item.notice, reason=msgspec.UNSET))
    return seen


async def test_what_is_wanted_is_in_the_url_and_what_comes_is_published(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The thinnest line."""
    async with _harness() as harness:
        harness.exchange.script(saying(trade_frame(1), trade_frame(2), then=obeying))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 2) == [1, 2]
            assert harness.exchange.peers[0].path == "/stream?streams=btcusdt@trade"
            assert harness.feed.holds(TRADE)
            assert harness.health(TRADE) == "live"


async def test_it_dials_only_when_asked(autojump_clock: trio.testing.MockClock) -> None:
    """Not before connect(), not after disconnect()."""
    async with _harness() as harness:
        harness.exchange.script(then=obeying)
        harness.hub.interest.pin([TRADE])
        await trio.sleep(100)
        assert harness.exchange.dialled_at == []
        harness.feed.connect()
        await harness.feed.connected()
        harness.feed.disconnect()
        await trio.sleep(100)
        assert harness.feed.state is FeedState.DISCONNECTED
        assert harness.exchange.dialled_at == [100]
        harness.feed.connect()
        await harness.feed.connected()
        assert harness.exchange.dialled_at == [100, 200]


async def test_wishes_are_reconciled_while_connected(autojump_clock: trio.testing.MockClock) -> None:
    """What is wanted later is subscribed, what nobody wants is dropped, and acknowledged() waits for the ack."""
    async with _harness() as harness:
        harness.exchange.script(obeying)
        harness.feed.connect()
        await harness.feed.connected()
        harness.hub.interest.pin([TRADE, TICKER])
        await harness.feed.acknowledged([TRADE, TICKER])
        harness.hub.interest.unpin([TRADE])
        await trio.sleep(1)
        (peer,) = harness.exchange.peers
        assert [(request["method"], request["params"]) for _, request in peer.requests] == [
            ("SUBSCRIBE", ["btcusdt@trade", "btcusdt@ticker"]),
            ("UNSUBSCRIBE", ["btcusdt@trade"]),
        ]
        assert not harness.feed.holds(TRADE)


async def test_thousand_streams_go_out_within_the_budget(autojump_clock: trio.testing.MockClock) -> None:
    """In batches, never more than four messages in any second."""
    async with _harness() as harness:
        harness.exchange.script(obeying)
        streams = [Stream(Kind.TICKER, f"COIN{index}USDT") for index in range(1000)]
        harness.hub.interest.pin(streams)
        harness.feed.connect()
        await harness.feed.acknowledged(streams)
        moments = [moment for moment, _ in harness.exchange.peers[0].requests]
        assert len(moments) >= 4
        assert all(later - earlier >= 0.25 for earlier, later in itertools.pairwise(moments))


async def test_a_cut_reconnects_at_once_and_the_gap_is_declared(autojump_clock: trio.testing.MockClock) -> None:
    """Trades that came while nobody was connected are named by their ids."""
    async with _harness() as harness:
        harness.exchange.script(saying(trade_frame(1)), saying(trade_frame(5), then=obeying))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 3) == [1, Gap(stream="btcusdt@trade", first=2, last=4), 5]
        assert harness.exchange.dialled_at == [0, 0]
        assert harness.feed.statistics().reconnects == 1
        assert harness.market.gap_filler.statistics().gaps == 1


async def test_dials_back_off_and_data_resets_them(autojump_clock: trio.testing.MockClock) -> None:
    """A handshake alone resets nothing."""
    async with _harness() as harness:
        harness.hub.interest.pin([TRADE])
        harness.exchange.script(REFUSED, REFUSED, saying(), REFUSED, saying(trade_frame(1)), REFUSED, REFUSED)
        harness.feed.connect()
        await trio.sleep(16.5)
        # The last wait is not the backoff's second: six dials in ten seconds are enough.
        assert harness.exchange.dialled_at[:7] == [0, 0, 1, 3, 7, 7, 10]


async def test_a_refusal_waits_as_long_as_the_exchange_says(autojump_clock: trio.testing.MockClock) -> None:
    """429 with Retry-After, and the reason is told."""
    async with _harness() as harness:
        body = b'{"code":-1003,"msg":"Too many requests"}'
        harness.exchange.script((429, {"Retry-After": "33"}, body), obeying)
        harness.feed.connect()
        await trio.sleep(1)
        assert harness.feed.state is FeedState.RECONNECTING
        assert harness.hub.status.reason is not None
        assert "Too many requests" in harness.hub.status.reason
        assert harness.hub.status.retry_in_s == 33
        await harness.feed.connected()
        assert harness.exchange.dialled_at == [0, 33]


async def test_attempts_run_out(autojump_clock: trio.testing.MockClock) -> None:
    """Then it is disconnected, says why, and can be asked again."""
    async with _harness(RetryPolicy(attempts=2)) as harness:
        harness.exchange.script(REFUSED, REFUSED, obeying)
        harness.feed.connect()
        await trio.sleep(50)
        why = "given up after 2 failed attempts: refused; the next connect tries again"
        assert harness.hub.status == FeedStatus(state=FeedState.DISCONNECTED, reason=why)
        harness.feed.connect()
        await harness.feed.connected()


async def test_a_silent_stall_has_the_connection_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """One that had something every second and then nothing, with pings answered: within ten seconds."""

    async def stall(peer: Peer) -> None:
        for number in range(1, 41):
            await peer.say(trade_frame(number))
            await trio.sleep(0.6)
        while True:
            await trio.sleep(5)
            await peer.socket.ping()

    async with _harness() as harness:
        harness.hub.interest.pin([TRADE])
        harness.exchange.script(stall, obeying)
        harness.feed.connect()
        await trio.sleep(40)
        assert len(harness.exchange.dialled_at) == 2
        last_data = 39 * 0.6
        assert 8 <= harness.exchange.dialled_at[1] - last_data < 10


async def test_a_quiet_connection_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    """Pings alone keep a connection without data for three minutes."""

    async def quiet(peer: Peer) -> None:
        while True:
            await trio.sleep(20)
            await peer.socket.ping()

    async with _harness() as harness:
        harness.hub.interest.pin([TRADE])
        harness.exchange.script(then=listening(quiet))
        harness.feed.connect()
        await trio.sleep(500)
        assert harness.exchange.dialled_at == [0]
        assert harness.health(TRADE) == "quiet"
        await trio.sleep(500)  # but acknowledged and never delivered is not believed for ever
        assert harness.exchange.dialled_at == [0, pytest.approx(601, abs=1)]


async def test_a_quiet_pair_does_not_cost_a_connection_each_time(autojump_clock: trio.testing.MockClock) -> None:
    """A trade each ninety seconds, for four hours."""

    async def quiet(peer: Peer) -> None:
        for number in range(1, 160):
            await peer.say(trade_frame(number))
            for _ in range(3):
                await trio.sleep(30)
                await peer.socket.ping()

    async with _harness() as harness:
        harness.hub.interest.pin([TRADE])
        harness.exchange.script(listening(quiet))
        harness.feed.connect()
        await trio.sleep(4 * 3600 - 100)
        assert harness.exchange.dialled_at == [0]


async def test_numbers_that_start_again_are_a_new_life(autojump_clock: trio.testing.MockClock) -> None:
    """A testnet that was wiped: after fifty old trades in a row the stream goes on, with a gap notice."""

    async def wiped(peer: Peer) -> None:
        await peer.say(trade_frame(1_000_000))
        for number in range(1, 101):
            await peer.say(trade_frame(number, event_ms=EVENT_MS + LATE_MS + number))
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(wiped)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            seen = await _trades(subscription, 53)
            assert seen[:4] == [1_000_000, Gap(stream="btcusdt@trade", first=1_000_001, last=None), 50, 51]
            assert seen[-1] == 100


@pytest.mark.parametrize(
    "frame",
    [
        '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":60000,"i":"7m","o":"1","c":"1","h":"1","l":"1","v":"1","n":1,"x":false,"q":"1"}}}',
        '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":999999999999999999,"i":"1m","o":"1","c":"1","h":"1","l":"1","v":"1","n":1,"x":false,"q":"1"}}}',
        trade_frame(10**30),
        trade_frame(5).replace('"s":"BTCUSDT"', '"s":"ETHUSDT"'),
        trade_frame(5).replace("61837.63", "1" * 2000),
        '{"error":{"code":1e999,"msg":"x"},"id":1}',
    ],
)
async def test_an_odd_frame_ends_nothing(frame: str, autojump_clock: trio.testing.MockClock) -> None:
    """Another interval, a time or an id beyond reason, another symbol, endless digits, an error without sense."""
    async with _harness() as harness:
        harness.exchange.script(saying(trade_frame(1), frame, frame, trade_frame(2), then=obeying))
        harness.hub.interest.pin([Stream(Kind.KLINE, "BTCUSDT", "1m")])
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 2) == [1, 2]
        assert harness.exchange.dialled_at == [0]


async def test_a_storm_of_1008_that_is_not_about_names_costs_no_stream(autojump_clock: trio.testing.MockClock) -> None:
    """Too many requests is about how often we spoke."""

    async def storm(peer: Peer) -> None:
        await peer.hear()
        await peer.socket.aclose(1008, "Too many requests")

    async with _harness() as harness:
        harness.exchange.script(*[storm] * 5, then=obeying)
        harness.feed.connect()
        await harness.feed.connected()
        harness.hub.interest.pin([TRADE])
        await harness.feed.acknowledged([TRADE])
        assert TRADE in harness.hub.interest


async def test_a_late_frame_is_no_start_of_a_new_life(autojump_clock: trio.testing.MockClock) -> None:
    """It comes after UNSUBSCRIBE; the next subscriber, much later, has missed nothing."""

    async def act(peer: Peer) -> None:
        await peer.say(trade_frame(1))
        await peer.acknowledge()
        await trio.sleep(0.4)
        await peer.say(trade_frame(100))
        await peer.acknowledge()
        await peer.say(trade_frame(5000))
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(act)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 1) == [1]
        await trio.sleep(40)
        with harness.hub.subscribe([TRADE]) as subscription:
            assert await _trades(subscription, 1) == [5000]


async def test_streams_are_spread_over_as_many_connections_as_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """None over its cap; those that are left keep their place; one without streams is let go."""
    streams = [Stream(Kind.TICKER, f"COIN{index}USDT") for index in range(25)]
    async with _harness(streams_per_connection=10) as harness:
        harness.exchange.script(then=obeying)
        harness.hub.interest.pin(streams)
        harness.feed.connect()
        await harness.feed.acknowledged(streams)
        assert sorted(row.streams for row in harness.feed.statistics().connections) == [5, 10, 10]
        harness.hub.interest.unpin(streams[5:15])
        await trio.sleep(5)
        assert sorted(row.streams for row in harness.feed.statistics().connections) == [5, 5, 5]
        harness.hub.interest.unpin(streams[15:])
        await trio.sleep(5)
        assert [row.streams for row in harness.feed.statistics().connections] == [5]
        assert len(harness.exchange.dialled_at) == 3


async def test_a_shutdown_notice_has_the_connection_replaced_without_a_seam(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The younger one delivers before the older one is closed, and what both bring goes out once."""

    async def leaving(peer: Peer) -> None:
        await peer.say(trade_frame(1), trade_frame(2), NOTICE)
        for number in range(3, 30):
            await trio.sleep(0.1)
            await peer.say(trade_frame(number))

    async def successor(peer: Peer) -> None:
        await trio.sleep(1)
        for number in range(8, 60):
            await peer.say(trade_frame(number))
            await trio.sleep(0.1)
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(listening(leaving), listening(successor))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 50) == list(range(1, 51))
        assert harness.exchange.dialled_at == [0, 0]
        counts = harness.feed.statistics()
        assert (counts.rotations, counts.reconnects, len(counts.connections)) == (1, 0, 1)
        assert harness.market.gap_filler.statistics().gaps == 0
        assert harness.feed.state is FeedState.CONNECTED


async def test_the_younger_connection_may_be_ahead(autojump_clock: trio.testing.MockClock) -> None:
    """What the older one has still on its way comes in before it is asked for elsewhere."""

    async def old(peer: Peer) -> None:
        await peer.say(trade_frame(1), NOTICE)
        await trio.sleep(0.3)
        await peer.say(trade_frame(2), trade_frame(3), trade_frame(4))
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(listening(old), listening(saying(trade_frame(4), trade_frame(5), then=trio_forever)))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 5) == [1, 2, 3, 4, 5]
        assert harness.market.gap_filler.statistics().filled == 0


async def test_a_younger_connection_that_brings_nothing_replaces_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is let go, and the next one is tried; the older one lives until one delivers."""

    async def lively(peer: Peer) -> None:
        for number in range(1, 10_000):
            await peer.say(trade_frame(number))
            await trio.sleep(0.1)

    async with _harness() as harness:
        harness.exchange.script(listening(lively), listening(trio_forever), listening(trio_forever))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            await harness.feed.acknowledged([TRADE])
            assert harness.feed.rotate() == 1
            assert await _trades(subscription, 600) == list(range(1, 601))
        assert len(harness.exchange.dialled_at) == 3
        assert harness.feed.state is FeedState.CONNECTED
        assert harness.feed.statistics().reconnects == 0


async def _pass_in_steps(clock: trio.testing.MockClock, until: float, step_s: float) -> None:
    """Let time pass, and what is due within one step happen at its end: a quiet day is few moments then, and short."""
    clock.autojump_threshold = math.inf
    await trio.testing.wait_all_tasks_blocked()  # what happens now takes no time, and no step may cut it short
    while (left_s := until - trio.current_time()) > 0:
        clock.jump(min(step_s, left_s))
        await trio.testing.wait_all_tasks_blocked()
    clock.autojump_threshold = 0


async def test_a_connection_is_replaced_before_its_day_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """At a moment of its own, so that shards do not go together."""
    retired_at = 0.98 * 24 * 3600

    async def pinging(peer: Peer) -> None:
        while True:
            await trio.sleep(100)
            await peer.say(ticker_frame(event_ms=int(trio.current_time() * 1000)))

    async with _harness() as harness:
        harness.exchange.script(then=listening(pinging))
        harness.hub.interest.pin([TICKER])
        harness.feed.connect()
        await trio.sleep(600)
        await _pass_in_steps(autojump_clock, retired_at - 600, step_s=20)
        await trio.sleep(1200)  # to the second: here it happens
        await _pass_in_steps(autojump_clock, 25 * 3600, step_s=20)
        assert harness.exchange.dialled_at == [0, pytest.approx(retired_at, abs=3)]
        assert harness.feed.statistics().rotations == 1


async def test_with_redundancy_a_break_of_one_connection_is_invisible(autojump_clock: trio.testing.MockClock) -> None:
    """First frame wins, ids deduplicate, and nothing is asked for or announced."""

    async def dying(peer: Peer) -> None:
        await peer.say(*map(trade_frame, range(1, 20)))

    async def living(peer: Peer) -> None:
        for number in range(1, 100):
            await peer.say(trade_frame(number))
            await trio.sleep(0.1)
        await trio.sleep_forever()

    async with _harness(redundancy=2) as harness:
        harness.exchange.script(living, dying, then=obeying)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 99) == list(range(1, 100))
            assert harness.hub.status == FeedStatus(state=FeedState.CONNECTED)
            assert harness.market.gap_filler.statistics().gaps == 0
            assert harness.market.gap_filler.statistics().repeated == 19
            assert len(harness.feed.statistics().connections) == 2


async def test_the_exchanges_own_list_is_compared_with_ours(autojump_clock: trio.testing.MockClock) -> None:
    """What it lost is asked for again, what it has too much is dropped."""

    async def forgetful(peer: Peer) -> None:
        await trio.sleep(150)
        await peer.say(ticker_frame())
        request = await peer.hear()
        assert request["method"] == "LIST_SUBSCRIPTIONS"
        assert "params" not in request
        await peer.say(json.dumps({"result": ["btcusdt@ticker", "oldusdt@trade"], "id": request["id"]}))
        await peer.obey()

    async with _harness() as harness:
        harness.exchange.script(forgetful)
        harness.hub.interest.pin([TRADE, TICKER])
        harness.feed.connect()
        await trio.sleep(310)
        said = [(request["method"], request.get("params")) for _, request in harness.exchange.peers[0].requests]
        assert said[1:] == [("UNSUBSCRIBE", ["oldusdt@trade"]), ("SUBSCRIBE", ["btcusdt@trade"])]
        assert harness.feed.holds(TRADE)


async def test_a_stream_that_alone_falls_silent_is_stale_and_gets_another_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its lively neighbour notices nothing; where that does not help, the next try comes later and later."""

    async def halted(peer: Peer) -> None:
        for number in itertools.count():
            if trio.current_time() < 30:
                await peer.say(trade_frame(number))
            await peer.say(ticker_frame(event_ms=int(trio.current_time() * 1000)))
            await trio.sleep(0.5)

    async with _harness() as harness:
        harness.exchange.script(then=listening(halted))
        harness.hub.interest.pin([TRADE, TICKER])
        harness.feed.connect()
        await trio.sleep(29)
        assert [harness.health(stream) for stream in (TRADE, TICKER)] == ["live", "live"]
        await trio.sleep(12)
        assert [harness.health(stream) for stream in (TRADE, TICKER)] == ["recovering", "live"]
        await trio.sleep(27)
        assert [harness.health(stream) for stream in (TRADE, TICKER)] == ["stale", "live"]
        await trio.sleep(1000)
        assert [round(at) for at in harness.exchange.dialled_at] == [0, 38, 68, 128, 248, 488, 968]
        assert harness.feed.statistics().reconnects == 0


async def _healths(subscription: MarketSubscription, count: int) -> list[HealthNotice]:
    told: list[HealthNotice] = []
    while len(told) < count:
        items = [item for item in (await subscription.receive()).items if isinstance(item, NoticeEnvelope)]
        told += [item.notice for item in items if isinstance(item.notice, HealthNotice)]
    return told


async def test_who_listens_is_told_when_a_stream_goes_stale_and_when_it_is_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A price that is old must not pass for a new one."""

    async def pausing(peer: Peer) -> None:
        for number in itertools.count(1):
            if not 30 < trio.current_time() < 60:
                await peer.say(trade_frame(number))
            await trio.sleep(0.5)

    async with _harness() as harness:
        harness.exchange.script(then=listening(pausing))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            stale, well = await _healths(subscription, 2)
            assert (stale.stream, stale.health, well.health) == ("btcusdt@trade", Health.STALE, Health.LIVE)
            assert 60 <= trio.current_time() < 62


async def test_acknowledged_and_never_delivered_is_said(autojump_clock: trio.testing.MockClock) -> None:
    """A quiet pair may be quiet; one whose ticker moves is not, and its trades are then not given."""

    async def half(peer: Peer) -> None:
        for number in itertools.count(1):
            await peer.say(ticker_frame(event_ms=number))
            await trio.sleep(1)

    quiet = Stream(Kind.TRADE, "ETHUSDT")
    async with _harness() as harness:
        harness.exchange.script(then=listening(half))
        with harness.hub.subscribe([TRADE, TICKER, quiet]) as subscription:
            harness.feed.connect()
            await harness.feed.acknowledged([TRADE])
            assert harness.health(TRADE) is Health.PENDING
            told = {health.stream: health for health in await _healths(subscription, 2)}
            assert told["ethusdt@trade"].health is Health.QUIET
            assert told["btcusdt@trade"].health is Health.STALE
            assert "although BTCUSDT trades" in told["btcusdt@trade"].reason


async def test_quiet_streams_cost_no_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Pairs that trade each five minutes, at random: a pause that a new connection cuts short is no shorter pause."""
    dice = random.Random(1)
    streams = [Stream(Kind.TRADE, f"COIN{index}USDT") for index in range(20)]

    async def quiet(peer: Peer) -> None:
        for number in itertools.count(1):
            await trio.sleep(dice.expovariate(20 / 300))
            await peer.say(trade_frame(number, dice.choice(streams).symbol))

    async with _harness() as harness:
        harness.exchange.script(then=listening(quiet))
        harness.hub.interest.pin(streams)
        harness.feed.connect()
        await trio.sleep(4 * 3600)
        assert len(harness.exchange.dialled_at) <= 3


@pytest.mark.parametrize("others", [2, 300])
async def test_a_stream_that_is_acknowledged_again_and_silent_is_found(
    others: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Its pace is known from the connection before, whether the URL named it or a request."""

    async def lively(peer: Peer) -> None:
        for number in range(1, 60):
            await peer.say(trade_frame(number))
            await trio.sleep(0.5)

    async with _harness() as harness:
        harness.exchange.script(listening(lively), then=obeying)
        harness.hub.interest.pin([Stream(Kind.TICKER, f"COIN{index}USDT") for index in range(others)])
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        await trio.sleep(42)
        assert len(harness.exchange.dialled_at) == 3
        assert 37 < harness.exchange.dialled_at[2] < 41


async def test_one_connection_of_two_that_fails_for_good_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Attempts are used up when there is no connection at all."""
    refused: tuple[int, dict[str, str], bytes] = (503, {}, b"")

    async def living(peer: Peer) -> None:
        for number in itertools.count(1):
            await peer.say(trade_frame(number))
            await trio.sleep(0.1)

    async with _harness(RetryPolicy(attempts=3), redundancy=2) as harness:
        harness.exchange.script(living, then=None)
        harness.exchange.script(*[refused] * 20)
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        await trio.sleep(60)
        assert harness.feed.state is FeedState.CONNECTED
        assert len(harness.exchange.dialled_at) > 4


async def test_a_ban_is_kept_by_all_connections(autojump_clock: trio.testing.MockClock) -> None:
    """It is about the address: a connection that is cut while another was told to wait, waits, too."""

    async def cut_later(peer: Peer) -> None:
        await peer.say(trade_frame(1))
        await trio.sleep(5)

    async with _harness(redundancy=2) as harness:
        harness.exchange.script(cut_later, (418, {"Retry-After": "300"}, b""), then=obeying)
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        await trio.sleep(299)
        assert harness.exchange.dialled_at == [0, 0]
        await trio.sleep(5)
        assert len(harness.exchange.dialled_at) == 4


async def test_letting_go_and_asking_again_at_once_is_no_connection_yet(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What ends says nothing of what begins."""
    async with _harness(redundancy=2) as harness:
        harness.exchange.script(obeying, obeying)
        harness.feed.connect()
        await harness.feed.connected()
        await trio.sleep(1)
        harness.exchange.script(*[REFUSED] * 50)
        harness.feed.disconnect()
        harness.feed.connect()
        await trio.sleep(5)
        states = [harness.feed.state]
        harness.feed.disconnect()
        await trio.sleep(60)
        assert [*states, harness.feed.state] == [FeedState.RECONNECTING, FeedState.DISCONNECTED]


async def test_a_stream_that_was_unwanted_while_disconnected_starts_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What came in that hour is not missing."""
    async with _harness() as harness:
        harness.exchange.script(
            saying(trade_frame(1), then=obeying), saying(trade_frame(5000), trade_frame(5001), then=obeying)
        )
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 1) == [1]
            harness.feed.disconnect()
        await trio.sleep(3600)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 2) == [5000, 5001]


async def test_nobody_waits_for_what_cannot_come(autojump_clock: trio.testing.MockClock) -> None:
    """After giving up, after letting go, after unsubscribing."""
    async with _harness(RetryPolicy(attempts=1)) as harness:
        harness.exchange.script(REFUSED, then=trio_forever)
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        with pytest.raises(VenueError, match="refused"):
            await harness.feed.acknowledged([TRADE])
        with pytest.raises(VenueError, match="refused"):
            await harness.feed.connected()
        harness.feed.connect()
        await harness.feed.connected()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(VenueError, match="ended before it was acknowledged"):
                    await harness.feed.acknowledged([TICKER])

            harness.hub.interest.pin([TICKER])
            nursery.start_soon(wait)
            await trio.sleep(1)
            harness.hub.interest.unpin([TICKER])


async def trio_forever(_peer: Peer) -> None:
    """An act: take everything, answer nothing."""
    await trio.sleep_forever()


async def test_not_even_a_ping_is_a_dead_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Half open: nothing at all for longer than the slowest ping."""
    async with _harness() as harness:
        harness.exchange.script(obeying, obeying)
        harness.feed.connect()
        await trio.sleep(210)
        assert len(harness.exchange.dialled_at) == 2


NOTICE = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'


@pytest.mark.parametrize("notice", ['{"e":"serverShutdown","E":1}', NOTICE])
async def test_a_shutdown_notice_is_acted_on_at_once(notice: str, autojump_clock: trio.testing.MockClock) -> None:
    """In both shapes: there is no promise of time after it."""
    async with _harness() as harness:
        harness.exchange.script(saying(trade_frame(1), notice, then=obeying), obeying)
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        await trio.sleep(1)
        assert harness.exchange.dialled_at == [0, 0]


async def test_frames_that_cannot_be_read_are_counted_and_logged_once_a_minute(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And hurt nothing else."""
    garbage = [
        "{",
        "[]",
        '{"stream":"btcusdt@trade","data":{"t":"x"}}',
        '{"stream":"btcusdt@news","data":{}}',
        '{"zz":1}',
    ]

    async def act(peer: Peer) -> None:
        for number in (1, 2, 3):
            await peer.say(*garbage, trade_frame(number))
            await trio.sleep(31)

    async with _harness() as harness:
        harness.exchange.script(act)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 3) == [1, 2, 3]
            counts = harness.feed.statistics()
            assert (counts.unreadable, counts.unknown, counts.messages_received) == (9, 3, 9)
            assert sum(record.message.startswith("unreadable frame: ") for record in caplog.records) == 2


async def test_others_run_while_a_read_is_taken_apart(autojump_clock: trio.testing.MockClock) -> None:
    """It may hold thousands of tiny frames, which were gone through in one go; what follows them comes, too."""
    go, turns = trio.Event(), 0

    async def act(peer: Peer) -> None:
        await peer.say(trade_frame(1))
        await go.wait()
        text = trade_frame(2).encode()
        await peer.stream.send_all(b"\x81\x02{}" * 10_000 + b"\x81\x7e" + len(text).to_bytes(2, "big") + text)
        await peer.obey()

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with _harness() as harness:
        harness.exchange.script(act)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 1) == [1]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                go.set()
                assert await _trades(subscription, 1) == [2]
                nursery.cancel_scope.cancel()
    assert turns > 10_000 / AT_ONCE


async def test_data_before_and_without_an_acknowledgement_is_used(autojump_clock: trio.testing.MockClock) -> None:
    """An event may overtake its ack."""

    async def act(peer: Peer) -> None:
        await peer.hear()
        await peer.say(trade_frame(1))
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(act)
        harness.feed.connect()
        await harness.feed.connected()
        with harness.hub.subscribe([TRADE]) as subscription:
            assert await _trades(subscription, 1) == [1]
            assert harness.feed.holds(TRADE)


async def test_a_refused_stream_is_told_to_who_waits_and_who_listens(autojump_clock: trio.testing.MockClock) -> None:
    """With the exchange's words; nobody asks for it again."""

    async def act(peer: Peer) -> None:
        request = await peer.hear()
        await peer.say(
            json.dumps({"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": request["id"]})
        )
        await peer.obey()

    async with _harness() as harness:
        harness.exchange.script(act)
        harness.feed.connect()
        await harness.feed.connected()
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.hub.interest.pin([TRADE])
            with pytest.raises(VenueError, match=r"refused btcusdt@trade: Invalid request: invalid stream") as caught:
                await harness.feed.acknowledged([TRADE])
            assert caught.value.cause is Cause.REFUSED
            notices = [item.notice for item in (await subscription.receive()).items if isinstance(item, NoticeEnvelope)]
            assert notices[-1] == FeedStatus(
                state=FeedState.CONNECTED, stream="btcusdt@trade", reason="Invalid request: invalid stream"
            )
        await trio.sleep(60)
        assert len(harness.exchange.peers[0].requests) == 1
        assert not len(harness.hub.interest)


async def test_a_url_that_the_exchange_hangs_up_on_is_not_dialled_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The streams are asked for one by one until the culprit is known; the others live."""

    async def strict(peer: Peer) -> None:
        if "bad" in peer.path:
            await peer.socket.aclose(1008, "Invalid request")
            return
        await peer.say(trade_frame(1))
        while True:
            request = await peer.hear()
            if any("bad" in name for name in request["params"]):  # type: ignore[attr-defined]
                await peer.socket.aclose(1008, "Invalid request")
                return
            await peer.say(json.dumps({"result": None, "id": request["id"]}))

    bad = Stream(Kind.TRADE, "BADUSDT")
    async with _harness() as harness:
        harness.exchange.script(then=strict)
        harness.hub.interest.pin([TRADE, bad, TICKER])
        harness.feed.connect()
        await trio.sleep(120)
        assert set(harness.hub.interest.streams()) == {TRADE, TICKER}
        await harness.feed.acknowledged([TRADE, TICKER])
        assert len(harness.exchange.dialled_at) < 12


async def test_a_stream_that_was_unwanted_for_a_while_has_no_gap(autojump_clock: trio.testing.MockClock) -> None:
    """What came while nobody wanted it is not missing."""

    async def act(peer: Peer) -> None:
        await peer.say(trade_frame(1))
        await peer.acknowledge()
        await peer.acknowledge()
        await peer.say(trade_frame(500))
        await trio.sleep_forever()

    async with _harness() as harness:
        harness.exchange.script(act)
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 1) == [1]
        await trio.sleep(5)
        with harness.hub.subscribe([TRADE]) as subscription:
            assert await _trades(subscription, 1) == [500]


async def test_repeats_and_reorderings_are_dropped(autojump_clock: trio.testing.MockClock) -> None:
    """Each trade once, in order."""
    frames = [trade_frame(number) for number in (1, 2, 2, 1, 3)]
    async with _harness() as harness:
        harness.exchange.script(saying(*frames, then=obeying))
        with harness.hub.subscribe([TRADE]) as subscription:
            harness.feed.connect()
            assert await _trades(subscription, 3) == [1, 2, 3]
            assert harness.market.gap_filler.statistics().repeated == 2


async def test_what_comes_together_is_told_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However the streams are mixed: trades each, in order; of tickers the newest; nothing because of an odd frame."""

    async def act(peer: Peer) -> None:
        await peer.say(trade_frame(1), ticker_frame(price="1", event_ms=EVENT_MS + 1))
        await trio.sleep(1)
        together = [
            trade_frame(2),
            ticker_frame(price="2", event_ms=EVENT_MS + 2),
            trade_frame(3),
            '{"stream":"btcusdt@unheardOf","data":{}}',
            trade_frame(4),
            ticker_frame(price="4", event_ms=EVENT_MS + 4),
            ticker_frame(price="3", event_ms=EVENT_MS + 3),
            trade_frame(5),
        ]
        await peer.stream.send_all(b"".join(frames.text(frame.encode()) for frame in together))
        await peer.obey()

    async with _harness() as harness:
        harness.exchange.script(act)
        with harness.hub.subscribe([TRADE, TICKER]) as subscription:
            harness.feed.connect()
            await trio.sleep(2)
            assert harness.hub.flushed[-2:] == [2, 8]
            facts = [item.event for item in (await subscription.receive()).items if isinstance(item, Envelope)]
            assert [fact["trade_id"] for fact in facts if isinstance(fact, Trade)] == [1, 2, 3, 4, 5]
            assert [str(fact["price"]) for fact in facts if isinstance(fact, Ticker)] == ["4"]
            assert (harness.feed.statistics().messages_received, harness.feed.statistics().unknown) == (10, 1)
            assert harness.hub.statistics().published == 8  # the ticker of the first read, and two around the odd frame


async def test_cancelled_anywhere_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """At each of the first scheduler passes of a connection's life, all streams are closed and nothing hangs."""
    for passes in range(60):
        async with _no_rest() as rest, trio.open_nursery() as nursery:
            harness = Harness(nursery, rest, None)
            harness.exchange.script(then=saying(trade_frame(1), then=obeying))
            harness.hub.interest.pin([TRADE])
            await nursery.start(harness.feed.run)
            harness.feed.connect()
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert harness.feed.statistics().connections == ()


async def test_prices_are_exact(autojump_clock: trio.testing.MockClock) -> None:
    """The exchange's digits come out at the hub."""
    async with _harness() as harness:
        harness.exchange.script(saying(ticker_frame(price="0.00000001"), then=obeying))
        with harness.hub.subscribe([TICKER]) as subscription:
            harness.feed.connect()
            while (item := harness.hub.latest.get(TICKER)) is None:
                await subscription.receive()
            assert isinstance(item.event, Ticker)
            assert str(item.event.price) == "1E-8"  # as Decimal has it: the encoder writes all digits
            assert item.received_ms == 1_770_000_000_000


@pytest.mark.parametrize("hears", [True, False])
async def test_what_another_connection_hears_is_not_in_doubt(
    hears: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of two falls silent: it is replaced, and nothing is thought to be missing."""

    def talking(seconds: int) -> Act:
        async def talk(peer: Peer) -> None:
            for number in range(1, seconds + 1):
                await peer.say(trade_frame(number))
                await trio.sleep(1)
            await peer.obey()

        return talk

    async with _harness(redundancy=2) as harness:
        doubted: list[float] = []
        monkeypatch.setattr(
            harness.market.gap_filler, "on_suspect", lambda _stream: doubted.append(trio.current_time())
        )
        harness.exchange.script(talking(60), talking(90 if hears else 60), then=obeying)
        harness.hub.interest.pin([TRADE])
        harness.feed.connect()
        await trio.sleep(30)
        doubted.clear()
        await trio.sleep(55)
        assert len(harness.exchange.dialled_at) > 2
        assert bool(doubted) is not hears
