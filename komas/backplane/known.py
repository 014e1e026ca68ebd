"""What is so at a place of the log, beside events: which streams are open, what is asked for. Sans-I/O.

A mirror follows it; a leader begins with a copy, and is ahead of its mirror by what is on its way.
"""

from __future__ import annotations

from collections.abc import Callable

from komas.backplane.wire import (
    Acknowledged,
    Asked,
    Closed,
    Facts,
    Followed,
    Heard,
    Opened,
    Pinned,
    Record,
    State,
    key_of,
)
from komas.model.kinds import Kind
from komas.model.market import FeedState, FeedStatus
from komas.model.streams import Stream


class Known:
    """``epochs`` are those of the streams that are open; ``heard`` is the place up to which wishes were heard."""

    def __init__(self) -> None:
        self.epochs: dict[Stream, str] = {}
        self.acknowledged: set[Stream] = set()
        self.pins: dict[Stream, None] = {}
        self.followed: set[Kind] = set()
        self.asked = False
        self.heard = ""
        self.status = FeedStatus(state=FeedState.DISCONNECTED)

    @classmethod
    def of(cls, facts: Facts, stream_of: Callable[[str], Stream]) -> Known:
        """What a record of the log says."""
        known = cls()
        known.epochs = {stream_of(key): epoch for key, epoch in facts.epochs.items()}
        known.acknowledged = {stream_of(key) for key in facts.acknowledged}
        known.pins = {stream_of(key): None for key in facts.pins}
        known.followed = {Kind(kind) for kind in facts.followed}
        known.asked, known.heard, known.status = facts.asked, facts.heard, facts.status
        return known

    def copy(self) -> Known:
        """One to go on with."""
        other = Known()
        other.epochs, other.acknowledged = dict(self.epochs), set(self.acknowledged)
        other.pins, other.followed = dict(self.pins), set(self.followed)
        other.asked, other.heard, other.status = self.asked, self.heard, self.status
        return other

    def facts(self, life: str, publication: int, *, continues: bool = False) -> Facts:
        """All of it, as a record."""
        return Facts(
            life,
            publication,
            {key_of(stream): epoch for stream, epoch in self.epochs.items()},
            tuple(map(key_of, self.acknowledged)),
            tuple(map(key_of, self.pins)),
            tuple(sorted(self.followed)),
            self.asked,
            self.heard,
            self.status,
            continues,
        )

    def note(self, record: Record, stream_of: Callable[[str], Stream]) -> None:
        """A record changes some of it, or nothing."""
        match record:
            case Opened():
                self.epochs[stream_of(record.stream)] = record.epoch
            case Closed():
                self.forget(stream_of(record.stream))
            case Acknowledged():
                self.acknowledged.update(map(stream_of, record.streams))
            case Pinned():
                self._note_pins(dict.fromkeys(map(stream_of, record.streams)), on=record.on)
            case Followed():
                (self.followed.add if record.on else self.followed.discard)(Kind(record.kind))
            case Asked():
                self.asked = record.on
                if not record.on:
                    self.acknowledged.clear()
            case Heard():
                self.heard = record.place
            case State():
                self.status = record.status

    def _note_pins(self, streams: dict[Stream, None], *, on: bool) -> None:
        pins = {stream: None for stream in self.pins if stream not in streams}
        self.pins = pins | streams if on else pins

    def forget(self, stream: Stream) -> None:
        """A stream is not open any more."""
        self.epochs.pop(stream, None)
        self.acknowledged.discard(stream)
