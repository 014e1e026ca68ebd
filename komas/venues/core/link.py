"""One upstream link: dial, converse, back off, for ever; replace a connection before it is let go. Knows no venue.

A link has one connection, or none while it dials, or two while the younger one takes over: it is up, subscribed and
delivering before the older one is closed. A failure while another connection is up loses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, Self, TypeVar

import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.venues.core.retry import Backoff

log = event_logger(__name__)

OVERLAP_S: Final = 30.0  # so long a younger connection may take to deliver what the older one does
RECENT_S: Final = 5.0  # what the older one brought so shortly before is awaited of the younger one; a stall is longer
LOOK_EVERY_S: Final = 0.25
LINGER_S: Final = 1.0  # what the older one has on the way comes in, and is dropped as seen where it was seen


class LinkedConnection(Protocol):
    """One connection. Its law: ``run()`` calls ``up`` once, when it can deliver, and ends with ``VenueError``."""

    async def run(self, up: Callable[[], None], healthy: Callable[[], None]) -> None:
        """Dial and converse until it is over; call ``healthy`` at the first event. Returns after ``retire()``."""

    def retire(self) -> None:
        """End without an error."""

    def carries(self, older: Self, recent_s: float) -> bool:
        """Whether what the older connection delivered is delivered here, too, even before the first frames cross.

        ``recent_s`` is how long before this connection was ready what the older one brought still counts.
        """

    @property
    def is_delivering(self) -> bool:
        """Whether anything was ever delivered here."""


class Tally(Protocol):
    """Where a link counts: reconnects by what they were made for, and rotations."""

    reconnects: Counter[Cause]
    rotations: int


C = TypeVar("C", bound=LinkedConnection)


class Link(Generic[C]):
    """Keeps one connection up; ``make`` makes the next one, to be dialled.

    While it is not needed, because another link does the same, it does not give up however often it fails.
    """

    def __init__(
        self,
        make: Callable[[], C],
        *,
        backoff: Backoff,
        tally: Tally,
        changed: Callable[[], None],
        lost: Callable[[VenueError, float], None],
        is_needed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._make = make
        self._backoff = backoff
        self._tally = tally
        self._changed = changed
        self._lost = lost
        self._is_needed = is_needed
        self._news = trio.lowlevel.ParkingLot()
        self._was_up = False
        self._lost_by = Cause.CLOSED  # how the last connection of all ended
        self._final_failure: VenueError | None = None
        self.replacing: str | None = None  # why, while a connection is to be replaced
        self.connections: list[C] = []  # the connections that are up, the youngest last

    def replace(self, reason: str) -> None:
        """Put a new connection into the place of the one there is, without a gap; a dial under way is not hurried."""
        if self.connections and self.replacing is None:
            log.info("replacing connection", extra={"reason": reason})
            self.replacing = reason
            self._news.unpark_all()

    async def run(self) -> None:
        """Keep connected until cancelled; raises the last ``VenueError`` when the allowed attempts are used up."""
        async with trio.open_nursery() as nursery:
            while self._final_failure is None:
                if self.connections and (self.replacing is None or len(self.connections) > 1):
                    await self._news.park()
                elif (turn := self._backoff.dial_at(trio.current_time())) > trio.current_time():
                    await trio.sleep_until(turn)
                else:
                    await self._dial(nursery)
            nursery.cancel_scope.cancel("the allowed attempts are used up")
        raise self._final_failure

    async def _dial(self, nursery: trio.Nursery) -> None:
        self._backoff.dialled(trio.current_time())
        connection = self._make()
        try:
            await nursery.start(self._run, connection)
        except VenueError as error:
            self._failed(error)
            return
        if older := self.connections[:-1]:
            nursery.start_soon(self._hand_over, older, connection)

    async def _run(self, connection: C, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        def up() -> None:
            self._tally.rotations += bool(self.connections)
            if self._was_up and not self.connections:
                self._tally.reconnects[self._lost_by] += 1
            self._was_up = True
            self.connections.append(connection)
            self._changed()
            task_status.started()

        try:
            await connection.run(up, self._backoff.succeeded)
        except VenueError as error:
            if connection not in self.connections:
                raise
            is_being_replaced = self.replacing is not None and len(self.connections) == 1
            self._lost_by = error.cause
            is_older = connection is not self.connections[-1] or is_being_replaced
            self._over(connection)
            (self._left if is_older else self._failed)(error)
        finally:
            if connection in self.connections:
                self._over(connection)

    def _over(self, connection: C) -> None:
        """A connection has ended; when an older one did, the younger one has replaced it, or will."""
        if connection is not self.connections[-1] or len(self.connections) == 1:
            self.replacing = None
        self.connections.remove(connection)
        self._changed()
        self._news.unpark_all()

    def _failed(self, error: VenueError) -> None:
        """A dial or the youngest connection failed: wait before the next one, and tell, if it was the last."""
        wait_s = self._backoff.failed(error, trio.current_time())
        log.warning(
            "link lost" if not self.connections else "connection not replaced",
            extra={"reason": str(error), "failures": self._backoff.failures, "retry_in_s": round(wait_s, 3)},
        )
        if not self.connections:
            self._lost(error, wait_s)
            self._final_failure = error if self._backoff.exhausted and self._is_needed() else None
            self._news.unpark_all()

    def _left(self, error: VenueError) -> None:
        """A connection ended that was being replaced: what is under way is its successor, and is not hurried."""
        log.info("older connection lost", extra={"reason": str(error)})
        if not self.connections:
            now = trio.current_time()
            self._lost(error, max(0.0, self._backoff.dial_at(now) - now))

    async def _hand_over(self, older: list[C], connection: C) -> None:
        """Let the older connections go once the younger one carries what they do."""
        with trio.move_on_after(OVERLAP_S) as overlap:
            while connection in self.connections and not self._carries(connection, older, RECENT_S):  # noqa: ASYNC110 - any frame may be the awaited one
                await trio.sleep(LOOK_EVERY_S)
        is_idle = overlap.cancelled_caught and not connection.is_delivering
        if is_idle and not self._carries(connection, older, 0):
            log.warning("younger connection delivers nothing")
            self._failed(VenueError(f"no data came for {OVERLAP_S:g} s", cause=Cause.SILENT))
            connection.retire()
            return
        await trio.sleep(LINGER_S)
        if connection in self.connections:
            for old in older:
                old.retire()

    def _carries(self, connection: C, older: list[C], recent_s: float) -> bool:
        return all(connection.carries(old, recent_s) for old in older if old in self.connections)


async def together(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run tasks side by side until one raises ``VenueError``, which ends the others and is raised by itself."""
    failures: list[VenueError] = []

    async def run(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except VenueError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    if failures:
        raise failures[0]
