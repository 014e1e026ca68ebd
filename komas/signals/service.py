"""The only way a signal is born or changed: authorised, committed, and only then told.

The store is the truth, and commits are published in their order, also those of other processes: another process
does, too, and so does a request whose client left while it was written. PostgreSQL notifies of those; the store is
looked at all the same, more often where nothing is notified. A change of VIPs that was committed before a signal is
told before it: who was revoked does not see it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import trio

from komas.errors import Forbidden, StoreUnavailable
from komas.hub.channel import SignalChannel
from komas.model.signals import Counters, Principal, Signal, SignalEnvelope, SignalEvent, SignalInsert
from komas.signals.database_threads import DatabaseThreads
from komas.signals.notification import POSITION, VIP, Notification
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import NewSignal, SignalChanges
from komas.signals.vip_grants import VipGrants

log = logging.getLogger(__name__)

WATCH_EVERY_S: Final = 0.4  # what another process did is told within a second
LISTENING_EVERY_S: Final = 2.0  # while notifications come, they tell it at once
OWN_S: Final = 0.005  # from our own commit until it is told here; its notification may come in between


class SignalService:
    """Publish and update; ``run()`` tells what was committed elsewhere. ``ready`` is set once it knows the store."""

    def __init__(
        self, store: DatabaseThreads, channel: SignalChannel, vips: VipGrants, clock_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._channel = channel
        self._vips = vips
        self._clock_ms = clock_ms
        self._telling = trio.Lock()
        self._news = trio.Event()
        self._newest: dict[str, float] = {}  # of which we were notified since the last look
        self._commits = 0  # of ours, that are not told yet
        self._is_listening = False
        self._is_notified = False  # of what other processes commit, as far as can be seen
        self.ready = trio.Event()

    async def publish(self, principal: Principal, wording: NewSignal, key: str | None = None) -> SignalEvent:
        """Commit a signal and tell it; a retry with the same key is the same signal."""
        check_scope(principal)
        draft = SignalInsert(wording.signal_type, wording.data, principal.subject, key)
        with self._committing():
            event, counters = await self._store.write(lambda database: database.publish(draft, self._clock_ms()))
            await self._tell(counters, event)
        return event

    async def update(self, principal: Principal, signal_id: int, changes: SignalChanges) -> Signal | None:
        """Commit what changes something, and tell that; ``None`` for a signal that is not there."""
        check_scope(principal)
        with self._committing():
            done = await self._store.write(lambda database: database.update(signal_id, changes.data, self._clock_ms()))
            if done is None:
                return None
            signal, event, counters = done
            await self._tell(counters, event)
        return signal

    def listening(self) -> None:
        """Notifications come from now on: look at once, for none came before that."""
        self._is_listening = self._is_notified = True
        self._note(POSITION, math.inf)

    def not_listening(self) -> None:
        """None comes any more: look at once, and more often."""
        self._is_listening = self._is_notified = False
        self._note(POSITION, math.inf)

    def notified(self, notification: Notification) -> None:
        """Look at once, unless what was committed is known here."""
        self._is_notified = self._is_listening
        number = notification.number
        self._note(notification.kind, math.inf if number is None else number)

    def _note(self, kind: str, number: float) -> None:
        self._newest[kind] = max(number, self._newest.get(kind, 0))
        if self._is_behind(self._newest):
            self._news.set()

    def _is_behind(self, newest: Mapping[str, float]) -> bool:
        known = self._known()
        return any(number > known.get(kind, -1) for kind, number in newest.items())

    @contextmanager
    def _committing(self) -> Iterator[None]:
        self._commits += 1
        try:
            yield
        finally:
            self._commits -= 1

    async def run(self) -> None:
        """Watch the store until cancelled."""
        while True:
            was_woken = self._news.is_set()
            self._news, self._newest = trio.Event(), {}  # what a look cannot see yet is looked for again
            every_s, has_failed = WATCH_EVERY_S, False
            self._store.has_changed()  # until now: what is committed from here on is seen when it is asked again
            try:
                found = await self._look()
            except StoreUnavailable:
                log.debug("the database cannot be watched")  # the store has said so; it is asked again
                has_failed = True
            else:
                # What was found by chance alone was not notified: by a release of before, or a pooler swallowed it.
                self._is_notified &= was_woken or not found
                every_s = LISTENING_EVERY_S if self._is_notified else WATCH_EVERY_S
            while True:
                with trio.move_on_after(every_s) as pause:
                    await self._wait_for_news()
                if not pause.cancelled_caught or has_failed or self._store.has_changed():
                    break

    async def _wait_for_news(self) -> None:
        """Wait for commits of others: who made one here is about to tell it, and needs no look."""
        while True:
            await self._news.wait()
            newest = dict(self._newest)
            if self._commits:
                await trio.sleep(OWN_S)
            if self._is_behind(newest):
                return
            if not self._is_behind(self._newest):
                self._news = trio.Event()

    async def _look(self) -> bool:
        """Tell what the store has; whether there was anything new."""
        async with self._telling:
            known = self._known()
            # Read while nothing is being published: what is committed now is at the last position or beyond it.
            counters = await self._store.read(lambda database: database.counters())
            self._check(counters)
            await self._tell_upto(counters)
            return known != self._known()

    def _known(self) -> dict[str, int]:
        return {POSITION: self._channel.position, VIP: self._vips.version}

    def _check(self, counters: Counters) -> None:
        """Begin again where the store stands, if that is behind what was told: a backup was put in its place."""
        if counters.position < self._channel.position or counters.vip < self._vips.version:
            log.error("the database went back", extra={"from": self._channel.position, "to": counters.position})
            self._channel.reset(counters.position)
            self._vips.version = 0  # every user's state is told again

    async def _tell(self, counters: Counters, event: SignalEvent | None) -> None:
        """Tell what was just committed, and what was before it; where the store fails now, ``run()`` will."""
        with suppress(StoreUnavailable):
            async with self._telling:
                await self._tell_upto(counters, event)

    async def _tell_upto(self, counters: Counters, event: SignalEvent | None = None) -> None:
        """Tell VIPs' changes first; ``event`` spares the store a question where it comes next."""
        if not self.ready.is_set():
            self._begin(counters, 0 if event is None else 1)
        await self._vips.catch_up(counters.vip)
        if event is not None and event.position == self._channel.position + 1:
            self._channel.publish(SignalEnvelope(event))
        while self._channel.position < counters.position:
            page = await self._store.events_after(self._channel.position, counters.position)
            if not page:
                log.error("commits are missing", extra={"after": self._channel.position, "upto": counters.position})
                self._channel.reset(counters.position)
            for committed in page:
                self._channel.publish(SignalEnvelope(committed))

    def _begin(self, counters: Counters, own: int) -> None:
        """History is for those who ask for it: what is told begins after it, but with our own."""
        self._channel.position = counters.position - own
        self._vips.version = counters.vip
        self.ready.set()


def check_scope(principal: Principal) -> None:
    """Raise ``Forbidden`` unless the principal may publish."""
    if SCOPE_PUBLISH not in principal.scopes:
        raise Forbidden(f"this needs a token with the scope {SCOPE_PUBLISH}")
