"""What komas itself makes of the exchange: its event streams of books and trades, in the digits that they have."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable

import httpx
import httpx_sse

from tests.conformance.clients.lines import remark, show

TRADE = ("trade_id", "price", "quantity", "timestamp", "is_buyer_maker")


def read(url: str, row: Callable[[dict[str, object]], list[object]]) -> None:
    """Print what comes, for ever."""
    with httpx.Client(timeout=None) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            if event.event == "message":
                show(*row(json.loads(event.data, parse_float=str)["data"]))
            else:
                remark(f"{event.event}: {event.data}")


def main(url: str, *symbols: str) -> None:
    """Read the symbols until somebody ends it."""
    for symbol in symbols:
        for target, row in (
            (f"depth?symbol={symbol}&limit=100", lambda told: ["book", *_book(told)]),
            (f"trades?symbol={symbol}", lambda told: ["trade", told["symbol"], *(told[key] for key in TRADE)]),
        ):
            threading.Thread(target=read, args=(f"{url}/api/ws/sse/{target}", row)).start()


def _book(told: dict[str, object]) -> list[object]:
    return [told[key] for key in ("symbol", "update_id", "bids", "asks")]


main(*sys.argv[1:])
