"""What the web layer was handed: the components behind it, opened by ``komas.server``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version

import trio

from komas.hub.hub import Hub
from komas.observability.logs import DailyLog
from komas.observability.loop_lag import LoopLag
from komas.settings import Settings
from komas.signals.services import SignalServices
from komas.venues.core.door import RestDoor
from komas.web.access import Access
from komas.web.cluster import Cluster
from komas.web.commands import Commands
from komas.web.limits import ConnectionLimits
from komas.web.markets import Markets
from komas.web.multiplex import Greeting, OpenConnections
from komas.web.past_loader import PastLoader
from komas.web.stream_limits import StreamLimits
from komas.web.traffic import Traffic


@dataclass(frozen=True)
class Services:
    """Every component that a request can reach; ``clock_ms`` is the wall clock, milliseconds since the epoch."""

    settings: Settings
    access: Access
    hub: Hub
    markets: Markets
    limits: ConnectionLimits
    stream_limits: StreamLimits
    signals: SignalServices
    log: DailyLog
    clock_ms: Callable[[], int]
    past: PastLoader
    commands: Commands
    cluster: Cluster | None = None
    doors: Sequence[RestDoor] = ()
    loop_lag: LoopLag = field(default_factory=LoopLag)
    traffic: Traffic = field(default_factory=Traffic)
    connections: OpenConnections = field(default_factory=OpenConnections)
    stopping: trio.Event = field(default_factory=trio.Event)  # asked to: draining comes ``drain_delay_s`` later
    draining: trio.Event = field(default_factory=trio.Event)

    @cached_property
    def greeting(self) -> Greeting:
        """What readers of many streams hear of the server first; the version is read from a file."""
        return Greeting(self.settings.demo, version("komas"), self.hub.epoch)
