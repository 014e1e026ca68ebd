"""What ``komas watch`` runs: a reader that puts records, and an output that takes them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import trio

from komas.cli.signals import why_unauthorized
from komas.cli.watch.depth_view import DepthView
from komas.cli.watch.frame import Title
from komas.cli.watch.market_reader import MarketRequest, read_market, with_symbols
from komas.cli.watch.options import OF_ONE, WITHOUT_SYMBOLS
from komas.cli.watch.rows import JsonLines, Rows, end_with_reader
from komas.cli.watch.safe_text import shown
from komas.cli.watch.screen import Screen
from komas.cli.watch.server import Put, check_address, shown_address
from komas.cli.watch.signals_reader import SignalRequest, read_signals
from komas.cli.watch.signals_view import SignalsView
from komas.cli.watch.status_reader import read_status
from komas.cli.watch.status_view import StatusView
from komas.cli.watch.surface import Surface, surface
from komas.cli.watch.views import KlinesView, PricesView, TradesView, View
from komas.errors import CallerError

SIGNALLED: Final = 128  # what shells add to the number of the signal that ended a program

Read: TypeAlias = Callable[[Put], Awaitable[None]]


def watch(options: argparse.Namespace) -> None:
    """Watch until a key, a signal or the end of whoever reads our output; raises ``CallerError`` for what cannot be."""
    where = surface(
        os.environ,
        is_terminal=sys.stdout.isatty(),
        is_foreground=_is_foreground(),
        wants_rows=options.json,
        color=options.color,
        encoding=sys.stdout.encoding,
    )
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text file has it
    trio.run(_watch, options, where)


def _is_foreground() -> bool:
    """Whether the terminal is ours: not behind ``komas watch ... &``."""
    if not hasattr(os, "tcgetpgrp"):
        return True
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except OSError:
        return True


async def _watch(options: argparse.Namespace, where: Surface) -> None:
    check_address(options.server)
    name, view, read = await _chosen(options, where)
    ended_by: list[int] = []
    async with trio.open_nursery() as nursery:

        def end() -> None:
            nursery.cancel_scope.cancel()

        nursery.start_soon(_end_on_signals, ended_by, end)
        if where.is_screen:
            with Screen(Title(name, shown_address(options.server)), view, where) as screen:
                async with trio.open_nursery() as inner:
                    inner.start_soon(read, screen.put)
                    await screen.run()
                    inner.cancel_scope.cancel()
        else:
            rows = Rows(view, sys.stdout, sys.stderr, has_color=where.has_color, greets=options.what == "signals")
            out = JsonLines(sys.stdout) if options.json else rows
            nursery.start_soon(end_with_reader, end)
            await read(out.put)
        end()
    if ended_by:
        sys.exit(SIGNALLED + ended_by[0])


async def _end_on_signals(ended_by: list[int], end: Callable[[], None]) -> None:
    """SIGINT is Python's own KeyboardInterrupt: it also ends a write to a terminal or a pipe that takes nothing."""
    names = ("SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    with trio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            ended_by.append(number)
            end()


async def _chosen(options: argparse.Namespace, where: Surface) -> tuple[str, View, Read]:
    """What the first line calls it, how it looks, and how it is read."""
    what, symbols = options.what, _symbols(options.symbols)
    if what in WITHOUT_SYMBOLS and symbols:
        raise CallerError(f"watch {what} takes no symbols; got {shown(symbols[0])}")
    if what in OF_ONE and len(symbols) > 1:
        raise CallerError(f"watch {what} takes one symbol, got {len(symbols)}; watch prices takes many")
    match what:
        case "signals":
            request = SignalRequest(options.token, options.since_id, options.type, options.coin, why_unauthorized)
            return what, SignalsView(), partial(read_signals, options.server, request)
        case "status":
            status = StatusView()
            return what, status, partial(read_status, options.server, status)
    asked = MarketRequest(what, symbols, options.interval, options.aggregate, is_screen=where.is_screen)
    asked = await with_symbols(options.server, asked)
    view: View = PricesView(asked.symbols)
    name = what
    if what != "prices":
        view = KlinesView() if what == "klines" else TradesView() if what == "trades" else DepthView()
        name = f"{what} {shown(asked.symbols[0])}" + (f" {asked.interval}" if what == "klines" else "")
    return name, view, partial(read_market, options.server, asked)


def _symbols(words: list[str]) -> tuple[str, ...]:
    """Symbols as people write them: with commas, spaces or both."""
    names = [name.strip().upper() for word in words for name in word.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))
