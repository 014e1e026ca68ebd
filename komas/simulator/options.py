"""What can be asked of the simulator, and what it hands over once it listens."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec

from komas.errors import CallerError

SYMBOL = re.compile(r"\w{2,40}")
PORTS = 65_536


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange's rules, each of which a test may move. Times are seconds."""

    ping_s: float = 20.0  # since 2025-02; 180 s before
    pong_s: float = 60.0
    life_s: float = 86_400.0
    messages: int = 5  # in each rolling second, pings and pongs included
    streams: int = 1024
    dials: int = 300  # in five minutes, from one address
    subscribe_bytes: int = 8_192  # 436 names passed and 437 were lost (ccxws#161, 2020)
    weight: int = 6_000  # a minute, from one address
    outbox_bytes: int = 8 << 20  # a reader that lets more than this pile up is cut off
    drop_slow: bool = True  # false: the slowest reader holds the market up
    flat_errors: bool = False  # the documented shape of error replies, where the wire nests them
    strict_names: bool = False  # refuse what the exchange acknowledges and then ignores
    database_lag_ms: int = 0  # how far REST aggTrades and klines trail the streams


class SimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to simulate; ``speed`` is a factor, infinity means as fast as the readers take it."""

    bind: str = "127.0.0.1:9443"
    replay: tuple[Path, ...] = ()
    speed: float = 1.0
    loop: bool = False
    seed: int = 1
    symbols: tuple[str, ...] = (
        "BTCUSDT",
        "ETHUSDT",
        "BNBUSDT",
        "SOLUSDT",
        "XRPUSDT",
        "DOGEUSDT",
        "币安人生USDT",
        "BIFIUSDT",
    )
    script: Path | None = None
    control: bool = True
    limits: Limits = Limits()


class Simulator(msgspec.Struct, frozen=True):
    """Where the simulator listens."""

    host: str
    port: int

    @property
    def ws_url(self) -> str:
        """The WebSocket base; ``/ws`` and ``/stream`` follow it."""
        return f"ws://{self.host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """The REST base; ``/api/v3`` follows it."""
        return f"http://{self.host}:{self.port}"


def checked(options: SimOptions) -> tuple[str, int]:
    """Host and port of the options, once they all make sense; ``CallerError`` names the one that does not."""
    if math.isnan(options.speed) or options.speed <= 0:
        raise CallerError(f"speed: {options.speed} given, accepted is a number above 0, or inf", field="speed")
    if not options.replay and not options.symbols:
        raise CallerError("symbols: none given, accepted is at least one, such as BTCUSDT", field="symbols")
    for symbol in options.symbols:
        if not SYMBOL.fullmatch(symbol) or symbol != symbol.upper():
            raise CallerError(
                f"symbols: {symbol!r} given, accepted are upper-case names such as BTCUSDT", field="symbols"
            )
    return bound(options.bind)


def bound(bind: str) -> tuple[str, int]:
    """Host and port; an IPv6 host stands in brackets."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) >= PORTS:
        raise CallerError(f"bind: {bind!r} given, accepted is HOST:PORT such as 127.0.0.1:9443", field="bind")
    return host.removeprefix("[").removesuffix("]"), int(port)
