"""A way between two processes that can be cut: a TCP port in front of another."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import trio

LOCAL: Final = "127.0.0.1"
CHUNK: Final = 2**16


class Way(StrEnum):
    """Which way bytes go: to the server, or back."""

    THERE = "there"
    BACK = "back"


class Forwarder:
    """Forwards connections at a port of ``host`` to ``target``, a port of ``target_host``; ``run()`` it.

    A ``held`` way delivers nothing until it is free again, and then what was sent meanwhile, as TCP does: also of who
    has hung up since. ``refuses`` is a port at which nobody listens.
    """

    def __init__(self, target: int, *, host: str = LOCAL, target_host: str = LOCAL, port: int = 0) -> None:
        self.target = target
        self.host = host
        self.port = port
        self._target_host = target_host
        self.refuses = False
        self._held: set[Way] = set()
        self._freed = trio.lowlevel.ParkingLot()
        self._open: set[trio.CancelScope] = set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward until cancelled."""
        listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as connections:
            task_status.started()
            await trio.serve_listeners(self._forward, listeners, handler_nursery=connections)

    def hold(self, *ways: Way) -> None:
        """Deliver nothing these ways."""
        self._held |= set(ways)

    def free(self) -> None:
        """Deliver everything again."""
        self._held.clear()
        self._freed.unpark_all()

    def cut(self) -> None:
        """End every connection; what is on its way is lost."""
        for scope in list(self._open):
            scope.cancel("cut")

    async def _passes(self, way: Way) -> None:
        while way in self._held:
            await self._freed.park()

    async def _forward(self, here: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with here:
                    await self._passes(Way.THERE)
                    if not self.refuses:
                        async with await trio.open_tcp_stream(self._target_host, self.target) as there:
                            await self._pump_both(here, there)
            except OSError:
                pass
            finally:
                self._open.discard(scope)

    async def _pump_both(self, here: trio.SocketStream, there: trio.SocketStream) -> None:
        async with trio.open_nursery() as pumps:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream, way: Way) -> None:
                try:
                    while data := await source.receive_some(CHUNK):
                        await self._passes(way)
                        await sink.send_all(data)
                    await self._passes(way)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                pumps.cancel_scope.cancel("one end has closed")

            pumps.start_soon(pump, here, there, Way.THERE)
            pumps.start_soon(pump, there, here, Way.BACK)
