"""What the exchange says of its symbols: one copy for everybody, of which each is given what was asked for.

Spot's is nine megabytes, and any part of it weighs 20: four bots that asked for it on their own were banned for it
(binance-proxy#12).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.venues.core.json_array import NoArray, elements

_TIME: Final = re.compile(rb'("serverTime":\s*)\d+')
_HEAD_BYTES: Final = 2_000  # within which it stands


class _Listed(msgspec.Struct):
    """``{"symbol":"BTCUSDT",...}``."""

    symbol: str


_listed = msgspec.json.Decoder(_Listed)


class ExchangeInfo:
    """One copy, cut into its symbols; made by ``read()``."""

    def __init__(self, body: bytes, symbols: dict[str, bytes], begin: int, end: int) -> None:
        self._head, self._rest = body[:_HEAD_BYTES], body[_HEAD_BYTES:]
        self._tail = body[end:]
        self._symbols = symbols
        self._before = body[:begin]

    @classmethod
    async def read(cls, body: bytes) -> ExchangeInfo:
        """Cut a copy; others run in between. Raises ``VenueError`` for what is none."""
        symbols: dict[str, bytes] = {}
        begin = end = at = 0
        try:
            for element in elements(body, "symbols"):
                if not element:
                    await trio.lowlevel.checkpoint()
                    continue
                at = body.index(element, at)
                begin = begin or at
                end = at = at + len(element)
                symbols[_listed.decode(element).symbol] = element
        except (NoArray, msgspec.MsgspecError) as error:
            raise VenueError(f"exchangeInfo is not what komas can read: {error}", cause=Cause.PROTOCOL) from error
        return cls(body, symbols, begin, end)

    def whole(self, server_ms: int) -> tuple[bytes, bytes]:
        """All of it, with the exchange's present time: its beginning, and the rest, which all share."""
        return _timed(self._head, server_ms), self._rest

    def of(self, symbols: Iterable[str], server_ms: int) -> bytes | None:
        """Of these symbols, in the copy's order; ``None`` of none, and where one is not listed, or has been since."""
        wanted = set(symbols)
        if not wanted or not wanted <= self._symbols.keys():
            return None
        found = [text for name, text in self._symbols.items() if name in wanted]
        return _timed(self._before, server_ms) + b",".join(found) + self._tail


def _timed(head: bytes, server_ms: int) -> bytes:
    return _TIME.sub(rb"\g<1>%d" % server_ms, head, count=1)
