"""The simulator as a server: a listener in front of an exchange."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import trio

from komas.errors import CallerError
from komas.sim.exchange import Exchange
from komas.sim.options import Limits, SimOptions, Simulator, checked
from komas.sim.player import Player, ReplayPlayer, SyntheticPlayer
from komas.sim.replay import read_captures

__all__ = ["Limits", "SimOptions", "Simulator", "make_player", "simulate"]

MS = 1_000


def make_player(options: SimOptions, wall: Callable[[], float]) -> Player:
    """What plays the market: the captures where there are any."""
    if options.replay:
        return ReplayPlayer(read_captures(options.replay), loop=options.loop)
    return SyntheticPlayer(options.symbols, options.seed, int(wall() * MS))


async def simulate(
    options: SimOptions,
    *,
    wall: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[Simulator] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Simulate the exchange until cancelled; ``started`` hands over a ``Simulator`` once connections are accepted.

    ``CallerError`` names an option that cannot be used. ``wall`` is the clock that a synthetic market starts at.
    """
    host, port = checked(options)
    exchange = Exchange(options, make_player(options, wall), wall=wall)
    listeners = await _listen(host, port)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.play, name="tape")
        await nursery.start(partial(trio.serve_listeners, exchange.accept, listeners, handler_nursery=nursery))
        task_status.started(Simulator(f"[{host}]" if ":" in host else host, port))


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as fault:
        raise CallerError(f"bind: {host}:{port} cannot be bound: {fault}", field="bind") from fault
