"""The simulator as a server: a listener in front of an exchange."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from komas.errors import CallerError
from komas.simulator.exchange import Exchange
from komas.simulator.fault_script import read_script
from komas.simulator.options import Limits, SimOptions, Simulator, checked
from komas.simulator.player import Player, ReplayPlayer, SyntheticPlayer
from komas.simulator.replay import Report, read_captures, silent

__all__ = ["Limits", "SimOptions", "Simulator", "make_player", "simulate"]

MS = 1_000


def make_player(options: SimOptions, wall: Callable[[], float], report: Report = silent) -> Player:
    """What plays the market: the captures where there are any."""
    if options.replay:
        return ReplayPlayer(read_captures(options.replay, report), loop=options.loop, report=report)
    return SyntheticPlayer(options.symbols, options.seed, int(wall() * MS))


async def simulate(
    options: SimOptions,
    *,
    wall: Callable[[], float] = time.time,
    report: Report = silent,
    task_status: trio.TaskStatus[Simulator] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Simulate the exchange until cancelled; ``started`` hands over a ``Simulator`` once connections are accepted.

    ``CallerError`` names an option that cannot be used. ``wall`` is the clock that a synthetic market starts at,
    ``report`` is told how far reading and playing a capture is.
    """
    host, port = checked(options)
    faults = read_script(options.script) if options.script else ()
    exchange = Exchange(options, make_player(options, wall, report), faults, wall=wall)
    listeners = await _open(host, port)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run, name="exchange")
        nursery.start_soon(_listen, exchange, listeners, host, port, name="listener")
        task_status.started(Simulator(f"[{host}]" if ":" in host else host, port))


async def _listen(exchange: Exchange, listeners: list[trio.SocketListener], host: str, port: int) -> None:
    """Listen for ever on one port, but for outages."""
    async with trio.open_nursery() as handlers:
        while True:
            with trio.CancelScope() as exchange.listening:
                await trio.serve_listeners(exchange.accept, listeners, handler_nursery=handlers)
            await trio.sleep(exchange.outage_s)
            listeners = await _open(host, port)


async def _open(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as fault:
        raise CallerError(f"bind: {host}:{port} cannot be bound: {fault}", field="bind") from fault
