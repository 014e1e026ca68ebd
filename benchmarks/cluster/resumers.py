"""Clients that come back with their last place wherever they were cut off, and know what each of them misses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import h11
import msgspec
import trio

from benchmarks.cluster.readers import BusyError, server_sent_events
from benchmarks.crowd import STAMP
from benchmarks.feeder import FIRST_ID, NS, SYMBOL

PATH: Final = f"/api/ws/sse/trades?symbol={SYMBOL}"
AGAIN_S: Final = 0.2
SETTLE_S: Final = 1.5  # until all are connected


class Tally(msgspec.Struct):
    """Of one client: how often each trade came, and what was not in order."""

    counts: Counter[int]
    newest: int = 0
    disordered: int = 0
    gaps: int = 0
    visits: int = 0
    latest_s: float = 0.0  # after its moment, the latest of all

    def take(self, number: int, sent_ns: int) -> None:
        """Note a trade."""
        self.latest_s = max(self.latest_s, (time.monotonic_ns() - sent_ns) / NS)
        self.disordered += number < self.newest and not self.counts[number]
        self.newest = max(self.newest, number)
        self.counts[number] += 1

    def missing(self, events: int) -> int:
        """How many of so many trades never came."""
        return sum(not self.counts[number] for number in range(FIRST_ID, FIRST_ID + events))

    @property
    def doubled(self) -> int:
        """How many came again."""
        return self.counts.total() - len(self.counts)


class Resumers:
    """So many clients at each port; ``run()`` until cancelled."""

    def __init__(self, ports: Sequence[int], each: int) -> None:
        self.tallies = [Tally(Counter()) for _ in range(each * len(ports))]
        self._ports = ports
        self._moved = trio.lowlevel.ParkingLot()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow, all of them; started when all are connected."""
        async with trio.open_nursery() as nursery:
            for number, tally in enumerate(self.tallies):
                nursery.start_soon(self._follow, tally, self._ports[number % len(self._ports)])
            await trio.sleep(SETTLE_S)
            task_status.started()

    async def have_all(self, events: int) -> None:
        """Wait until each has every one of so many trades."""
        while any(len(tally.counts) < events for tally in self.tallies):
            await self._moved.park()

    async def _follow(self, tally: Tally, port: int) -> None:
        place = ""
        while True:
            tally.visits += 1
            try:
                async with aclosing(server_sent_events(port, PATH, place)) as events:
                    async for event in events:
                        if event.name == "gap":
                            tally.gaps += 1
                        elif (found := STAMP.search(event.data)) is not None:
                            place = event.id
                            number, seconds, part = map(int, found.groups())
                            tally.take(number, seconds * NS + part)
                            self._moved.unpark_all()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError, BusyError):
                pass
            await trio.sleep(AGAIN_S)
