"""Every attack by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tests.hostile import hostile_exchanges, market_clients, signal_clients
from tests.hostile.exchange import Exchange
from tests.hostile.target import Found, Target

Client = Callable[[Target, Found], Awaitable[None]]

CLIENTS: Final[dict[str, Client]] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        market_clients.lingering_streams,
        market_clients.many_books,
        market_clients.books_of_one_address,
        market_clients.unread_prices,
        market_clients.streams_in_a_loop,
        market_clients.trades_of_many_symbols,
        market_clients.unread_replays,
        signal_clients.unread_signals,
        signal_clients.vip_that_floods,
        signal_clients.old_since_id,
        market_clients.idle_connections,
    )
}
EXCHANGES: Final[dict[str, type[Exchange]]] = {
    "honest": Exchange,
    "wide-depth": hostile_exchanges.WideDepth,
    "fairly-wide-depth": hostile_exchanges.FairlyWideDepth,
    "gzip-bomb": hostile_exchanges.GzipBomb,
    "million-symbols": hostile_exchanges.MillionSymbols,
    "jumping-ids": hostile_exchanges.JumpingIds,
    "long-price": hostile_exchanges.LongPrice,
    "fairly-long-price": hostile_exchanges.FairlyLongPrice,
    "dripping-rest": hostile_exchanges.DrippingRest,
    "banned-in-the-body": hostile_exchanges.BannedInTheBody,
    "old-snapshot": hostile_exchanges.OldSnapshot,
    "long-levels": hostile_exchanges.LongLevels,
    "quiet-depth": hostile_exchanges.QuietDepth,
}


def summary(name: str) -> str:
    """What an attack does, in one line."""
    return ((CLIENTS.get(name) or EXCHANGES[name]).__doc__ or "").strip().split("\n")[0]
