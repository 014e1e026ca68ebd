"""Komas: Binance market streams to browsers over SSE, and to Python programs, on Trio."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from komas.client.callbacks import BinanceWebSocket, CallbackError
    from komas.client.streams import open_binance
    from komas.errors import CallerError, KomasError, SlowConsumer, VenueError
    from komas.model.market import (
        AggTrade,
        AvgPrice,
        BookTicker,
        Depth,
        FeedState,
        Gap,
        Kline,
        MarkPrice,
        MiniTicker,
        Ticker,
        Trade,
    )
    from komas.venues.core.retry import RetryPolicy

__all__ = [
    "AggTrade",
    "AvgPrice",
    "BinanceWebSocket",
    "BookTicker",
    "CallbackError",
    "CallerError",
    "Depth",
    "FeedState",
    "Gap",
    "Kline",
    "KomasError",
    "MarkPrice",
    "MiniTicker",
    "RetryPolicy",
    "SlowConsumer",
    "Ticker",
    "Trade",
    "VenueError",
    "open_binance",
]

# Loaded when they are asked for (PEP 562): a server, and a command's --help, have no use for a client.
_SUBMODULES: Final = ("client", "errors", "model")
_NAMES: Final = {
    "komas.client.callbacks": ("BinanceWebSocket", "CallbackError"),
    "komas.client.streams": ("open_binance",),
    "komas.errors": ("CallerError", "SlowConsumer", "KomasError", "VenueError"),
    "komas.model.market": (
        "AggTrade",
        "AvgPrice",
        "BookTicker",
        "Depth",
        "FeedState",
        "Gap",
        "Kline",
        "MarkPrice",
        "MiniTicker",
        "Ticker",
        "Trade",
    ),
    "komas.venues.core.retry": ("RetryPolicy",),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        for place, names in _NAMES.items():
            if name in names:
                globals()[name] = getattr(import_module(place), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*_SUBMODULES, *__all__]
