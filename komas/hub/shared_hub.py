"""The hub of one process of many: what is published comes from the log that all of them read.

So histories are alike everywhere, and a reader's position is valid at any process. Which streams are open, and the
names of their epochs, come from there, too; the interest of this process is only what it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from komas.hub.hub import Hub
from komas.hub.open_streams import SharedStreams
from komas.model.codec import Envelope, StreamPosition
from komas.model.market import Gap
from komas.model.streams import Stream

UNTOLD: Final = 64  # holes among publications that are remembered: one for each term of the last hours


class SharedHub(Hub):
    """A ``Hub`` that a mirror of the log tells everything; ``epoch`` names the life of the log."""

    open_streams: SharedStreams
    _told = 0  # the newest publication that was told here
    _untold: tuple[tuple[int, int], ...] = ()  # between which others nothing was told, of whatever stream

    def _streams(self, history_length: int, epoch: Callable[[], str]) -> SharedStreams:
        return SharedStreams(history_length, self._history_limit, epoch, lambda: self._publication)

    @property
    def publication(self) -> int:
        """Of the newest event or gap that is remembered, of any stream."""
        return self._publication

    def begin_at(self, publication: int) -> None:
        """The log is read from the event after this one on: what came before is not known here."""
        self._publication = max(self._publication, publication)

    def note_told(self, first: int, last: int) -> None:
        """Publications from the first to the last are told here, whether or not they are news."""
        if self._told and first > self._told + 1:
            self._untold = (*self._untold[1 - UNTOLD :], (self._told, first))
        self._told = max(self._told, last)

    def note_all_told(self, publication: int) -> None:
        """Everything up to a publication was told once more."""
        self._untold = tuple((max(last, publication), first) for last, first in self._untold if publication < first - 1)
        self._told = max(self._told, publication)

    def is_untold(self, publication: int) -> bool:
        """Whether others were told something here that came later, but not this: it is lost, or still to come."""
        return any(last < publication < first for last, first in self._untold)

    def adopt(self, stream: Stream, epoch: str) -> None:
        """A stream is open, in an epoch with this name."""
        self.open_streams.adopt(stream, epoch)

    def begin_after(self, stream: Stream, publication: int) -> None:
        """What follows is the history of an open stream from this publication on, where none of it is known here."""
        self.open_streams.begin_after(stream, publication)

    def release(self, stream: Stream) -> None:
        """A stream is not open any more."""
        self.open_streams.release(stream)
        self.latest.forget(stream)

    def deliver(self, stream: Stream, envelopes: Sequence[Envelope]) -> None:
        """Publish events of one stream that is open, in order, with the publications that they have; never waits."""
        self._published += len(envelopes)
        kept = [envelope for envelope in envelopes if envelope.sequence is not None]
        if kept:
            self._publication = max(self._publication, kept[-1].publication)  # a history that is written again is older
        self._give(self.open_streams.by_stream[stream], envelopes, kept)

    def deliver_gap(self, stream: Stream, gap: Gap, publication: int) -> None:
        """Tell subscribers that events are missing; the notice has this publication."""
        newest, self._publication = self._publication, publication - 1
        self.publish_gap(stream, gap)
        self._publication = max(newest, self._publication)

    def has_passed(self, stream: Stream | None, place: StreamPosition) -> bool:
        """Whether nothing that a reader at a place has received is still to come here.

        The place is one of a stream, or, without one, among the events of all of them.
        """
        if stream is None:
            return place.epoch == self.epoch and place.offset <= self._publication and not self.is_untold(place.offset)
        if self.open_streams.adopted(stream) != place.epoch:
            return False
        newest = self.open_streams.by_stream[stream].history.newest
        return newest is not None and place.offset <= newest

    def _close(self, stream: Stream) -> None:
        self.open_streams.close(stream)
        if stream not in self.open_streams.by_stream:
            self.latest.forget(stream)
