"""Which symbols somebody may mean: exact names first, then those that begin so, then by what is traded most."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec
import trio

from komas.errors import VenueError
from komas.event_log import event_logger
from komas.model.symbols import SymbolInfo
from komas.venues.binance.listings import TRADING, Listings
from komas.venues.core.complaints import Complaints
from komas.venues.core.rest import Rest

log = event_logger(__name__)

FRESH_S: Final = 300.0  # volumes are of a day: some minutes make no difference to an order
RETRY_S: Final = 60.0
_BYTES: Final = 2**22  # of all symbols, four times what spot answers (2026)
_NONE: Final = Decimal(0)


class _Volume(msgspec.Struct):
    """``[{"symbol":"BTCUSDT","quoteVolume":"1234.5",...}]``: one row."""

    symbol: str
    quoteVolume: Decimal  # noqa: N815 - the exchange's key


class SymbolSearch:
    """Search over the symbols of one market."""

    def __init__(self, rest: Rest, listings: Listings, volumes_path: str) -> None:
        self._rest = rest
        self._listings = listings
        self._path = volumes_path
        self._volumes: dict[str, Decimal] = {}
        self._fresh_until = -1.0
        self._asking = trio.Lock()
        self._complaints = Complaints(log)

    async def find(self, query: str, limit: int) -> list[SymbolInfo]:
        """Up to ``limit`` symbols whose name, base or quote has ``query``; without one, those that are traded most.

        Symbols that do not trade come last. Volumes are ``None`` where the exchange does not tell them.
        """
        await self._listings.answered()
        await self._refresh()
        wanted = query.upper()
        found = [info for info in self._listings.all() if wanted in info.symbol]
        found.sort(key=lambda info: self._rank(wanted, info))
        return [msgspec.structs.replace(info, volume_24h=self._volumes.get(info.symbol)) for info in found[:limit]]

    def _rank(self, wanted: str, info: SymbolInfo) -> tuple[object, ...]:
        is_inside = not info.symbol.startswith(wanted)
        return (
            info.symbol != wanted,
            info.status != TRADING,
            info.base != wanted,
            is_inside,
            -self._volumes.get(info.symbol, _NONE),
            info.symbol,
        )

    async def _refresh(self) -> None:
        """Ask for the volumes where they are old; without an answer the old ones are good enough."""
        async with self._asking:
            if trio.current_time() < self._fresh_until or not self._rest.has_room:
                return
            try:
                rows = await self._rest.get(self._path, list[_Volume], most_bytes=_BYTES)
            except VenueError as error:
                self._complaints.warning("volumes not known", asked=self._path, reason=str(error))
                self._fresh_until = trio.current_time() + RETRY_S
                return
            self._volumes = {row.symbol: row.quoteVolume for row in rows if row.quoteVolume.is_finite()}
            self._fresh_until = trio.current_time() + FRESH_S
