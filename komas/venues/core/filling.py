"""One stream behind a gap: what waits, what came late, and how far the gap is filled. Publishes, and never waits."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from operator import itemgetter

import msgspec
import trio

from komas.model.market import Event, Gap
from komas.model.streams import Stream, next_number, previous_number
from komas.venues.core.ports import MarketSink
from komas.venues.core.statistics import GapCounts


class WaitingEvent(msgspec.Struct, frozen=True):
    """One waiting event, when it arrived, and the gap right before it."""

    event: Event
    received_ms: int
    at: float
    gap: Gap | None = None
    backfilled: bool = False


class Ending(msgspec.Struct, frozen=True):
    """The end of a stream, or of its count, in its place behind what waits: nothing before it is asked for any more."""

    tell: Callable[[], None]


class Filling:
    """One gap on its way to being filled: events from either source in order, each once; the rest is declared.

    ``late`` are the events of this stream that came late, by their numbers; what is published is taken from there.
    """

    def __init__(
        self,
        stream: Stream,
        gap: Gap,
        late: dict[int, WaitingEvent],
        *,
        sink: MarketSink,
        counts: GapCounts,
        clock_ms: Callable[[], int],
    ) -> None:
        assert gap.first is not None  # a gap in the numbers has both ends
        assert gap.last is not None
        self.stream = stream
        self.next = gap.first
        self.last = gap.last
        self.count = 0
        self.failure = ""  # the last one's words
        self._late = late
        self._sink = sink
        self._counts = counts
        self._clock_ms = clock_ms

    @property
    def is_whole(self) -> bool:
        """Whether the gap is filled completely."""
        return self.next > self.last

    def is_missing(self, number: int) -> bool:
        """Whether a number is still missing."""
        return self.next <= number <= self.last

    def insert(self, number: int, event: Event) -> None:
        """Publish one event of a page, after late ones before it; declare what the page leaves out."""
        if number > self.last:
            return
        self.insert_late()
        if number < self.next:
            return
        self._close_up(number, "the exchange has it not")
        self._late.pop(number, None)
        self._step(number)
        self._counts.filled += 1
        self._sink.publish(self.stream, event, self._clock_ms(), backfilled=True)

    def insert_late(self) -> bool:
        """Publish late events that are next; whether the gap is filled completely."""
        while self.next in self._late:
            self._publish_late(self.next)
        return self.is_whole

    def finish(self, reason: str) -> bool:
        """Declare what is still missing; whether nothing was."""
        declared = self._counts.declared
        self._close_up(next_number(self.stream, self.last), reason)
        return self._counts.declared == declared

    def _close_up(self, up_to: int, reason: str) -> None:
        """Publish late events before a number, and declare the rest."""
        for number in sorted(number for number in self._late if self.next <= number < up_to):
            self._declare_until(number, reason)
            self._publish_late(number)
        self._declare_until(up_to, reason)

    def _publish_late(self, number: int) -> None:
        late = self._late.pop(number)
        self._step(number)
        self._sink.publish(self.stream, late.event, late.received_ms, backfilled=late.backfilled)

    def _declare_until(self, number: int, reason: str) -> None:
        """Declare the missing events before a number."""
        if self.next < number:
            last = previous_number(self.stream, number)
            self._counts.declared += 1
            self._sink.publish_gap(self.stream, Gap(stream=self.stream.name, first=self.next, last=last, reason=reason))
            self.next = number

    def _step(self, number: int) -> None:
        self.next = next_number(self.stream, number)
        self.count += 1


class GapQueue:
    """The events of one stream that wait; ``filling`` is the gap being filled, ``late`` has those that arrived late."""

    def __init__(self) -> None:
        self.waiting: deque[WaitingEvent | Ending] = deque()
        self.endings = 0  # of those that wait
        self.gaps: list[tuple[int, int]] = []  # before events that wait, in their order: first and last number
        self.late: dict[int, WaitingEvent] = {}
        self.came_late = trio.lowlevel.ParkingLot()
        self.filling: Filling | None = None
        self.is_crowded = False
        self.began_at = trio.current_time()
        self.scope = trio.CancelScope()

    def is_missing(self, number: int) -> bool:
        """Whether a number lies in a gap that is not filled yet."""
        if number in self.late:
            return False
        if self.filling is not None and self.filling.is_missing(number):
            return True
        place = bisect_right(self.gaps, number, key=itemgetter(0))  # thousands wait, and repeats are as many
        return place > 0 and number <= self.gaps[place - 1][1]

    def wait(self, event: WaitingEvent) -> None:
        """Let an event wait behind those that wait already."""
        self.waiting.append(event)
        if event.gap is not None:
            assert event.gap.first is not None  # a gap in the numbers has both ends
            assert event.gap.last is not None
            self.gaps.append((event.gap.first, event.gap.last))

    def end(self, tell: Callable[[], None]) -> None:
        """Stop waiting for what is missing, and have the end told behind what waits now."""
        self.waiting.append(Ending(tell))
        self.endings += 1
        self.scope.cancel("the stream ended")

    def cut(self) -> None:
        """Stop waiting for missing events: too many others wait behind them."""
        self.is_crowded = True
        self.scope.cancel("too much waits behind the gap")
