"""The store of signals and VIPs: ``SignalDatabase``, run in threads, so that no query holds up the loop.

SQLAlchemy is loaded by the first of them, where the place is a file: it takes a third of a start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from komas.errors import StoreUnavailable
from komas.histogram import Histogram
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import SignalEvent
from komas.signals.file_watch import FileWatch

if TYPE_CHECKING:
    from komas.signals.database import SignalDatabase

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE: Final = 128  # commits that are read at once
PAGE_BYTES: Final = 2**17  # of their data: each VIP that does not read keeps so much of what it missed
SCANNED: Final = 50_000  # commits that one query looks through for those that a filter lets pass: some 30 ms
READERS: Final = 4  # reads run beside each other and beside a write; more would only queue inside the database
WAIT_S: Final = 7.0  # for the call before, for a lock (``database.LOCK_WAIT_S``), and for the database itself
REOPEN_S: Final = 2.0
COMPLAIN_EVERY_S: Final = 60.0


class DatabaseThreads:
    """Access to the database. What it is asked is done or ``StoreUnavailable``, and that is logged, now and then.

    A call that is cancelled, or takes longer than ``WAIT_S``, may be carried out all the same: the caller learns
    nothing of it, the signal service's watch does.
    """

    def __init__(self, make: Callable[[], SignalDatabase], watch: FileWatch | None = None) -> None:
        """``watch`` tells whether the database may have changed, where it is a file."""
        self._make = make
        self._watch = watch
        self._database: SignalDatabase | None = None
        self._writer = trio.CapacityLimiter(1)  # the database takes one writer at a time anyway
        self._readers = trio.CapacityLimiter(READERS)
        self._opening = trio.Lock()
        self._is_open = False
        self._failed_to_open: tuple[float, StoreUnavailable] | None = None
        self._complaint: tuple[float, str] | None = None
        self.failures = 0
        self.commit_latency = Histogram()  # seconds until a change is committed, its waiting included

    def has_changed(self) -> bool:
        """Whether anybody may have committed anything since this was asked last."""
        return self._watch is None or self._watch.has_changed()

    async def read(self, query: Callable[[SignalDatabase], T]) -> T:
        """Run one query."""
        return await self._run(query, self._readers)

    async def events_after(self, position: int, upto: int, wanted: SignalFilter = EVERYTHING) -> list[SignalEvent]:
        """A page of the commits after a position, up to another one, that are wanted."""
        while wanted and upto - position > SCANNED:
            if page := await self._events(position, position + SCANNED, wanted):
                return page
            position += SCANNED
        return await self._events(position, upto, wanted)

    async def _events(self, position: int, upto: int, wanted: SignalFilter) -> list[SignalEvent]:
        return await self.read(lambda database: database.events_after(position, upto, PAGE, PAGE_BYTES, wanted=wanted))

    async def write(self, change: Callable[[SignalDatabase], T]) -> T:
        """Run one change; it is committed when this returns."""
        began_at = trio.current_time()
        done = await self._run(change, self._writer)
        self.commit_latency.observe(trio.current_time() - began_at)
        return done

    async def _run(self, call: Callable[[SignalDatabase], T], limiter: trio.CapacityLimiter) -> T:
        if self._database is None:
            await self._load()
        try:
            with trio.fail_after(WAIT_S):
                await self._open()
                done = await self._in_thread(lambda: call(self._known()), limiter)
        except trio.TooSlowError:
            self._complain(words := f"it did not answer within {WAIT_S:g} s")
            raise StoreUnavailable(words) from None
        except StoreUnavailable as error:
            self._is_open = False  # it may be another one when it comes back
            self._complain(str(error))
            raise
        self._rejoice()
        return done

    async def _load(self) -> None:
        """Load what speaks with the database; how long that takes says nothing about the database."""
        async with self._opening:
            if self._database is None:
                self._database = await self._in_thread(self._make, self._writer)

    async def _open(self) -> None:
        """Open at the first use, and after a failure, not too often: a full disk at the start is not for ever."""
        async with self._opening:
            if self._is_open:
                return
            if self._failed_to_open is not None and trio.current_time() < self._failed_to_open[0] + REOPEN_S:
                raise self._failed_to_open[1]
            try:
                await self._in_thread(self._known().open, self._writer)
            except StoreUnavailable as error:
                self._failed_to_open = trio.current_time(), error
                raise
            self._failed_to_open = None
            self._is_open = True

    def _known(self) -> SignalDatabase:
        assert self._database is not None  # it was loaded
        return self._database

    async def _in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        # Abandoned on cancellation: a database that does not answer must not hold up the end of the process.
        return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)

    def close(self) -> None:
        """Let the database go."""
        if self._database is not None:
            self._database.close()

    def _complain(self, reason: str) -> None:
        self.failures += 1
        now = trio.current_time()
        if self._complaint is None or self._complaint[1] != reason or now >= self._complaint[0] + COMPLAIN_EVERY_S:
            self._complaint = now, reason
            log.error("the database of signals is unavailable", extra={"reason": reason, "failures": self.failures})

    def _rejoice(self) -> None:
        if self._complaint is not None:
            self._complaint = None
            log.info("the database of signals is available again")


@asynccontextmanager
async def open_database(place: str | Path) -> AsyncIterator[DatabaseThreads]:
    """A store while the block lasts; raises ``SettingError`` for a URL that cannot be one."""
    if isinstance(place, Path):
        store = DatabaseThreads(partial(_database, place), FileWatch(place))
    else:
        database = _database(place)
        store = DatabaseThreads(lambda: database)
    try:
        yield store
    finally:
        store.close()


def _database(place: str | Path) -> SignalDatabase:
    from komas.signals.database import SignalDatabase  # noqa: PLC0415 - see above

    return SignalDatabase(place)
