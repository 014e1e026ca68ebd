"""Komas: Binance market streams to browsers over SSE, and to Python programs, on Trio."""

from __future__ import annotations

from komas.callbacks import BinanceWebSocket, CallbackError
from komas.client import open_binance
from komas.errors import CallerError, Dismissed, KomasError, VenueError
from komas.model.market import AggTrade, BookTicker, Depth, Gap, Kline, MiniTicker, Ticker, Trade

__all__ = [
    "AggTrade",
    "BinanceWebSocket",
    "BookTicker",
    "CallbackError",
    "CallerError",
    "Depth",
    "Dismissed",
    "Gap",
    "Kline",
    "KomasError",
    "MiniTicker",
    "Ticker",
    "Trade",
    "VenueError",
    "open_binance",
]
