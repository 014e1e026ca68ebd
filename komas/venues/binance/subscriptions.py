"""The subscriptions of one connection to Binance: what is asked for, what was acknowledged, and how each is heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from komas.model.streams import Stream
from komas.venues.binance import wire
from komas.venues.binance.protocol import SubscriptionProtocol
from komas.venues.core.connection import Connection, ConnectionSink
from komas.venues.core.held_streams import HeldMemory, HeldStreams


class Subscriptions:
    """What a ``connection`` was ``assigned``, and how far the exchange has acknowledged it; the ``sink`` is told."""

    def __init__(
        self,
        connection: Connection,
        sink: ConnectionSink,
        assigned: Callable[[], Mapping[str, Stream]],
        protocol: SubscriptionProtocol,
        memory: HeldMemory,
    ) -> None:
        self._connection = connection
        self._sink = sink
        self.assigned = assigned
        self.protocol = protocol
        self.held = HeldStreams(memory)

    def names(self) -> list[str]:
        """What the connection is to hold, as the exchange writes it."""
        return list(self.assigned())

    def note_held(self) -> None:
        """Take over what the exchange has acknowledged by now."""
        begun = self.held.note(self.protocol.held, self.assigned(), trio.current_time())
        for stream in begun:
            self._sink.on_held(self._connection, stream)
        if begun:
            self._sink.news.unpark_all()  # wakes the tasks that wait for an acknowledgement

    def answered(self, frame: wire.Combined) -> None:
        """Take an answer of the exchange to one of our requests; any other costs nothing."""
        if not self.protocol.is_awaited(frame):
            return
        self._sink.on_refusals(self.protocol.answered(frame, trio.current_time()))
        self.note_held()
        self._sink.news.unpark_all()

    def heard(self, name: str, at: float, frames: int) -> None:
        """Data frames of a stream came: it is acknowledged, whether or not the exchange has said so."""
        if (tracker := self.held.trackers.get(name)) is None:
            self.protocol.delivered(name)
            self.note_held()
            tracker = self.held.trackers.get(name)
        if tracker is not None:
            tracker.heard(at, frames)

    def silent(self, now: float, *, has_delivered: bool) -> str | None:
        """Why another connection may do better; what is silent is told."""
        silence = self.held.why_silent(now, has_delivered=has_delivered)
        if silence is None:
            return None
        for name, stream in self.assigned().items():
            if silence.names is None or name in silence.names:
                self._sink.on_silent(self._connection, stream)
        return silence.reason
