"""What connections bring, handed on to those whom it concerns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from komas.hub.hub import Hub
from komas.model.kinds import Kind, Venue
from komas.model.market import Incoming
from komas.model.streams import Stream
from komas.venues.core.connection import Arrival, Refusal
from komas.venues.core.feed_input import FeedInput
from komas.venues.core.health import StreamHealth
from komas.venues.core.ports import Unreadable
from komas.venues.core.shards import Shards
from tests.builders import TICKER, TRADE, trade
from tests.venues.holders import AllWanted, HoldingConnection

DEPTH = Stream(Kind.DEPTH, "BTCUSDT")


class _Sink:
    """Notes what it is told of each stream."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Stream]] = []

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        self.told.append(("events", stream))

    def on_suspect(self, stream: Stream) -> None:
        self.told.append(("suspect", stream))

    def on_reset(self, stream: Stream) -> None:
        self.told.append(("reset", stream))

    def on_refused(self, stream: Stream, reason: str) -> None:
        self.told.append(("refused", stream))


def _input(*streams: Stream) -> tuple[FeedInput[HoldingConnection], _Sink]:
    shards: Shards[HoldingConnection] = Shards(10)
    shards.place(streams, keeps_idle=False)
    sink = _Sink()
    health = StreamHealth(shards, AllWanted(), Hub(linger_s=0))
    feed_input = FeedInput(
        Venue.BINANCE, AllWanted(), shards, health=health, events=sink, order_books=sink, flush=lambda: None
    )
    return feed_input, sink


async def test_a_stream_that_is_not_wanted_any_more_is_forgotten_though_nothing_came(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The order book of a quiet pair has a snapshot, and is closed with the others; once."""
    feed_input, sink = _input(TRADE, DEPTH)
    connection = HoldingConnection()
    feed_input.on_held(connection, DEPTH)
    feed_input.on_events(TRADE, [trade(1)], Arrival(0, 0))
    assert sink.told == [("suspect", DEPTH), ("events", TRADE)]
    for _ in range(2):
        feed_input.forget([DEPTH])
    assert sink.told[2:] == [("reset", DEPTH)]
    feed_input.on_held(connection, TRADE)
    feed_input.forget([TRADE, DEPTH])
    assert sink.told[-1] == ("reset", TRADE)


async def test_a_frame_that_cannot_be_read_is_missing_from_its_stream(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An order book may be wrong from there on; of a stream that nobody wants nothing is missing."""
    feed_input, sink = _input(DEPTH)
    for stream in (DEPTH, TICKER, None):
        feed_input.on_unreadable(Unreadable("x", stream=stream))
    assert sink.told == [("suspect", DEPTH)]
    assert feed_input.counts.unreadable == 3
    assert len(caplog.records) == 1


async def test_refusals_in_masses_fill_no_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do their words."""
    feed_input, _ = _input(DEPTH)
    feed_input.on_refusals([Refusal(f"s{number}" + "x" * 1000, 2, "x" * 10_000) for number in range(1000)])
    assert 1 < len(caplog.records) < 50
    assert all(len(str(vars(record)["words"])) < 250 for record in caplog.records)
    assert all(len(str(vars(record)["stream"])) < 250 for record in caplog.records)
