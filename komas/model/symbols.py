"""What an exchange says of a symbol. Sans-I/O."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class SymbolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol of one market.

    ``tick_size`` and ``step_size`` are the smallest steps of a price and of a quantity; ``volume_24h`` is in the quote
    asset. ``None`` where the exchange does not tell.
    """

    symbol: str
    status: str
    base: str
    quote: str
    tick_size: Decimal | None = None
    step_size: Decimal | None = None
    market: str
    volume_24h: Decimal | None = None
