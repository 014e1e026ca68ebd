"""A place at the hub: its task takes what waits in its mailbox, or lets its outlet be written to while it waits.

``publish()`` never writes. It leaves what it has with mailboxes and audiences; whoever published writes for the
audiences by ``flush()``, so that one write carries all that one read of the exchange brought. What takes longer, and
what nobody flushes, is written by the task that runs ``deliver()``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from komas.hub.broadcast import Audience, Outlet
from komas.hub.buffer import Mailbox
from komas.hub.overflow import Waiting
from komas.hub.wakeup import Bell

T = TypeVar("T")
B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)

Hearer: TypeAlias = Mailbox[T, B] | Audience[T, B]

EARLY: Final = 0.1  # of a silence: who is nearly due is looked at together with who is
SETTLE_S: Final = 0.2
TICK_S: Final = 0.001
SLICE_S: Final = 0.005  # of writing, by whomever, then everybody else's turn comes


class View(Protocol[B_contra]):
    """How listeners are written to; equal views of the same streams get the same bytes."""

    def __hash__(self) -> int:
        """Be a key."""

    @property
    def heartbeat(self) -> bytes:
        """What is written after a silence; empty for nothing."""

    def renderer(self) -> Callable[[B_contra], bytes]:
        """What renders the batches of one audience, one after another."""


class Listener(Generic[T, B]):
    """A place at the hub; made by ``Hub.listen()``.

    ``known`` is what was there at the moment of registration: a gap notice, replayed facts, the latest of each stream.
    It is taken first and is not bounded by the mailbox.
    """

    __slots__ = ("_mailbox", "known")

    def __init__(self, mailbox: Mailbox[T, B], known: list[T]) -> None:
        self._mailbox = mailbox
        self.known = known

    @property
    def is_dismissed(self) -> bool:
        """Whether ``take()`` would raise ``Dismissed``."""
        return self._mailbox.is_dismissed

    async def take(self) -> B:
        """Wait for news and take all of it; see ``Mailbox.take_all()`` for what it raises."""
        return await self._mailbox.take()


class DirectListener(Listener[T, B]):
    """A place whose news are written to its outlet as long as its task waits in ``take()``.

    ``swap`` lets one hear in place of another: its audience, or its mailbox.
    """

    __slots__ = ("_audience", "_swap", "_view", "outlet")

    def __init__(
        self,
        mailbox: Mailbox[T, B],
        known: list[T],
        *,
        audience: Audience[T, B],
        outlet: Outlet,
        view: View[B],
        swap: Callable[[Hearer[T, B] | None, Hearer[T, B] | None], None],
    ) -> None:
        super().__init__(mailbox, known)
        self._audience = audience
        self._swap = swap
        self._view = view
        self.outlet = outlet

    async def take(self) -> B:
        """Wait until the outlet cannot take all that is new; returns what it has not taken, were it nothing.

        The outlet may keep the rest of what it was writing, which then goes first. Raises ``trio.EndOfChannel`` at the
        end.
        """
        if (batch := self.take_now()) is not None:
            return batch
        self._audience.enter(self)
        try:
            await self._mailbox.rung()
        finally:
            self._audience.leave(self)
        return self._mailbox.take_all()

    # A seat in its audience

    @property
    def is_over(self) -> bool:
        """Whether ``take()`` would raise."""
        return self._mailbox.is_over

    def take_now(self) -> B | None:
        """Take what waits for the listener's task."""
        return self._mailbox.take_now()

    def give_back(self, batch: B) -> None:
        """Leave what was not written for the listener's task."""
        self._mailbox.give_back(batch)

    def render(self, batch: B) -> bytes:
        """What only this listener has not heard."""
        return self._view.renderer()(batch)

    def joined(self) -> None:
        """The audience hears for it."""
        self._swap(self._mailbox, self._audience if len(self._audience) == 1 else None)

    def left(self) -> None:
        """It hears for itself."""
        self._swap(None if len(self._audience) else self._audience, self._mailbox)

    def ring(self) -> None:
        """Wake the listener's task."""
        self._mailbox.ring()


class Audiences(Generic[T, B]):
    """The audiences there are, and who serves them."""

    def __init__(self) -> None:
        self._audiences: dict[Hashable, Audience[T, B]] = {}
        self._called: deque[Audience[T, B]] = deque()
        self._begun: Iterator[None] = iter(())  # the service of one of them, which may not be over
        self._bell = Bell()
        self._until: float | None = None  # the end of a slice, on the performance counter, while somebody is called
        self._dropped = 0

    def take_seat(self, key: Hashable, post: Callable[[], Waiting[T, B]], view: View[B]) -> Audience[T, B]:
        """One listener's seat in the audience of a key, which is made for its first one; ``give_up_seat()`` ends it."""
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(post(), view.renderer, self._call, view.heartbeat)
            audience.served_at = trio.current_time()
        audience.seats += 1
        return audience

    def give_up_seat(self, key: Hashable) -> None:
        """Let a seat go; the audience goes with its last one."""
        audience = self._audiences[key]
        audience.seats -= 1
        if not audience.seats:
            self._dropped += audience.dropped
            del self._audiences[key]

    @property
    def dropped(self) -> int:
        """Items that did not wait for an audience, since the start."""
        return self._dropped + sum(audience.dropped for audience in self._audiences.values())

    def clear(self) -> None:
        """Let every listener go, with nothing of what it has not heard."""
        for audience in self._audiences.values():
            audience.clear()

    def _call(self, audience: Audience[T, B]) -> None:
        self._called.append(audience)
        if self._until is None:
            self._until = time.perf_counter() + SLICE_S
        self._bell.ring()

    async def deliver(self) -> None:
        """Serve audiences for which something waits, until cancelled; nothing else waits for long meanwhile."""
        while True:
            self._until = time.perf_counter() + SLICE_S
            if self._serve(self._until):
                await trio.lowlevel.checkpoint()
            else:
                self._until = None
                await self._bell.wait()

    def flush(self) -> None:
        """Serve them now, while the slice lasts that began when they were called; ``deliver()`` does the rest."""
        if self._until is not None:
            self._serve(self._until)

    async def settled(self) -> None:
        """Wait until nobody is left to serve, ``SETTLE_S`` at most; listeners' own tasks get their turns."""
        self.flush()
        with trio.move_on_after(SETTLE_S):
            await trio.sleep(TICK_S)
            while self._until is not None:  # noqa: ASYNC110 - whoever serves has better things to do than to tell
                await trio.sleep(TICK_S)

    def _serve(self, until: float) -> bool:
        """Serve until a time; whether that was not enough."""
        while time.perf_counter() < until:
            for _ in self._begun:
                if time.perf_counter() > until:
                    return True
            if not self._called:
                return False
            self._begun = self._called.popleft().serve(trio.current_time)
        return True

    async def beat(self, every_s: float) -> None:
        """Have every audience that was written nothing for so long written its heartbeat, until cancelled."""
        while True:
            now = trio.current_time()
            next_at = now + every_s
            for audience in self._audiences.values():
                if audience.served_at + every_s * (1 - EARLY) <= now:
                    audience.beat()
                else:
                    next_at = min(next_at, audience.served_at + every_s)
            await trio.sleep_until(next_at)
