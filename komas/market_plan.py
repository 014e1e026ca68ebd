"""How one of the exchange's markets is opened, by a process of its own or by whichever of many leads."""

from __future__ import annotations

from collections.abc import Callable

from komas.model.streams import Stream
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.market import MarketOptions


class MarketPlan:
    """How one market is opened: ``options`` makes its options of what is to be told of acknowledged streams."""

    def __init__(
        self, spec: MarketSpec, url: str, rest_url: str, options: Callable[[Callable[[Stream], None]], MarketOptions]
    ) -> None:
        self.spec = spec
        self.url = url
        self.rest_url = rest_url
        self.options = options
