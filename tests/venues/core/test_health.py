"""One component decides on the health of a stream, and tells every change of it once."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus, Health, HealthNotice
from komas.model.streams import Stream
from komas.venues.core.complaints import EACH
from komas.venues.core.connection import Arrival
from komas.venues.core.health import LOOK_EVERY_S, NEVER_S, QUIET_AFTER_S, Condition, HealthCause, StreamHealth
from tests.builders import TICKER, TRADE
from tests.venues.holders import AllWanted, Holding, HoldingConnection

TORN = Condition(Health.RECOVERING, "torn", is_doubtful=True)
MISSING = Condition(Health.RECOVERING, "missing", is_doubtful=True)


class _Told:
    """What readers are told."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str, str]] = []

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        assert health.stream == stream.name
        self.notices.append((stream.name, health.health, health.reason))

    def take(self) -> list[tuple[str, str]]:
        """What was told since the last time: health and reason."""
        told, self.notices = self.notices, []
        return [(health, reason) for _, health, reason in told]


class _Market:
    """The health of streams on one connection that the test plays."""

    def __init__(self, *, tells_outages: bool = False) -> None:
        self.connection = HoldingConnection(promised_s=30)
        self.holding = Holding(self.connection)
        self.told = _Told()
        self.health = StreamHealth(self.holding, AllWanted(), self.told, tells_outages=tells_outages)

    def hear(self, *streams: Stream) -> None:
        """Events of streams came."""
        for stream in streams:
            self.holding.placed += [stream] if stream not in self.holding.placed else []
            self.connection.hear(stream)
            self.health.arrived(stream, Arrival(trio.current_time(), 0))

    def word(self, stream: Stream = TRADE) -> Health:
        """One word on a stream."""
        return self.health.of(stream).health


async def test_silence_alone_makes_a_stream_doubtful(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Live, quiet, stale, and live again: readers are told of the last two."""
    market = _Market()
    nursery.start_soon(market.health.run)
    market.hear(TRADE)
    assert market.word() is Health.LIVE
    await trio.sleep(QUIET_AFTER_S + 1)
    assert market.word() is Health.QUIET
    assert market.health.totals == {Health.QUIET: 1}
    assert market.told.take() == []
    await trio.sleep(25)
    assert market.word() is Health.STALE
    assert market.health.totals == {Health.STALE: 1}
    assert market.told.take() == [("stale", "silent for longer than its pace allows")]
    market.hear(TRADE)
    assert market.word() is Health.LIVE
    await trio.sleep(1.5)
    assert market.told.take() == [("live", "it is heard again")]


async def test_a_silent_connection_is_doubt_in_all_its_streams(autojump_clock: trio.testing.MockClock) -> None:
    """Though each of them might be quiet by itself."""
    market = _Market()
    market.hear(TRADE)
    market.connection.is_quiet = True
    assert market.health.of(TRADE) == Condition(Health.STALE, "its connection is silent", is_doubtful=True)
    market.holding.connections.append(HoldingConnection())
    assert market.word() is Health.LIVE  # the other one delivers


async def test_what_components_report_is_told_once_and_when_it_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """At once, where it does not pass by itself; one trouble behind another is one trouble."""
    market = _Market()
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.ORDER_BOOK, TORN)
    market.health.report(TRADE, HealthCause.ORDER_BOOK, TORN)
    market.health.report(TRADE, HealthCause.GAP, MISSING)
    assert market.told.take() == [("recovering", "torn")]
    market.health.clear(TRADE, HealthCause.ORDER_BOOK, "whole")
    assert market.word() is Health.RECOVERING
    assert market.told.take() == []
    market.health.clear(TRADE, HealthCause.GAP, "filled")
    market.health.clear(TRADE, HealthCause.GAP, "filled")
    assert market.told.take() == [("live", "filled")]


async def test_a_gap_that_is_filled_at_once_is_no_news(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """One that lasts is."""
    market = _Market()
    nursery.start_soon(market.health.run)
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.GAP, MISSING, at_once=False)
    assert market.word() is Health.RECOVERING
    market.health.clear(TRADE, HealthCause.GAP, "filled")
    market.health.report(TRADE, HealthCause.GAP, MISSING, at_once=False)
    assert market.told.take() == []
    await trio.sleep(1.5)
    assert market.told.take() == [("recovering", "missing")]


async def test_silence_weighs_more_than_a_repair_that_is_under_way(autojump_clock: trio.testing.MockClock) -> None:
    """A book that was mended while its stream was silent is not well; it is told what is worse."""
    market = _Market()
    market.hear(TRADE)
    await trio.sleep(31)
    market.health.report(TRADE, HealthCause.ORDER_BOOK, TORN)
    market.health.clear(TRADE, HealthCause.ORDER_BOOK, "whole")
    assert market.told.take() == [("stale", "silent for longer than its pace allows")]
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.ORDER_BOOK, TORN)
    assert market.told.take() == [("recovering", "torn")]


async def test_a_halted_symbol_is_quiet_and_not_stale(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Its silence is explained; once it may trade again, it is awaited, and then judged as any other."""
    market = _Market()
    nursery.start_soon(market.health.run)
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.LISTING, Condition(Health.QUIET, "HALT", is_doubtful=True))
    await trio.sleep(600)
    assert market.told.take() == [("quiet", "HALT")]
    market.health.report(TRADE, HealthCause.LISTING, Condition(Health.PENDING, "TRADING", is_doubtful=True))
    await trio.sleep(60)
    assert market.told.take() == [("pending", "TRADING")]
    market.hear(TRADE)
    await trio.sleep(1.5)
    assert market.told.take() == [("live", "it is heard again")]


async def test_acknowledged_and_never_delivered(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """Quiet, unless its symbol trades elsewhere: then it is not given."""
    market = _Market()
    market.connection = HoldingConnection()
    market.holding.connections = [market.connection]
    nursery.start_soon(market.health.run)
    quiet = Stream(Kind.TRADE, "ETHUSDT")
    market.holding.placed += [TRADE, quiet]
    assert [market.word(stream) for stream in (TRADE, quiet)] == [Health.PENDING, Health.PENDING]
    for _ in range(int(NEVER_S) + 2):
        market.hear(TICKER)
        await trio.sleep(1)
    assert market.word() is Health.STALE
    assert market.word(quiet) is Health.QUIET
    reason = f"acknowledged, and nothing has come for {NEVER_S:g} s"
    assert market.told.take() == [("stale", f"{reason}, although BTCUSDT trades"), ("quiet", reason)]


@pytest.mark.parametrize("tells_outages", [False, True])
async def test_an_outage_is_told_by_the_markets_state_or_by_the_health_of_each_stream(
    tells_outages: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
) -> None:
    """Never by both; a stream that is heard again is told to be well to those who were told that it is not."""
    market = _Market(tells_outages=tells_outages)
    nursery.start_soon(market.health.run)
    market.hear(TRADE)
    connections, market.holding.connections = market.holding.connections, []
    cut = FeedStatus(state=FeedState.RECONNECTING, reason="the network is down")
    market.health.on_status(cut, [TRADE, TICKER])
    market.health.on_status(cut, [TRADE, TICKER])
    assert market.word() is Health.RECOVERING
    told = market.told.take()
    assert told == ([("recovering", "the network is down")] * 2 if tells_outages else [])
    market.health.on_status(FeedStatus(state=FeedState.CONNECTED), [TRADE, TICKER])
    market.holding.connections = connections
    market.hear(TRADE)
    await trio.sleep(1.5)
    assert market.told.take() == ([("live", "it is heard again")] if tells_outages else [])


async def test_a_stream_that_comes_back_starts_anew(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing that was known of it counts; that it had delivered is told."""
    market = _Market()
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.GAP, MISSING)
    market.health.report(TICKER, HealthCause.GAP, MISSING)
    assert market.health.forget(TRADE)
    assert not market.health.forget(Stream.of(Kind.DEPTH, "BTCUSDT"))
    assert market.health.arrival(TRADE) is None
    assert market.word() is Health.LIVE
    assert market.word(TICKER) is Health.RECOVERING
    market.told.take()
    market.health.clear(TRADE, HealthCause.GAP, "filled")
    assert market.told.take() == []


async def test_thousands_of_streams_do_not_hold_the_loop(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Others run between some of them and the next: each may be one that is told and logged."""
    market = _Market()
    market.hear(*[Stream(Kind.TRADE, f"S{number}USDT") for number in range(1000)])
    nursery.start_soon(market.health.run)
    await trio.sleep(LOOK_EVERY_S)
    turns = 0
    while not market.health.totals and turns < 1000:
        turns += 1
        await trio.lowlevel.checkpoint()
    assert market.health.totals == {Health.LIVE: 1000}
    assert turns >= 45


async def test_the_stale_streams_are_known_by_name(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """As they were at the last look."""
    market = _Market()
    nursery.start_soon(market.health.run)
    market.hear(TRADE)
    await trio.sleep(25)
    market.hear(TICKER)
    assert market.health.stale == frozenset()
    await trio.sleep(10)
    assert market.health.stale == {TRADE}


async def test_thousands_of_streams_that_fall_silent_fill_no_log(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers of each are told; the log has some of them, and their number when the next minute has one."""
    caplog.set_level("INFO", "komas")
    market = _Market()
    streams = [Stream(Kind.TRADE, f"S{number}USDT") for number in range(1000)]
    market.hear(*streams)
    nursery.start_soon(market.health.run)
    await trio.sleep(35)
    assert len(market.told.take()) == 1000
    assert len(caplog.records) <= EACH
    await trio.sleep(60)
    market.hear(*streams)
    await trio.sleep(1.5)
    assert len(caplog.records) <= 2 * EACH
    assert max(vars(record).get("left_out", 0) for record in caplog.records) == 1000 - EACH


async def test_what_was_told_while_nobody_listened_is_told_anew(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A market that stood by had said that a book is torn; when it was to publish, readers were never told."""
    market = _Market()
    market.hear(TRADE)
    market.health.report(TRADE, HealthCause.ORDER_BOOK, TORN)
    assert market.told.take() == [("recovering", "torn")]
    nursery.start_soon(market.health.run)
    await trio.sleep(2 * LOOK_EVERY_S)
    assert not market.told.take()
    market.health.resume({})
    await trio.sleep(2 * LOOK_EVERY_S)
    assert market.told.take() == [("recovering", "torn")]


async def test_what_another_process_told_is_taken_back(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A reader was told by a leader that a stream is stale, and never by the next one that it is heard again."""
    market = _Market()
    market.health.resume({TRADE: Health.STALE})
    market.hear(TRADE)
    nursery.start_soon(market.health.run)
    await trio.sleep(2 * LOOK_EVERY_S)
    assert market.told.take() == [("live", "it is heard again")]
