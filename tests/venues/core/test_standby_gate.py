"""What comes while another process publishes is kept, and goes on behind what that one has published."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind
from komas.model.market import Event, FeedStatus, Gap, HealthNotice, Incoming, Trade
from komas.model.streams import Stream
from komas.venues.core import standby_gate
from komas.venues.core.gap_fill import GapFiller
from komas.venues.core.health import StreamHealth
from komas.venues.core.sequencing import RESTART_MS
from komas.venues.core.standby_gate import COVERED_S, LET_GO, StandbyGate
from tests.builders import KLINE, MINUTE_MS, TICKER, TRADE, kline, ticker, trade
from tests.venues.holders import AllWanted, Holding

OTHER = Stream(Kind.TRADE, "ETHUSDT")
KEEP_S = 10.0


class _Sink:
    """Keeps what it is given, and how often it was to wait."""

    def __init__(self) -> None:
        self.taken: list[tuple[Stream, int]] = []
        self.settles = 0
        self.flushes = 0
        self.between: list[tuple[Stream, Event]] = []  # what comes while it is waited
        self.gate: StandbyGate | None = None

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        self.taken.append((stream, event.trade_id if isinstance(event, Trade) else event.timestamp))

    def publish_all(self, stream: Stream, events: Sequence[Event], received_ms: int) -> None:
        for event in events:
            self.publish(stream, event, received_ms)

    def flush(self) -> None:
        self.flushes += 1

    async def settled(self) -> None:
        self.settles += 1
        await trio.lowlevel.checkpoint()
        for stream, event in self.between:
            assert self.gate is not None
            self.gate.on_events(stream, [event], 0)
        self.between.clear()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        raise AssertionError(gap)

    def publish_status(self, status: FeedStatus) -> None:
        raise AssertionError(status)

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        raise AssertionError(gap)

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """It waits for what is missing."""

    def reject(self, stream: Stream, reason: str) -> None:
        """It was refused."""

    def of(self, stream: Stream) -> list[int]:
        """What was published of a stream."""
        return [number for each, number in self.taken if each == stream]


class _Rest:
    """Has everything, and notes what it is asked for."""

    has_room = True

    def __init__(self) -> None:
        self.asked: list[tuple[Stream, int, int | None]] = []

    async def page(self, stream: Stream, first: int, last: int | None) -> list[tuple[int, Event]]:
        await trio.lowlevel.checkpoint()
        self.asked.append((stream, first, last))
        return [(number, trade(number)) for number in range(first, (last or first) + 1)]


class _World:
    def __init__(self) -> None:
        self.sink, self.rest = _Sink(), _Rest()
        health = StreamHealth(Holding(), AllWanted(), self.sink)
        self.filler = GapFiller(self.sink, self.rest, health, lambda: 0)
        self.gate = self.sink.gate = StandbyGate(self.filler, self.sink, keep_s=KEEP_S)

    def come(self, stream: Stream, *events: Incoming) -> None:
        self.gate.on_events(stream, events, 0)


@asynccontextmanager
async def _world() -> AsyncIterator[_World]:
    async with trio.open_nursery() as nursery:
        world = _World()
        nursery.start_soon(world.filler.run)
        yield world
        nursery.cancel_scope.cancel()


async def test_what_was_published_is_left_out_and_the_rest_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    """In order, once, with nothing asked; afterwards everything passes at once."""
    async with _world() as world:
        for number in range(1, 1001, 2):
            world.come(TRADE, trade(number), trade(number + 1))
        assert not world.sink.taken
        world.filler.resume(TRADE, trade(699))
        await world.gate.open(0.0)
        assert world.sink.of(TRADE) == list(range(700, 1001))
        assert world.sink.settles >= 300 // LET_GO
        world.come(TRADE, trade(1001))
        assert world.sink.of(TRADE)[-1] == 1001
        assert not world.rest.asked
        assert world.gate.events == 0


async def test_what_is_older_than_was_kept_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """And only that."""
    async with _world() as world:
        world.come(TRADE, trade(5))
        await trio.sleep(KEEP_S + 1)
        world.come(TRADE, trade(6))
        world.come(TRADE, trade(7))
        world.filler.resume(TRADE, trade(3))
        await world.gate.open(0.0)
        await trio.sleep(1)
        assert world.rest.asked == [(TRADE, 4, 5)]
        assert world.sink.of(TRADE) == [4, 5, 6, 7]


async def test_the_newest_event_is_kept_however_old_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """A pair that trades once an hour would be silently behind until it trades again."""
    async with _world() as world:
        world.come(TRADE, trade(5))
        for number in range(100):
            await trio.sleep(1)
            world.come(OTHER, trade(number))
        assert world.gate.events <= KEEP_S + 2
        world.filler.resume(TRADE, trade(4))
        world.filler.resume(OTHER, trade(98))
        await world.gate.open(0.0)
        assert world.sink.of(TRADE) == [5]
        assert world.sink.of(OTHER) == [99]


@pytest.mark.parametrize("bound", ["KEPT_EVENTS", "KEPT_BYTES"])
async def test_what_is_kept_is_bounded(
    bound: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The oldest of all goes first, but for each stream's newest."""
    monkeypatch.setattr(standby_gate, bound, 50 if bound == "KEPT_EVENTS" else 50 * 750)
    async with _world() as world:
        world.come(OTHER, trade(1))
        for number in range(1, 1001):
            world.come(TRADE, trade(number))
        assert world.gate.events == 50
        world.filler.resume(TRADE, trade(990))
        world.filler.resume(OTHER, trade(0))
        await world.gate.open(0.0)
        assert world.sink.of(OTHER) == [1]
        assert world.sink.of(TRADE) == list(range(991, 1001))


async def test_of_states_only_the_newest_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """A newer one replaces an older one; one that was published is not told again."""
    async with _world() as world:
        for price in range(10):
            world.come(TICKER, ticker(timestamp=price))
        assert world.gate.events == 0
        await world.gate.open(0.0)
        assert len(world.sink.taken) == 1
        world.come(TICKER, ticker(timestamp=11))
        assert len(world.sink.taken) == 2


async def test_old_candles_in_a_row_are_no_new_count(autojump_clock: trio.testing.MockClock) -> None:
    """Half a minute of them, kept for a long lease, were taken for an exchange that begins anew."""
    async with _world() as world:
        gate = StandbyGate(world.filler, world.sink, keep_s=100.0)
        for minute in range(30):
            gate.on_events(KLINE, [kline(minute, closed=True)], minute * RESTART_MS)
        world.filler.resume(KLINE, kline(28, closed=True))
        await gate.open(0.0)
        assert world.sink.of(KLINE) == [29 * MINUTE_MS]


async def test_what_comes_while_it_opens_waits_for_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    """Of a stream that is let go, and of one that is not yet; nothing overtakes."""
    async with _world() as world:
        for number in range(1, 2 * LET_GO + 1):
            world.come(TRADE, trade(number))
        world.come(OTHER, trade(1))
        last = 2 * LET_GO + 1
        world.sink.between += [(TRADE, trade(last)), (OTHER, trade(2))]
        await world.gate.open(0.0)
        assert world.sink.of(TRADE) == list(range(1, last + 1))
        assert world.sink.of(OTHER) == [1, 2]
        assert world.sink.flushes >= 2


async def test_a_stream_that_is_not_wanted_any_more_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """Also while it is let go; when it comes back it starts anew."""
    async with _world() as world:
        world.come(TRADE, trade(1))
        world.come(OTHER, trade(1))
        world.gate.on_reset(TRADE)
        world.gate.on_refused(OTHER, "no such symbol")
        assert world.gate.events == 0
        world.come(TRADE, trade(9))
        await world.gate.open(0.0)
        assert world.sink.taken == [(TRADE, 9)]
        assert not world.rest.asked


@pytest.mark.parametrize("heard_s", [0.0, COVERED_S + 1])
async def test_a_quiet_stream_is_asked_for_only_where_the_leader_may_have_missed_it_too(
    heard_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Hundreds of quiet pairs, each asked for at a takeover, are what standing by is to save."""
    async with _world() as world:
        world.filler.resume(TRADE, trade(1))
        world.filler.resume(OTHER, trade(1))
        world.gate.on_suspect(TRADE)
        world.gate.on_suspect(OTHER)
        world.come(OTHER, trade(2))
        began_at = trio.current_time()
        await trio.sleep(5)
        await world.gate.open(began_at + heard_s)
        await trio.sleep(5)
        assert [stream for stream, _, _ in world.rest.asked] == ([] if heard_s else [TRADE])


async def test_a_doubt_that_arises_when_it_is_open_is_handed_on(autojump_clock: trio.testing.MockClock) -> None:
    """As without it."""
    async with _world() as world:
        world.filler.resume(TRADE, trade(1))
        await world.gate.open(0.0)
        world.gate.on_suspect(TRADE)
        await trio.sleep(5)
        assert world.rest.asked == [(TRADE, 2, None)]
