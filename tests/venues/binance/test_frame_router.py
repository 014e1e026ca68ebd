"""One read of the exchange, taken apart in pieces that nobody else has to wait for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from komas.model.kinds import Kind, Venue
from komas.model.market import Incoming
from komas.model.streams import Stream
from komas.venues.binance.frame_router import AT_ONCE, FrameRouter
from komas.venues.binance.protocol import SubscriptionProtocol
from komas.venues.binance.subscriptions import Subscriptions
from komas.venues.core.connection import Arrival, Connection, Refusal
from komas.venues.core.held_streams import HeldMemory
from komas.venues.core.ports import Unreadable
from tests.builders import trade_frame
from tests.venues.holders import HoldingConnection


class _Sink:
    """Counts what it is given, and how often it is asked where to wait for news."""

    def __init__(self) -> None:
        self.given: list[Stream] = []
        self.unreadable = 0
        self.blamed: list[Stream | None] = []
        self.refused: list[Refusal] = []
        self.woken = 0
        self._news = trio.lowlevel.ParkingLot()

    @property
    def news(self) -> trio.lowlevel.ParkingLot:
        self.woken += 1
        return self._news

    def on_events(self, stream: Stream, events: Sequence[Incoming], arrival: Arrival) -> None:
        self.given += [stream] * len(events)

    def on_read(self, frames: int, received_ms: int) -> None:
        raise AssertionError

    def on_held(self, connection: Connection, stream: Stream) -> None:
        """Not looked at."""

    def on_silent(self, connection: Connection, stream: Stream) -> None:
        raise AssertionError

    def on_refusals(self, refusals: Sequence[Refusal]) -> None:
        self.refused += refusals

    def on_unknown(self) -> None:
        self.unreadable += 1

    def on_unreadable(self, error: Unreadable) -> None:
        self.unreadable += 1
        self.blamed.append(error.stream)


def _router(streams: Sequence[Stream]) -> tuple[FrameRouter, _Sink]:
    sink = _Sink()
    protocol = SubscriptionProtocol()
    protocol.open_with([stream.name for stream in streams])
    subscriptions = Subscriptions(
        HoldingConnection(), sink, lambda: {stream.name: stream for stream in streams}, protocol, HeldMemory()
    )
    return FrameRouter(Venue.BINANCE, sink, subscriptions, lambda _reason: None), sink


def _frame(stream: Stream, number: int) -> bytes:
    return trade_frame(number).replace("btcusdt", stream.symbol.lower()).replace("BTCUSDT", stream.symbol).encode()


async def test_a_read_with_many_streams_comes_in_pieces(autojump_clock: trio.testing.MockClock) -> None:
    """Each of them may be an order book; the frames of one stream stay together, in their order."""
    streams = [Stream(Kind.TRADE, f"S{number}USDT") for number in range(5 * AT_ONCE)]
    router, sink = _router(streams)
    for _ in router.take([_frame(stream, 1) for stream in streams], Arrival(0, 0)):
        pass
    sink.given.clear()
    frames = [_frame(stream, number) for number in (2, 3) for stream in streams]
    taken = [len(sink.given) for _ in router.take(frames, Arrival(0, 0))]
    assert taken == [2 * AT_ONCE * piece for piece in range(1, 5)]
    assert sink.given == [stream for stream in streams for _ in range(2)]
    assert router.frames == 15 * AT_ONCE


@pytest.mark.parametrize("frame", [b"x", b"{}", b'{"stream":"x@y"}', b'{"result":null,"id":7}', b'{"code":2,"id":7}'])
async def test_a_read_of_thousands_of_tiny_frames_comes_in_pieces(
    frame: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """What is no answer to a question of ours costs as little as garbage, however many streams are held."""
    streams = [Stream(Kind.TRADE, f"S{number}USDT") for number in range(200)]
    router, sink = _router(streams)
    pieces = sum(1 for _ in router.take([frame] * 20_000, Arrival(0, 0)))
    assert pieces >= 20_000 // AT_ONCE
    assert sink.woken == 0
    assert sink.refused == []


async def test_the_first_frame_of_a_stream_that_cannot_be_read_is_missing_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its name is among what can be read; where it is not, nobody is to blame."""
    stream = Stream(Kind.TRADE, "BTCUSDT")
    router, sink = _router([stream])
    broken = [_frame(stream, 1)[:60], b'{"stream":"nonsense@x","data', b"{", b'{"stream":"']
    for _ in router.take(broken, Arrival(0, 0)):
        pass
    assert sink.blamed == [stream, None, None, None]
