"""Puts events in order: each once, missing ones filled in or declared.

It stands between the feed and the hub. Events behind a gap wait in a bounded buffer, while other streams go on. Missing
events arrive late by themselves (from the other of two connections, or reordered), or come from the venue's history;
those that have not come by the deadline are declared, with the reason.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.market import Event, Gap, Health, Incoming, Kline
from komas.model.streams import Stream
from komas.venues.core.complaints import Complaints
from komas.venues.core.filling import Ending, Filling, GapQueue, WaitingEvent
from komas.venues.core.health import Condition, HealthCause, StreamHealth
from komas.venues.core.ports import EventHistory, MarketSink, Unreadable
from komas.venues.core.prober import Prober
from komas.venues.core.sequencing import Sequencer, Verdict, number_of
from komas.venues.core.statistics import GapFillStatistics, GapTally

log = event_logger(__name__)

DEADLINE_S: Final = 15.0  # for one gap: what is live waits behind it
ATTEMPT_S: Final = 3.0  # for one that had to wait for another of its stream, where that did not last too long
LATE_S: Final = 0.5  # what is only late comes by itself: two connections are some tenths of a second apart
RETRY_S: Final = 0.5  # REST answers from another database than the streams, a moment behind them
RETRY_MAX_S: Final = 4.0  # a host that cannot be asked is asked ever more seldom
ODD_S: Final = 2.0  # an answer that cannot be read may come from a proxy in between
WAITING: Final = 10_000  # events behind one gap: some seconds of the busiest pair
WAITING_IN_ALL: Final = 200_000  # all streams have a gap after a reconnect
PAGES: Final = 20  # of one gap: a stream that was away for longer has other gaps to declare than this one
RELEASED: Final = 128  # of what waited, at one go: a subscriber that reads at once can take it
ASKED: Final = 8  # gaps that are asked for beside each other
_MISSING: Final = Condition(Health.RECOVERING, "events wait behind missing ones, which are asked for", is_doubtful=True)
_WHOLE: Final = "nothing is waited for any more"
_ENDED: Final = "the stream ended"


class GapFiller:
    """A ``FeedSink`` that passes events on to a ``MarketSink``; ``run()`` it beside the feed."""

    def __init__(
        self,
        sink: MarketSink,
        history: EventHistory,
        health: StreamHealth,
        clock_ms: Callable[[], int],
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._sink = sink
        self._history = history
        self._health = health
        self._clock_ms = clock_ms
        self._deadline_s = deadline_s
        self._sequencer = Sequencer()
        self._resumed: set[Stream] = set()  # streams of which nothing has come since another process led
        self._queues: dict[Stream, GapQueue] = {}
        self._prober = Prober(
            history,
            latest=self._sequencer.latest,
            is_waiting=lambda stream: stream in self._queues,
            take=self._take_found,
        )
        self._pending: deque[tuple[Stream, GapQueue]] = deque()
        self._asking = trio.Semaphore(ASKED)
        self._work = trio.lowlevel.ParkingLot()
        self._waiting = 0
        self._tally = GapTally()
        self._complaints = Complaints(log)

    def statistics(self) -> GapFillStatistics:
        """Counts, for metrics."""
        return self._tally.shown(len(self._queues))

    def resume(self, stream: Stream, event: Event) -> None:
        """Go on after an event that another process published: what it has missed since then is asked for at once."""
        self._sequencer.resume(stream, event)
        self._resumed.add(stream)

    def latest(self, stream: Stream) -> Event | None:
        """The newest event of a stream, ``None`` before its first."""
        return self._sequencer.latest(stream)

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Pass on the next events; hold back those behind a gap; drop those that were seen before."""
        left: Sequence[Event] = events  # type: ignore[assignment]  # changes of order books do not come here
        while left:
            count = 0 if stream in self._queues else self._sequencer.follow(stream, left)
            if count:
                if self._resumed:
                    self._resumed.discard(stream)
                self._prober.settle(stream)
                self._sink.publish_all(stream, left if count == len(left) else left[:count], received_ms)
            if count == len(left):
                return
            event, left = left[count], left[count + 1 :]
            self._take(stream, event, received_ms, self._sequencer.judge(stream, event, received_ms))

    def on_suspect(self, stream: Stream) -> None:
        """Ask for what a stream may have missed, unless its next events show it soon."""
        self._prober.suspect(stream)

    def on_reset(self, stream: Stream) -> None:
        """Start the stream from nothing; what waits is nobody's."""
        if (queue := self._queues.pop(stream, None)) is not None:
            self._let_go(stream, queue)
        self._prober.settle(stream)
        self._sequencer.forget(stream)

    def on_refused(self, stream: Stream, reason: str) -> None:
        """Pass a refusal on, after what waits."""
        queue = self._queues.get(stream)
        if queue is None or not queue.endings:  # or it is to be told already
            self._end(stream, lambda: self._sink.reject(stream, reason))

    def _take_found(self, stream: Stream, event: Event) -> None:
        """Take an event that was asked for because it might have been missed."""
        now_ms = self._clock_ms()
        self._take(stream, event, now_ms, self._sequencer.judge(stream, event, now_ms), backfilled=True)

    def _take(
        self, stream: Stream, event: Event, received_ms: int, verdict: Verdict, *, backfilled: bool = False
    ) -> None:
        if not verdict.is_new:
            self._came_again(stream, WaitingEvent(event, received_ms, trio.current_time(), backfilled=backfilled))
            return
        self._prober.settle(stream)
        counts = self._tally.of_kind[stream.kind]
        counts.filled += backfilled
        gap = verdict.gap
        if verdict.is_restart and gap is not None:
            self._complaints.warning("sequence reset", stream=stream.name, after=gap.first)
            self._end(stream, partial(self._sink.reset_sequence, stream, gap))
            gap = None  # it is told
        elif gap is not None:
            counts.gaps += 1
            self._complaints.warning("gap", stream=stream.name, first=gap.first, last=gap.last)
        if gap is None and stream not in self._queues:
            self._sink.publish(stream, event, received_ms, backfilled=backfilled)
        else:
            self._let_wait(stream, WaitingEvent(event, received_ms, trio.current_time(), gap, backfilled))

    def _let_wait(self, stream: Stream, event: WaitingEvent) -> None:
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = GapQueue()
            self._health.report(stream, HealthCause.GAP, _MISSING, at_once=False)
            self._pending.append((stream, queue))
            self._work.unpark()
        queue.wait(event)
        self._waiting += 1
        if self._is_too_much(queue):
            queue.cut()

    def _is_too_much(self, queue: GapQueue) -> bool:
        return len(queue.waiting) > WAITING or self._waiting > WAITING_IN_ALL

    def _came_again(self, stream: Stream, again: WaitingEvent) -> None:
        """Keep late events; drop repeated ones, and updates of candles that are closed."""
        queue, event = self._queues.get(stream), again.event
        is_final = not isinstance(event, Kline) or event.is_closed
        if queue is not None and is_final and queue.is_missing(number := number_of(event)):
            queue.late[number] = again
            queue.came_late.unpark_all()
        else:
            self._tally.repeated += 1

    # What runs behind

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prober.run)
            while True:
                while self._pending:
                    nursery.start_soon(self._release, *self._pending.popleft(), name="backfill")
                await self._work.park()

    async def _release(self, stream: Stream, queue: GapQueue) -> None:
        """Fill each gap, then pass on the events behind it, until none waits."""
        released = 0
        while self._queues.get(stream) is queue:
            if released >= RELEASED:
                released = 0
                if self._is_too_much(queue):  # what waits is bounded
                    await trio.lowlevel.checkpoint()
                else:
                    await self._sink.settled()
                continue
            if not queue.waiting:
                # No await since the look at what waits: the next event passes through again, in order.
                del self._queues[stream]
                self._health.clear(stream, HealthCause.GAP, _WHOLE)
                return
            first = queue.waiting[0]
            if isinstance(first, WaitingEvent) and first.gap is not None and not queue.endings:
                queue.waiting[0] = msgspec.structs.replace(first, gap=None)
                queue.gaps.pop(0)
                queue.is_crowded = self._is_too_much(queue)
                await self._fill(stream, first.gap, queue, first.at)
            else:
                self._waiting -= 1
                released += 1
                self._pass_on(stream, queue)

    def _pass_on(self, stream: Stream, queue: GapQueue) -> None:
        """Pass on what waits first; a gap before it is not asked for."""
        first = queue.waiting.popleft()
        if isinstance(first, Ending):
            queue.endings -= 1
            first.tell()
            return
        if first.gap is not None:
            queue.gaps.pop(0)
            self._filling(stream, first.gap, queue).finish(_ENDED)
        self._sink.publish(stream, first.event, first.received_ms, backfilled=first.backfilled)

    def _filling(self, stream: Stream, gap: Gap, queue: GapQueue) -> Filling:
        counts = self._tally.of_kind[stream.kind]
        return Filling(stream, gap, queue.late, sink=self._sink, counts=counts, clock_ms=self._clock_ms)

    async def _fill(self, stream: Stream, gap: Gap, queue: GapQueue, missed_at: float) -> None:
        """Publish the missing events; declare those that could not be obtained, with the reason."""
        filling = queue.filling = self._filling(stream, gap, queue)
        reason = f"the exchange did not answer within {self._deadline_s:g} s"
        with trio.move_on_at(self._fill_by(queue, missed_at)) as queue.scope:
            # Nothing is late that came before this process was connected.
            late_s = 0.0 if stream in self._resumed else LATE_S
            self._resumed.discard(stream)
            with trio.move_on_at(missed_at + late_s):
                while not filling.insert_late():
                    await queue.came_late.park()
            if not filling.is_whole:
                async with self._asking:
                    reason = await self._ask(filling, queue)
        if queue.scope.cancelled_caught and filling.failure:
            reason += f": {filling.failure}"
        if self._queues.get(stream) is not queue:
            return  # it was let go, and everything said
        if queue.is_crowded:
            queue.is_crowded, reason = False, "too much came in the meantime"
        if queue.endings:
            reason = _ENDED
        is_whole = filling.finish(reason)
        queue.filling = None
        self._complaints.info("gap filled", stream=stream.name, events=filling.count, is_whole=is_whole)

    def _fill_by(self, queue: GapQueue, missed_at: float) -> float:
        """When to give up a gap that was found at ``missed_at``."""
        if queue.is_crowded:
            return -math.inf
        attempt_by = min(trio.current_time() + ATTEMPT_S, queue.began_at + 2 * self._deadline_s)
        return max(missed_at + self._deadline_s, attempt_by)

    async def _ask(self, filling: Filling, queue: GapQueue) -> str:
        """Request page after page; returns why events are still missing."""
        pages = failures = 0
        while pages < PAGES:
            before, wait_s = filling.next, RETRY_S
            try:
                page = await self._history.page(filling.stream, filling.next, filling.last)
            except (Unreadable, VenueError) as error:
                filling.failure = str(error)
                again_s = self._again_s(error, failures, queue)
                failures += 1
                if again_s is None:
                    return str(error)
                page, wait_s = [], again_s
            if not await self._insert_all(filling, queue, page):
                return _ENDED
            if filling.insert_late():
                return ""
            if filling.next == before:
                await trio.sleep(wait_s)
            else:
                pages += 1
        return "more is missing than is asked for"

    @staticmethod
    def _again_s(error: Unreadable | VenueError, failures: int, queue: GapQueue) -> float | None:
        """Seconds until the next request after a failure; ``None`` if it is not worth waiting for."""
        if isinstance(error, Unreadable) or error.cause is Cause.PROTOCOL:
            return ODD_S
        if error.cause is Cause.NETWORK:
            return error.retry_after_s or min(RETRY_MAX_S, math.ldexp(RETRY_S, min(failures, 10)))
        wait_s = error.retry_after_s
        return wait_s if wait_s and trio.current_time() + wait_s < queue.scope.deadline else None

    async def _insert_all(self, filling: Filling, queue: GapQueue, page: list[tuple[int, Event]]) -> bool:
        """Publish a page, piece by piece; whether the stream was not reset meanwhile."""
        for count, (number, event) in enumerate(page):
            if count and count % RELEASED == 0:
                with trio.CancelScope(shield=True):  # the rest of the page is not missing, whatever is over now
                    await self._sink.settled()
            if self._queues.get(filling.stream) is not queue:
                return False
            filling.insert(number, event)
        return self._queues.get(filling.stream) is queue

    def _end(self, stream: Stream, tell: Callable[[], None]) -> None:
        """Pass on what waits, with its gaps declared, then tell; by and by, where readers could not take it at once."""
        queue = self._queues.get(stream)
        if queue is None:
            tell()
            return
        queue.end(tell)
        self._waiting += 1
        if len(queue.waiting) <= RELEASED:
            del self._queues[stream]
            self._let_go(stream, queue)
            if queue.filling is not None:
                queue.filling.finish(_ENDED)
            while queue.waiting:
                self._pass_on(stream, queue)

    def _let_go(self, stream: Stream, queue: GapQueue) -> None:
        """Nothing waits for this queue any more."""
        self._health.clear(stream, HealthCause.GAP)
        queue.scope.cancel(_ENDED)
        self._waiting -= len(queue.waiting)
