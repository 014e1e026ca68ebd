"""Binance's hosts, and which of them belong together (binance-spot-api-docs and the derivatives' docs, 2026-07-21)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from komas.errors import CallerError
from komas.model.kinds import Venue
from komas.venues.core.websocket import check_url

SPOT_STREAM: Final = "wss://stream.binance.com:9443"
USDM_STREAM: Final = "wss://fstream.binance.com"

_REST: Final = {
    "stream.binance.com": "https://api.binance.com",
    "data-stream.binance.vision": "https://data-api.binance.vision",
    "stream.testnet.binance.vision": "https://testnet.binance.vision",
    "demo-stream.binance.com": "https://demo-api.binance.com",
    "stream.binance.us": "https://api.binance.us",
    "fstream.binance.com": "https://fapi.binance.com",
    "demo-fstream.binance.com": "https://demo-fapi.binance.com",
    "fstream.binancefuture.com": "https://testnet.binancefuture.com",
}
_USDM: Final = {
    "stream.testnet.binance.vision": "wss://fstream.binancefuture.com",
    "demo-stream.binance.com": "wss://demo-fstream.binance.com",
}


class Hosts(msgspec.Struct, frozen=True):
    """The stream host and the REST host of one market; empty where nothing was said."""

    stream: str = ""
    rest: str = ""


def complete(given: dict[Venue, Hosts]) -> dict[Venue, Hosts]:
    """The hosts of every market: those that were given, and for the others those that belong to them."""
    spot = given[Venue.BINANCE].stream or SPOT_STREAM
    streams = {
        Venue.BINANCE: spot,
        Venue.BINANCE_USDM: given[Venue.BINANCE_USDM].stream or usdm_beside(spot),
    }
    return {venue: Hosts(stream, given[venue].rest or rest_beside(stream)) for venue, stream in streams.items()}


def rest_beside(stream: str) -> str:
    """The REST host that belongs to a stream host; an exchange double serves both on one port."""
    parts = urlsplit(stream)
    known = _REST.get(parts.hostname or "")
    return known or f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


def usdm_beside(stream: str) -> str:
    """The stream host of USD-M futures that belongs to one of spot; a double serves all on one port."""
    host = urlsplit(stream).hostname or ""
    return _USDM.get(host, USDM_STREAM) if host in _REST else stream


def check_base(url: str) -> None:
    """Raise ``CallerError`` for what is no stream host: its path is the market's to name."""
    check_url(url)
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        accepted = "ws://host:port or wss://host:port, without a path"
        raise CallerError(f"{url!r} is not a WebSocket address; accepted: {accepted}")
