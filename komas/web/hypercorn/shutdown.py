"""One run of the server under Hypercorn, and how it stops.

Hypercorn does not tell an application that it has begun to stop, and can be asked to stop only by the
``shutdown_trigger`` of ``serve()``, which the stock command does not give away. Here ``stop()`` works under both
commands, and ``draining`` is set when the shutdown begins. Nor can Hypercorn go on listening for a while, until every
balancer has learnt that this server is about to go.

Replaces: ``raise_shutdown``, as ``hypercorn.trio.run`` knows it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/e2e/test_signals.py::test_a_drain_is_1001_also_beside_those_who_do_not_read
    tests/e2e/test_line.py::test_it_stops_whatever_clients_do
    tests/e2e/test_line.py::test_who_comes_within_the_drain_delay_is_served
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol

import trio
from hypercorn.utils import ShutdownError

from komas.observability.logs import LogLimit
from komas.settings import Settings
from komas.web.hypercorn import places
from komas.web.socket_file import SocketFile

log = logging.getLogger(__name__)

COMPLAIN_EVERY_S: Final = 10.0
HURRIED_DEADLINE_S: Final = 1.0
LAST_WRITE_S: Final = 0.1  # once the time for draining is over: a client that reads at once still gets it


class Served(places.Connection, Protocol):
    """One client's connection, as a server that stops sees it."""

    def hurry(self) -> None:
        """Give what it is doing little more time."""


class Run:
    """One run of the server under Hypercorn: what its connections share, and how it is stopped."""

    def __init__(self, settings: Settings) -> None:
        """It still serves for ``drain_delay_s``, also who comes anew, after it was asked to stop."""
        self.places: places.Places[Served] = places.Places(
            settings.connections, settings.connections_per_address, settings.trusted_proxies
        )
        self.is_exposed: bool | None = None  # whether anything is bound beyond loopback, once a connection has come
        self.socket_files: list[SocketFile] = []
        self.cut_off = 0  # connections whose clients did not take a write in time
        self.stopping = trio.Event()
        self.draining = trio.Event()
        self._drain_delay_s = settings.drain_delay_s
        self._draining_since = math.inf
        self._log_limit = LogLimit(COMPLAIN_EVERY_S)
        self._refusal_log = LogLimit()
        self._crashes = 0

    def stop(self, cause: str) -> None:
        """Ask Hypercorn to stop, as its own ``shutdown_trigger`` does; ``cause`` is for the log."""
        log.info("stopping", extra={"signal": cause, "drain_delay_s": self._drain_delay_s})
        self.stopping.set()

    def drain(self) -> None:
        """Hypercorn has begun to stop: hurry the writes that are under way."""
        if not self.draining.is_set():
            self._draining_since = trio.current_time()
            self.stopping.set()
            self.draining.set()
            for connection in self.places:
                connection.hurry()

    def remove_socket_files(self) -> None:
        """Nobody listens any more: a client of a Unix socket is told so by its absence."""
        while self.socket_files:
            self.socket_files.pop().remove()

    def deadline(self, seconds: float, grace_s: float) -> float:
        """When what may take so long is given up; while the server drains, no later than that may take, or hardly."""
        now = trio.current_time()
        if not self.draining.is_set():
            return now + seconds
        last = max(self._draining_since + grace_s, now + LAST_WRITE_S)
        return min(now + min(seconds, HURRIED_DEADLINE_S), last)

    def complain(self, error: BaseException) -> None:
        """Log that a connection failed; how often that happens is for its client to say, so there is a limit."""
        self._crashes += 1
        if self._log_limit.due(trio.current_time()) is not None:
            log.error("connection failed", exc_info=error, extra={"failed_in_all": self._crashes})

    def refuse(self, reason: str) -> None:
        """Log that a connection was refused, at times."""
        if (left_out := self._refusal_log.due(trio.current_time())) is not None:
            refused = self.places.statistics().refused
            log.warning("connection refused: %s", reason, extra={"refused": refused, "not_logged": left_out})

    async def raise_shutdown(self, shutdown_event: Callable[[], Awaitable[object]]) -> NoReturn:
        """Raise Hypercorn's ``ShutdownError`` some time after its own event, or ``stop()``; then draining begins."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_stop, nursery.cancel_scope)
                await shutdown_event()
                nursery.cancel_scope.cancel("the shutdown event has come")
            self.stopping.set()
            await trio.sleep(self._drain_delay_s)
        finally:
            self.drain()
        raise ShutdownError

    async def _cancel_at_stop(self, scope: trio.CancelScope) -> None:
        await self.stopping.wait()
        scope.cancel("stop() was called")


_present: trio.lowlevel.RunVar[Run | None] = trio.lowlevel.RunVar("komas.web.hypercorn.shutdown", None)


def begin(settings: Settings) -> Run:
    """Make the run of this ``trio.run()``."""
    run = Run(settings)
    _present.set(run)
    return run


def present() -> Run | None:
    """The server that runs in this ``trio.run()``; ``None`` before ``install()``."""
    return _present.get()


async def raise_shutdown(shutdown_event: Callable[[], Awaitable[object]]) -> NoReturn:
    """Hypercorn's function of this name, for the present run."""
    run = _present.get()
    assert run is not None  # install() began it
    await run.raise_shutdown(shutdown_event)
