"""Past candles for connections that want them before those that are live; run beside the markets.

A stream whose past is loaded is attached to its subscription together with it. Candles are asked for once the exchange
has acknowledged the stream: one that closes after that comes live, and one that closed before it is in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from komas.errors import VenueError
from komas.hub.hub import Hub
from komas.hub.multiplex import MultiplexedSubscription
from komas.model.kinds import Kind
from komas.model.market import Kline
from komas.model.streams import Stream
from komas.web.markets import Markets

TRIES: Final = 3
LATER_S: Final = 1.0  # an exchange's REST may be a moment behind its streams


def with_past(streams: Iterable[Stream], candles: int) -> tuple[Stream, ...]:
    """Those of the streams that begin with so many past candles, where any are asked for."""
    return tuple(stream for stream in streams if candles and stream.kind is Kind.KLINE)


class PastLoader:
    """Loads in a task of its own for each stream; ``run()`` it for as long as connections are served."""

    def __init__(self, hub: Hub, markets: Markets, clock_ms: Callable[[], int], wait_s: float) -> None:
        """``wait_s`` is how long the exchange may take to acknowledge a stream."""
        self._hub = hub
        self._markets = markets
        self._clock_ms = clock_ms
        self._wait_s = wait_s
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Load until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def load(self, subscription: MultiplexedSubscription, streams: Sequence[Stream], count: int, reader: str) -> None:
        """Give a subscription the last ``count`` candles of some of its streams, and attach these."""
        for stream in streams:
            if self._nursery is None:
                subscription.add_past(stream, (), self._clock_ms(), "the server is not ready")
            else:
                self._nursery.start_soon(self._load, subscription, stream, count, reader, name="past candles")

    async def _load(self, subscription: MultiplexedSubscription, stream: Stream, count: int, reader: str) -> None:
        candles: list[Kline] = []
        failure: str | None = None
        try:
            await self._acknowledged(stream)
            for _ in range(TRIES):
                if not subscription.awaits_past(stream):
                    return
                candles = await self._candles(stream, count, reader)
                if self._hub.joins(stream, candles):
                    break
                await trio.sleep(LATER_S)
            else:
                failure = "the exchange's past candles are behind its live ones"
        except VenueError as error:
            failure = f"no past candles: {error}"
        subscription.add_past(stream, candles, self._clock_ms(), failure)

    async def _acknowledged(self, stream: Stream) -> None:
        with trio.move_on_after(self._wait_s):
            await self._markets.of(stream).feed.acknowledged([stream])

    async def _candles(self, stream: Stream, count: int, reader: str) -> list[Kline]:
        past = self._markets.of(stream).past
        found = await past.latest(stream, count, reader=reader, asked_after=trio.current_time())
        return [candle for candle in found if isinstance(candle, Kline)]
