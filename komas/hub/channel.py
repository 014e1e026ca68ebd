"""One line of facts that nobody may lose: who falls behind is dismissed, and comes back with a position.

The counterpart of ``hub.Hub`` for signals: no stream to choose, nothing to merge, nothing remembered. The store
remembers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from komas.hub.broadcast import Audience, Outlet
from komas.hub.buffer import Mailbox
from komas.hub.overflow import Line
from komas.hub.subscription import Audiences, DirectListener, Listener, View
from komas.model.signals import SignalEnvelope

_Mailbox: TypeAlias = Mailbox[SignalEnvelope, list[SignalEnvelope]]
Hearer: TypeAlias = _Mailbox | Audience[SignalEnvelope, list[SignalEnvelope]]


class TopicStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and listeners now."""

    published: int
    listeners: int
    dismissed: int


SignalListener: TypeAlias = Listener[SignalEnvelope, list[SignalEnvelope]]


class Topic:
    """Publish to all who listen; never waits. ``position`` is that of the last envelope published."""

    def __init__(self) -> None:
        self.position = 0
        self._hearers: dict[Hearer, None] = {}
        self._mailboxes: dict[_Mailbox, None] = {}
        self._audiences: Audiences[SignalEnvelope, list[SignalEnvelope]] = Audiences()
        self._published = 0
        self._dismissed = 0

    def publish(self, envelope: SignalEnvelope) -> None:
        """Hand one fact to every listener; positions rise by one."""
        self.position = envelope.event.position
        self._published += 1
        for hearer in self._hearers:
            hearer.put(envelope)

    def reset(self, position: int) -> None:
        """Go on from another position: every listener is dismissed, for what it has seen is not what there is."""
        self.position = position
        self._audiences.clear()
        for mailbox in self._mailboxes:
            mailbox.dismiss()

    @contextmanager
    def listen(self, capacity: int) -> Iterator[SignalListener]:
        """Listen until the block is left."""
        with self._place(capacity) as mailbox:
            yield Listener(mailbox, [])

    @contextmanager
    def listen_directly(
        self, capacity: int, outlet: Outlet, view: View[list[SignalEnvelope]]
    ) -> Iterator[SignalListener]:
        """Listen as ``listen()`` does, with an outlet that is written to by whoever runs ``deliver()``."""
        audience = self._audiences.take_seat(view, lambda: Line(sys.maxsize), view)
        try:
            with self._place(capacity) as mailbox:
                yield DirectListener(mailbox, [], audience=audience, outlet=outlet, view=view, swap=self._swap)
        finally:
            self._audiences.give_up_seat(view)

    async def deliver(self) -> None:
        """Write to the outlets of those who listen directly, until cancelled."""
        await self._audiences.deliver()

    @contextmanager
    def _place(self, capacity: int) -> Iterator[_Mailbox]:
        mailbox: _Mailbox = Mailbox(Line(capacity))
        self._swap(None, mailbox)
        self._mailboxes[mailbox] = None
        try:
            yield mailbox
        finally:
            self._swap(mailbox, None)
            del self._mailboxes[mailbox]
            self._dismissed += mailbox.is_dismissed
            mailbox.close()

    def _swap(self, leaving: Hearer | None, coming: Hearer | None) -> None:
        """Let one hear in place of another."""
        if coming is not None:
            self._hearers[coming] = None
        if leaving is not None:
            self._hearers.pop(leaving, None)

    def statistics(self) -> TopicStatistics:
        """Counts, for telemetry."""
        return TopicStatistics(self._published, len(self._mailboxes), self._dismissed)
