"""One line of facts that nobody may lose: who falls behind is dismissed, and comes back with a position.

The counterpart of ``hub.Hub`` for signals: no stream to choose, nothing to merge, nothing remembered. The store
remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import trio

from komas.errors import Dismissed
from komas.model.signals import SignalEnvelope


class TopicStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and listeners now."""

    published: int
    listeners: int
    dismissed: int


class Place:
    """One listener's place: what was published since it was taken waits here, ``capacity`` envelopes at most."""

    __slots__ = ("_post", "_slot", "is_dismissed")

    def __init__(self, capacity: int) -> None:
        self._slot, self._post = trio.open_memory_channel[SignalEnvelope](capacity)
        self.is_dismissed = False

    def put(self, envelope: SignalEnvelope) -> None:
        """Leave one envelope; a listener without room for it is dismissed."""
        if self.is_dismissed:
            return
        try:
            self._slot.send_nowait(envelope)
        except trio.WouldBlock:
            self.dismiss()

    def dismiss(self) -> None:
        """Let the listener go, once it has taken what waits."""
        self.is_dismissed = True
        self._slot.close()

    async def take(self) -> list[SignalEnvelope]:
        """Wait for envelopes and take all there are, in order; raises ``Dismissed`` after the last before the loss."""
        try:
            taken = [await self._post.receive()]
        except trio.EndOfChannel:
            raise Dismissed("the listener fell behind and must resume from its last position") from None
        while self._post.statistics().current_buffer_used:
            taken.append(self._post.receive_nowait())
        return taken

    def close(self) -> None:
        """Forget what waits."""
        self._slot.close()
        self._post.close()


class Topic:
    """Publish to all who listen; never waits. ``position`` is that of the last envelope published."""

    def __init__(self) -> None:
        self.position = 0
        self._places: dict[Place, None] = {}
        self._published = 0
        self._dismissed = 0

    def publish(self, envelope: SignalEnvelope) -> None:
        """Hand one fact to every listener; positions rise by one."""
        self.position = envelope.event.position
        self._published += 1
        for place in self._places:
            place.put(envelope)

    def reset(self, position: int) -> None:
        """Go on from another position: every listener is dismissed, for what it has seen is not what there is."""
        self.position = position
        for place in self._places:
            place.dismiss()

    @contextmanager
    def listen(self, capacity: int) -> Iterator[Place]:
        """Listen until the block is left."""
        place = Place(capacity)
        self._places[place] = None
        try:
            yield place
        finally:
            del self._places[place]
            self._dismissed += place.is_dismissed
            place.close()

    def statistics(self) -> TopicStatistics:
        """Counts, for telemetry."""
        return TopicStatistics(self._published, len(self._places), self._dismissed)
