"""What the web layer was handed: the components behind it, opened by ``komas.server``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from komas.hub.hub import Hub
from komas.model.kinds import KINDS, SPOT
from komas.model.streams import Stream
from komas.observability.logs import DailyLog
from komas.settings import Settings
from komas.signals.services import SignalServices
from komas.venues.binance.feed import BinanceFeed
from komas.venues.binance.market import BinanceMarket
from komas.web.access import Access
from komas.web.limits import ConnectionLimits


@dataclass(frozen=True)
class Services:
    """Every component that a request can reach; ``clock_ms`` is the wall clock, milliseconds since the epoch."""

    settings: Settings
    access: Access
    hub: Hub
    spot: BinanceMarket
    futures: BinanceMarket
    limits: ConnectionLimits
    signals: SignalServices
    log: DailyLog
    clock_ms: Callable[[], int]
    draining: trio.Event = field(default_factory=trio.Event)

    @property
    def feed(self) -> BinanceFeed:
        """The spot market's feed."""
        return self.spot.feed

    @property
    def lines(self) -> tuple[BinanceMarket, BinanceMarket]:
        """Both markets."""
        return self.spot, self.futures

    def line_of(self, stream: Stream) -> BinanceMarket:
        """The market that a stream belongs to."""
        return self.spot if KINDS[stream.kind].market == SPOT else self.futures

    def connect(self) -> None:
        """Ask for the connections of both markets; futures have none while none of their streams is wanted."""
        for line in self.lines:
            line.feed.connect()

    def disconnect(self) -> None:
        """Let the connections of both markets go."""
        for line in self.lines:
            line.feed.disconnect()
