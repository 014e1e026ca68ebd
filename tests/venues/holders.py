"""Connections that hold every stream, for tests of what is made of that."""

from __future__ import annotations

import math

import trio

from komas.model.streams import Stream
from komas.venues.core.liveness import LivenessTracker


class HoldingConnection:
    """A connection that is up; each stream on it is heard when the test says so."""

    url, held, messages, connected_at, connected_at_ms, is_delivering = "ws://x.test", 1, 1, 0.0, 0, True

    def __init__(self, promised_s: float = math.inf) -> None:
        self._promised_s = promised_s
        self._trackers: dict[Stream, LivenessTracker] = {}
        self.is_quiet = False  # as a whole

    async def run(self, *_tell: object) -> None:
        """It is up."""

    def retire(self) -> None:
        """It stays."""

    def carries(self, _older: HoldingConnection, _recent_s: float) -> bool:
        """It is alone."""
        return True

    def tracker(self, stream: Stream) -> LivenessTracker:
        """The rhythm of a stream, which was acknowledged when it was first asked for."""
        if stream not in self._trackers:
            self._trackers[stream] = LivenessTracker(self._promised_s)
            self._trackers[stream].begin(trio.current_time())
        return self._trackers[stream]

    def message_room(self, _now: float) -> int:
        return 0

    def is_silent(self, _now: float) -> bool:
        """As the test says."""
        return self.is_quiet

    def hear(self, *streams: Stream) -> None:
        """Data frames of streams came."""
        for stream in streams:
            self.tracker(stream).heard(trio.current_time())


class Holding:
    """What ``StreamHealth`` asks: every stream is held by these connections."""

    def __init__(self, *connections: HoldingConnection) -> None:
        self.connections = list(connections)
        self.placed: list[Stream] = []

    def holders(self, _stream: Stream) -> list[HoldingConnection]:
        """All of them."""
        return self.connections

    def streams(self) -> list[Stream]:
        """Those that the test placed."""
        return self.placed


class NothingChanges:
    """No stream becomes wanted or unwanted."""

    def begin_anew(self) -> None:
        """There is nothing to count."""

    def take(self, _most: int) -> list[Stream]:
        """None."""
        return []


class AllWanted:
    """Every stream is wanted."""

    version = 0

    def __contains__(self, _stream: Stream) -> bool:
        return True

    def streams(self, _venue: object = None) -> tuple[Stream, ...]:
        """None is named."""
        return ()

    def changes(self, _venue: object) -> NothingChanges:
        """None are told."""
        return NothingChanges()

    async def changed(self, _seen: int) -> int:
        """Never."""
        await trio.sleep_forever()
        raise AssertionError
