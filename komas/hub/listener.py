"""A place at the hub: its task takes what waits in its mailbox, or lets its outlet be written to while it waits.

``publish()`` never writes. It leaves what it has with mailboxes and audiences; the task that runs ``deliver()`` writes
for the audiences as soon as the publisher's task waits again: so one write carries all that one read of the exchange
brought.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, Protocol, TypeVar

import trio

from komas.hub.audience import Audience, Outlet
from komas.hub.mailbox import Mailbox
from komas.hub.policy import Waiting

T = TypeVar("T")
B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)

SLICE_S: Final = 0.005  # of writing, then everybody else's turn comes


class View(Protocol[B_contra]):
    """How listeners are written to; equal views of the same streams get the same bytes."""

    def __hash__(self) -> int:
        """Be a key."""

    def renderer(self) -> Callable[[B_contra], bytes]:
        """What renders the batches of one audience, one after another."""


class Listener(Generic[T, B]):
    """A place at the hub; made by ``Hub.listen()``.

    ``known`` is what was there at the moment of registration: a gap notice, replayed facts, the latest of each stream.
    It is taken first and is not bounded by the mailbox.
    """

    __slots__ = ("_mailbox", "known", "served_at")

    def __init__(self, mailbox: Mailbox[T, B], known: list[T]) -> None:
        self._mailbox = mailbox
        self.known = known
        self.served_at = 0.0  # when something was written to an outlet of it last, in seconds on trio's clock

    @property
    def is_dismissed(self) -> bool:
        """Whether ``take()`` would raise ``Dismissed``."""
        return self._mailbox.is_dismissed

    async def take(self) -> B:
        """Wait for news and take all of it; see ``Mailbox.take_all()`` for what it raises."""
        return await self._mailbox.take()


class DirectListener(Listener[T, B]):
    """A place whose news are written to its outlet as long as its task waits in ``take()``.

    ``enlist`` and ``delist`` tell the hub who hears: its mailbox, or its audience.
    """

    __slots__ = ("_audience", "_delist", "_enlist", "_view", "outlet")

    def __init__(
        self,
        mailbox: Mailbox[T, B],
        known: list[T],
        *,
        audience: Audience[T, B],
        outlet: Outlet,
        view: View[B],
        enlist: Callable[[Mailbox[T, B] | Audience[T, B]], None],
        delist: Callable[[Mailbox[T, B] | Audience[T, B]], None],
    ) -> None:
        super().__init__(mailbox, known)
        self._audience = audience
        self._enlist = enlist
        self._delist = delist
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

    def wrote(self, now: float) -> None:
        """Something was written to this listener alone."""
        self.served_at = now

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
        self._delist(self._mailbox)
        if len(self._audience) == 1:
            self._enlist(self._audience)

    def left(self) -> None:
        """It hears for itself."""
        self.served_at = max(self.served_at, self._audience.served_at)
        self._enlist(self._mailbox)
        if not len(self._audience):
            self._delist(self._audience)

    def ring(self) -> None:
        """Wake the listener's task."""
        self._mailbox.ring()


class Audiences(Generic[T, B]):
    """The audiences there are, and who serves them."""

    def __init__(self) -> None:
        self._audiences: dict[Hashable, Audience[T, B]] = {}
        self._called: deque[Audience[T, B]] = deque()
        self._bell = trio.lowlevel.ParkingLot()
        self._dropped = 0

    @contextmanager
    def seat(self, key: Hashable, post: Callable[[], Waiting[T, B]], view: View[B]) -> Iterator[Audience[T, B]]:
        """One listener's seat in the audience of a key, which is made for its first one and dropped after its last."""
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(post(), view.renderer, self._call)
        audience.seats += 1
        try:
            yield audience
        finally:
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
        self._bell.unpark()

    async def deliver(self) -> None:
        """Serve audiences for which something waits, until cancelled; nothing else waits for long meanwhile."""
        while True:
            while not self._called:
                await self._bell.park()
            until = time.perf_counter() + SLICE_S
            while self._called:
                for _ in self._called.popleft().serve(trio.current_time()):
                    if time.perf_counter() > until:
                        await trio.lowlevel.checkpoint()
                        until = time.perf_counter() + SLICE_S
