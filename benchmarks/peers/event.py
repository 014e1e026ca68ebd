"""One trade as an event, the same bytes from every peer."""

from __future__ import annotations

import os
from typing import Final

SOURCE: Final = "KOMAS_BENCH_SOURCE"  # the variable that names the feeder's port
STORE: Final = "KOMAS_BENCH_STORE"  # the variable that names the port of a Redis, where it is that which is followed
CHANNEL: Final = "trades"  # in there
STREAM: Final = "/stream?streams=btcusdt@trade"


def source_url() -> str:
    """Where trades come from."""
    return f"ws://127.0.0.1:{os.environ[SOURCE]}{STREAM}"


def envelope(trade: dict[str, object]) -> str:
    """What komas sends, from what the exchange sent; made once for all subscribers."""
    return (
        f'{{"type":"trade","data":{{"type":"trade","symbol":"{trade["s"]}","trade_id":{trade["t"]},'
        f'"price":{trade["p"]},"quantity":{trade["q"]},"timestamp":{trade["E"]},"is_buyer_maker":true}},'
        '"timestamp":"2026-11-21T03:43:50.235Z"}'
    )
