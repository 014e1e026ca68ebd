"""The store of signals and VIPs: the ledger, run in threads, so that no query holds up the loop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from komas.errors import StoreUnavailable
from komas.model.signals import SignalEvent
from komas.signals.ledger import Ledger

log = logging.getLogger("komas.store")

T = TypeVar("T")

PAGE: Final = 128  # commits that are read at once
READERS: Final = 4  # reads run beside each other and beside a write; more would only queue inside the database
COMPLAIN_EVERY_S: Final = 60.0


class Store:
    """Access to the ledger. What it is asked is done or ``StoreUnavailable``, and that is logged, now and then.

    A call that is cancelled is carried out all the same: the caller learns nothing of it, the desk's watch does.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._writer = trio.CapacityLimiter(1)  # the database takes one writer at a time anyway
        self._readers = trio.CapacityLimiter(READERS)
        self._opening = trio.Lock()
        self._is_open = False
        self._complained_at = -COMPLAIN_EVERY_S
        self.failures = 0

    async def read(self, query: Callable[[Ledger], T]) -> T:
        """Run one query."""
        return await self._run(query, self._readers)

    async def events_after(self, position: int, upto: int) -> list[SignalEvent]:
        """A page of the commits after a position, up to another one."""
        return await self.read(lambda ledger: ledger.events_after(position, upto, PAGE))

    async def write(self, change: Callable[[Ledger], T]) -> T:
        """Run one change; it is committed when this returns."""
        return await self._run(change, self._writer)

    async def _run(self, call: Callable[[Ledger], T], limiter: trio.CapacityLimiter) -> T:
        try:
            await self._open()
            return await self._in_thread(call, limiter)
        except StoreUnavailable as error:
            self._complain(error)
            raise

    async def _open(self) -> None:
        """Open at the first use, and again after a failure: a full disk at the start is not for ever."""
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    await self._in_thread(Ledger.open, self._writer)
                    self._is_open = True

    async def _in_thread(self, call: Callable[[Ledger], T], limiter: trio.CapacityLimiter) -> T:
        return await trio.to_thread.run_sync(call, self._ledger, limiter=limiter)

    def _complain(self, error: StoreUnavailable) -> None:
        self.failures += 1
        now = trio.current_time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.error("the store of signals is unavailable", extra={"reason": str(error), "failures": self.failures})


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """A store while the block lasts."""
    ledger = Ledger(url)
    try:
        yield Store(ledger)
    finally:
        ledger.close()
