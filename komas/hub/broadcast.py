"""Listeners who hear the same: what they hear is rendered once, and written to each of them without waiting (thinks).

A listener is in the audience only while its own task waits for news. Whoever cannot take all of it at once leaves, with
what it has not got, and its own task goes on at its own pace; it comes back once nothing waits for it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

from komas.hub.overflow import Waiting

B = TypeVar("B")
T = TypeVar("T")

TURN = 16  # writes before others may have their turn, and newcomers that are let in at one go


class Outlet(Protocol):
    """Where bytes can be written without waiting."""

    def write(self, chunk: bytes) -> int:
        """Write; returns how many bytes are left: all, or the rest that the outlet keeps and will write first."""


class Direct(Outlet, Protocol):
    """An outlet whose rest its listener's task writes."""

    async def flush(self) -> bool:
        """Write the rest of what was begun, if there is one, and say so; waits while it is not taken."""


class Seat(Protocol[B]):
    """One listener, as an audience sees it; its task waits for news."""

    @property
    def outlet(self) -> Outlet:
        """Where it is written to."""

    @property
    def is_over(self) -> bool:
        """Whether its task is to see the end, and nothing more."""

    def take_now(self) -> B | None:
        """Take what waits for its task; ``None`` for nothing."""

    def give_back(self, batch: B) -> None:
        """Leave this for its task, behind what waits."""

    def render(self, batch: B) -> bytes:
        """The bytes of what only this listener has not heard."""

    def joined(self) -> None:
        """Take the news that the audience hears for it now."""

    def left(self) -> None:
        """Take the news that it hears for itself again."""

    def ring(self) -> None:
        """Wake its task."""


class Audience(Generic[T, B]):
    """Listeners to the same things in the same representation.

    ``call`` is told that something waits; whoever is called runs ``serve()``. ``renderer`` makes what renders batches
    one after another, from the first member on. ``heartbeat`` is written after a ``beat()``, where nothing else is.
    """

    def __init__(
        self,
        waiting: Waiting[T, B],
        renderer: Callable[[], Callable[[B], bytes]],
        call: Callable[[Audience[T, B]], None],
        heartbeat: bytes = b"",
    ) -> None:
        self._waiting = waiting
        self._heartbeat = heartbeat
        self._beats = False
        self._renderer = renderer
        self._render = renderer()
        self._call = call
        self._is_called = False
        self._members: dict[Seat[B], None] = {}
        self._newcomers: dict[Seat[B], None] = {}
        self._unserved: dict[Seat[B], None] = {}  # of those who hear ``_batch``
        self._batch: B | None = None
        self.seats = 0  # whether their listeners are in or not
        self.served_at = 0.0  # seconds, on the clock that ``serve()`` is given; whoever does so says when it began

    def __len__(self) -> int:
        return len(self._members)

    @property
    def dropped(self) -> int:
        """Items that did not wait for all members."""
        return self._waiting.dropped_in_all

    def put(self, *items: T) -> None:
        """Take items for all members."""
        self._waiting.put(*items)
        self._call_once()

    def enter(self, seat: Seat[B]) -> None:
        """Let a listener in: at once, or when what waits, and it has heard already, is served."""
        if self._waiting:
            self._newcomers[seat] = None
            self._call_once()
        else:
            self._let_in(seat)

    def leave(self, seat: Seat[B]) -> None:
        """Let a listener go, with all that it has not heard."""
        self._newcomers.pop(seat, None)
        if seat not in self._members:
            return
        del self._members[seat]
        seat.left()
        if seat in self._unserved:
            del self._unserved[seat]
            if self._batch is not None:
                seat.give_back(self._batch)
        if self._waiting:
            seat.give_back(self._waiting.peek())
        if not self._members:
            # It was theirs alone: whoever comes in now has heard it, or more, and is told what follows that.
            self._waiting.take()
            self._batch = None

    def clear(self) -> None:
        """Let everybody go, and forget what they have not heard."""
        self._newcomers.clear()
        self._unserved.clear()
        self._waiting.take()
        while self._members:
            seat, _ = self._members.popitem()
            seat.left()

    def serve(self, clock: Callable[[], float]) -> Iterator[None]:
        """Write what waits to all members; yields now and then, so that others may have their turn."""
        self._is_called = False
        if self._waiting:
            self._batch, self._unserved = self._waiting.take(), self._members.copy()
        # Nothing waits now: whoever comes in here hears what is published from here on.
        for seat in tuple(islice(self._newcomers, TURN)):
            self._settle(seat)
        if self._newcomers:
            self._call_once()
        yield
        chunk = b""
        if self._batch is not None:
            # Rendered whoever of them is left: newcomers have heard it, too, and what follows may depend on it.
            chunk = self._render(self._batch)
            yield from self._write(chunk)
            self._batch = None
        if self._beats and not chunk:
            chunk, self._unserved = self._heartbeat, self._members.copy()
            yield from self._write(chunk)
        if chunk:
            self.served_at = clock()
        self._beats = False

    def beat(self) -> None:
        """Have the heartbeat written: nothing was for long."""
        self._beats = bool(self._heartbeat)
        if self._beats:
            self._call_once()

    def _write(self, chunk: bytes) -> Iterator[None]:
        count, unserved = 0, self._unserved
        while unserved:
            seat, _ = unserved.popitem()
            if chunk and (left := seat.outlet.write(chunk)):
                if left == len(chunk):
                    unserved[seat] = None  # it has heard nothing of it
                self.leave(seat)
                seat.ring()
            count += 1
            if count % TURN == 0:
                yield

    def _settle(self, seat: Seat[B]) -> None:
        """Let a newcomer in, after what only it has not heard."""
        del self._newcomers[seat]
        if seat.is_over:
            seat.ring()
            return
        batch = seat.take_now()
        if batch is not None:
            chunk = seat.render(batch)
            if chunk and (left := seat.outlet.write(chunk)):
                if left == len(chunk):
                    seat.give_back(batch)
                seat.ring()
                return
        self._let_in(seat)

    def _let_in(self, seat: Seat[B]) -> None:
        if not self._members:
            self._render = self._renderer()
        self._members[seat] = None
        seat.joined()

    def _call_once(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._call(self)
