"""The streams that one connection holds: how long each of them has been silent, and what is tried about it.

Names are the exchange's; times are seconds on trio's clock. Sans-I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from komas.model.streams import Stream
from komas.venues.core.liveness import LivenessTracker, promised_s

REMEDY_S: Final = 30.0  # a new connection that does not bring a silent stream back is followed by the next no sooner,
REMEDY_MAX_S: Final = 3600.0  # and twice as late each time: trading may be halted
_ALL: Final = ""  # the remedy of a connection that is silent as a whole


class _Remedy(msgspec.Struct, frozen=True):
    """When another connection may be tried again for a stream that stayed silent, and the wait after that."""

    next_at: float = 0.0
    after_s: float = REMEDY_S


class HeldMemory:
    """What is remembered from one connection of a link to the next."""

    def __init__(self) -> None:
        self.liveness = LivenessTracker()
        self.trackers: dict[str, LivenessTracker] = {}
        self.remedies: dict[str, _Remedy] = {}


class Silence(msgspec.Struct, frozen=True):
    """Why another connection may do better, and which streams are silent: ``None`` for all of them."""

    reason: str
    names: frozenset[str] | None


class HeldStreams:
    """What was acknowledged on one connection; ``trackers`` are the rhythms of its streams, by name."""

    def __init__(self, memory: HeldMemory) -> None:
        self._memory = memory
        self._liveness = memory.liveness.successor()
        self._inherited = dict(memory.trackers)  # until their streams are acknowledged here
        self.trackers: dict[str, LivenessTracker] = {}

    def __len__(self) -> int:
        return len(self.trackers)

    def begin(self, now: float) -> None:
        """The connection is up."""
        self._liveness.begin(now)
        self._memory.liveness = self._liveness

    def note(self, held: Collection[str], assigned: Mapping[str, Stream], now: float) -> list[Stream]:
        """Listen to each stream that is held from now on, and forget those that are not; returns those that begin."""
        for name in [name for name in self.trackers if name not in held]:
            del self.trackers[name]
            self._liveness = self._memory.liveness = LivenessTracker()  # the stream that gave the beat may be gone
            self._liveness.begin(now)
        begun = [name for name in held if name not in self.trackers and name in assigned]
        for name in begun:
            known = self._inherited.pop(name, None)
            tracker = LivenessTracker(promised_s(assigned[name])) if known is None else known.successor()
            self.trackers[name] = tracker
            tracker.begin(now)
        self._memory.trackers = {
            name: tracker for name, tracker in self._inherited.items() if name in assigned
        } | self.trackers
        return [assigned[name] for name in begun]

    def heard(self, at: float, frames: int) -> None:
        """Note that data frames came, of any stream."""
        self._liveness.heard(at, frames)

    def is_silent(self, now: float) -> bool:
        """Whether the whole connection is silent for suspiciously long."""
        return self._liveness.silent_s(now) > self._liveness.allowed_silence_s(now) / 2

    def carries(self, older: HeldStreams, wanted: Iterable[str], recent_s: float) -> bool:
        """Whether each wanted stream that the older connection holds is held here, and heard here if it is there."""
        theirs = older.trackers
        return all(self._carries(name, theirs[name], recent_s) for name in wanted if name in theirs)

    def _carries(self, name: str, theirs: LivenessTracker, recent_s: float) -> bool:
        ours = self.trackers.get(name)
        if ours is None:
            return False
        return ours.heard_at is not None or theirs.heard_at is None or theirs.heard_at <= ours.armed_at - recent_s

    def why_silent(self, now: float, *, has_delivered: bool) -> Silence | None:
        """Why another connection may do better, unless that was tried for the same streams a moment ago."""
        silent = [name for name, tracker in self.trackers.items() if tracker.is_stale(now)]
        allowed_silence_s = self._liveness.allowed_silence_s(now)
        if self.trackers and self._liveness.silent_s(now) > allowed_silence_s:
            silent.append(_ALL)
        remedies = self._memory.remedies
        for name in [name for name in remedies if name not in silent and self._is_heard(name, has_delivered)]:
            del remedies[name]
        if not any(now >= remedies.get(name, _Remedy()).next_at for name in silent):
            return None
        for name in silent:
            after_s = remedies.get(name, _Remedy()).after_s
            remedies[name] = _Remedy(now + after_s, min(REMEDY_MAX_S, 2 * after_s))
        if silent[-1] == _ALL:
            return Silence(f"no data came for {allowed_silence_s:.0f} s", None)
        reason = f"{len(silent)} of {len(self.trackers)} streams are silent, {silent[0]} among them"
        return Silence(reason, frozenset(silent))

    def _is_heard(self, name: str, has_delivered: bool) -> bool:  # noqa: FBT001 - one word more says nothing
        if name == _ALL:
            return has_delivered
        tracker = self.trackers.get(name)
        return tracker is None or tracker.heard_at is not None
