"""Whoever was published to is served here: everything that waits, in turns, so that nothing else has to wait long.

``publish()`` never writes. It leaves what it has with the audiences, and this task writes as soon as the publisher's
task waits again: so one write carries all that one read of the exchange brought.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

import trio

SLICE_S: Final = 0.005  # of writing, then everybody else's turn comes


class Called(Protocol):
    """Where something waits to be served."""

    def serve(self, now: float) -> Iterator[None]:
        """Serve what waits; each step takes little time."""


class Deliverer:
    """Call it with ``call()``; ``run()`` it beside the publishers."""

    def __init__(self) -> None:
        self._called: deque[Called] = deque()
        self._bell = trio.lowlevel.ParkingLot()

    def call(self, called: Called) -> None:
        """Serve this one soon."""
        self._called.append(called)
        self._bell.unpark()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            while not self._called:
                await self._bell.park()
            until = time.perf_counter() + SLICE_S
            while self._called:
                for _ in self._called.popleft().serve(trio.current_time()):
                    if time.perf_counter() > until:
                        await trio.lowlevel.checkpoint()
                        until = time.perf_counter() + SLICE_S
