"""The options of ``komas watch``; what is wrong with them is said with what was meant."""

from __future__ import annotations

import argparse
import os
import re
from typing import Final

from komas.cli.watch.surface import COLORS
from komas.model.streams import INTERVALS

VIEWS: Final = ("prices", "klines", "trades", "depth", "signals", "status")
OF_ONE: Final = frozenset({"klines", "trades", "depth"})
WITHOUT_SYMBOLS: Final = frozenset({"signals", "status"})
_AMOUNT: Final = re.compile(r"(\d{1,6}) ?([A-Za-z]+)")
_UNITS: Final = {"s": "s", "m": "m", "h": "h", "d": "d", "w": "w", "mo": "M"}


def add_watch(parser: argparse.ArgumentParser) -> None:
    """``komas watch``."""
    parser.add_argument("what", type=_view, metavar="|".join(VIEWS), help="what to watch")
    parser.add_argument(
        "symbols",
        nargs="*",
        default=[],
        metavar="BTCUSDT",
        help="prices: symbols; klines, trades and depth: one; others: none",
    )
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address of a komas server")
    parser.add_argument("--interval", type=read_interval, default="1m", metavar="1m", help="of candles")
    parser.add_argument("--aggregate", action="store_true", help="aggregate trades instead of single ones")
    parser.add_argument("--token", default=os.environ.get("KOMAS_TOKEN", ""), help="a VIP's, for signals")
    parser.add_argument("--since-id", default="", metavar="N", help="signals: begin with what came after this one")
    parser.add_argument("--type", default="", metavar="A,B", help="signals: of these types alone")
    parser.add_argument("--coin", default="", metavar="BTC,ETH", help="signals: of these coins alone")
    parser.add_argument("--json", action="store_true", help="each event and notice as a line of JSON, in one format")
    parser.add_argument("--color", choices=COLORS, default="auto", help="else on terminals, unless NO_COLOR is set")
    parser.set_defaults(run=_watch)


def _watch(options: argparse.Namespace) -> None:
    from komas.cli.watch.verb import watch  # what it needs takes longer to load than all the other verbs together

    watch(options)


def _view(text: str) -> str:
    if text in VIEWS:
        return text
    is_symbol = text.isalnum() and text.isupper()
    hint = f"did you mean komas watch prices {text[:40]}?" if is_symbol else f"choose from {' '.join(VIEWS)}"
    raise argparse.ArgumentTypeError(f"invalid choice: {text[:40]!r}; {hint}")


def read_interval(text: str) -> str:
    """An interval of candles; raises ``ArgumentTypeError``, with the one that is as long as what was written."""
    if text in INTERVALS:
        return text
    meant = _meant(text)
    hint = f"did you mean {meant}? " if meant else ""
    raise argparse.ArgumentTypeError(f"got {text[:40]!r}; {hint}accepted: {' '.join(INTERVALS)}")


def _meant(text: str) -> str | None:
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        return None
    word = found[2].lower()
    unit = _UNITS["mo"] if word.startswith("mo") else _UNITS.get(word[0])
    length_ms = INTERVALS.get(f"1{unit}")
    if length_ms is None:
        return None
    return next((name for name, each in INTERVALS.items() if each == int(found[1]) * length_ms), None)
