"""What the edge was handed: the rooms behind it, opened by ``komas.server``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from komas.edge.doors import Doors
from komas.hub.hub import Hub
from komas.settings import Settings
from komas.signals.rooms import SignalRooms
from komas.telemetry.log import DailyLog
from komas.venues.binance.backfill import Backfill
from komas.venues.binance.books import Books
from komas.venues.binance.feed import BinanceFeed
from komas.venues.binance.listings import Listings
from komas.venues.binance.universe import Universe


@dataclass(frozen=True)
class Rooms:
    """Every room that a request can reach; ``clock_ms`` is the wall clock, milliseconds since the epoch."""

    settings: Settings
    hub: Hub
    feed: BinanceFeed
    backfill: Backfill
    books: Books
    listings: Listings
    universe: Universe
    doors: Doors
    signals: SignalRooms
    log: DailyLog
    clock_ms: Callable[[], int]
    draining: trio.Event = field(default_factory=trio.Event)
