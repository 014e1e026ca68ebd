"""Puts events in order: each once, missing ones filled in or declared.

It stands between the feed and the hub. Events behind a gap wait in a bounded buffer, while other streams go on. Missing
events arrive late by themselves (from the other of two connections, or reordered), or come from the venue's history;
those that have not come by the deadline are declared, with the reason.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.market import Event, Gap, Health, Incoming, Kline
from komas.model.streams import Stream, next_number, previous_number
from komas.venues.core import numbering
from komas.venues.core.health import Cause as HealthCause
from komas.venues.core.health import Condition, StreamHealth
from komas.venues.core.ports import EventHistory, MarketSink, Unreadable
from komas.venues.core.sequencing import Sequencer, Verdict, number_of
from komas.venues.core.statistics import GapFillStatistics

log = logging.getLogger(__name__)

DEADLINE_S: Final = 15.0  # for one gap: what is live waits behind it
ATTEMPT_S: Final = 3.0  # for one that had to wait for another of its stream, where that did not last too long
LATE_S: Final = 0.5  # what is only late comes by itself: two connections are some tenths of a second apart
RETRY_S: Final = 0.5  # REST answers from another database than the streams, a moment behind them
RETRY_MAX_S: Final = 4.0  # a host that cannot be asked is asked ever more seldom
ODD_S: Final = 2.0  # an answer that cannot be read may come from a proxy in between
PROBE_S: Final = 2.0  # a stream that is heard again and says nothing for so long is asked for over REST,
PROBE_AGAIN_S: Final = 10.0  # and again where that failed,
PROBE_SELDOM_S: Final = 60.0  # or was refused
WAITING: Final = 10_000  # events behind one gap: some seconds of the busiest pair
WAITING_IN_ALL: Final = 200_000  # all streams have a gap after a reconnect
PAGES: Final = 20  # of one gap: a stream that was away for longer has other gaps to declare than this one
RELEASED: Final = 128  # of what waited, at one go: a subscriber that reads at once can take it
ASKED: Final = 8  # gaps that are asked for beside each other
PROBES: Final = 4  # and streams that are only doubted
_MISSING: Final = Condition(Health.RECOVERING, "events wait behind missing ones, which are asked for", is_doubtful=True)
_WHOLE: Final = "nothing is waited for any more"


class _Fact(msgspec.Struct, frozen=True):
    """One waiting event, when it arrived, and the gap right before it."""

    event: Event
    received_ms: int
    at: float
    gap: Gap | None = None
    backfilled: bool = False


class _Filling:
    """How far one gap is filled."""

    def __init__(self, stream: Stream, first: int, last: int) -> None:
        self.stream = stream
        self.next = first
        self.last = last
        self.count = 0
        self.failure = ""  # the last one's words

    @property
    def is_whole(self) -> bool:
        """Whether the gap is filled completely."""
        return self.next > self.last

    def until(self, last: int, reason: str) -> Gap:
        """The part that is missing up to a number."""
        return Gap(stream=self.stream.name, first=self.next, last=last, reason=reason)


class _Recovery:
    """A stream with waiting events; ``filling`` is the gap being filled, ``late`` has events that arrived late."""

    def __init__(self) -> None:
        self.waiting: deque[_Fact] = deque()
        self.late: dict[int, _Fact] = {}
        self.came_late = trio.lowlevel.ParkingLot()
        self.filling: _Filling | None = None
        self.is_crowded = False
        self.began_at = trio.current_time()
        self.scope = trio.CancelScope()

    def is_missing(self, number: int) -> bool:
        """Whether a number lies in a gap that is not filled yet."""
        if number in self.late:
            return False
        filling = self.filling
        if filling is not None and filling.next <= number <= filling.last:
            return True
        gaps = [fact.gap for fact in self.waiting if fact.gap is not None]
        return any(gap.first <= number <= gap.last for gap in gaps if gap.first is not None and gap.last is not None)

    def cut(self) -> None:
        """Stop waiting for missing events: too many others wait behind them."""
        self.is_crowded = True
        self.scope.cancel("too much waits behind the gap")


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
        self._health = health
        self._history = history
        self._clock_ms = clock_ms
        self._deadline_s = deadline_s
        self._continuity = Sequencer()
        self._recoveries: dict[Stream, _Recovery] = {}
        self._pending: deque[tuple[Stream, _Recovery]] = deque()
        self._probes: dict[Stream, float] = {}  # streams that may have missed something, and when to ask for them
        self._asking = trio.Semaphore(ASKED)
        self._work = trio.lowlevel.ParkingLot()
        self._probing = trio.lowlevel.ParkingLot()
        self._waiting = 0
        self._repeated = 0
        self._gaps = 0
        self._filled = 0
        self._declared = 0

    def statistics(self) -> GapFillStatistics:
        """Counts, for metrics."""
        return GapFillStatistics(self._repeated, self._gaps, self._filled, self._declared, len(self._recoveries))

    # What the feed hands over

    def on_events(self, stream: Stream, events: Sequence[Incoming], received_ms: int) -> None:
        """Pass on the next events; hold back those behind a gap; drop those that were seen before."""
        left: Sequence[Event] = events  # type: ignore[assignment]  # the books took everything else
        while left:
            count = 0 if stream in self._recoveries else self._continuity.follow(stream, left)
            if count:
                if self._probes:
                    self._probes.pop(stream, None)
                self._sink.publish_all(stream, left if count == len(left) else left[:count], received_ms)
            if count == len(left):
                return
            event, left = left[count], left[count + 1 :]
            self._take(stream, event, received_ms, self._continuity.judge(stream, event, received_ms))

    def on_suspect(self, stream: Stream) -> None:
        """Ask for what a stream may have missed, unless its next events show it soon."""
        if numbering.can_fill(stream) and self._continuity.latest(stream) is not None:
            self._look_later(stream, PROBE_S)

    def _look_later(self, stream: Stream, wait_s: float) -> None:
        self._probes[stream] = trio.current_time() + wait_s
        self._probing.unpark_all()

    def on_reset(self, stream: Stream) -> None:
        """Start the stream from nothing."""
        self._let_go(stream)
        self._probes.pop(stream, None)
        self._continuity.forget(stream)

    def on_refused(self, stream: Stream, reason: str) -> None:
        """Pass a refusal on, after what waits."""
        self._let_go(stream)
        self._sink.reject(stream, reason)

    def _take(
        self, stream: Stream, event: Event, received_ms: int, verdict: Verdict, *, backfilled: bool = False
    ) -> None:
        if not verdict.is_new:
            self._came_again(stream, _Fact(event, received_ms, trio.current_time(), backfilled=backfilled))
            return
        self._probes.pop(stream, None)
        self._filled += backfilled
        gap = verdict.gap
        if verdict.is_restart and gap is not None:
            log.warning("sequence reset", extra={"stream": stream.name, "after": gap.first})
            self._let_go(stream)
            self._sink.reset_sequence(stream, gap)
            gap = None  # it is told
        elif gap is not None:
            self._gaps += 1
            log.warning("gap", extra={"stream": stream.name, "first": gap.first, "last": gap.last})
        if gap is None and stream not in self._recoveries:
            self._sink.publish(stream, event, received_ms, backfilled=backfilled)
        else:
            self._let_wait(stream, _Fact(event, received_ms, trio.current_time(), gap, backfilled))

    def _let_wait(self, stream: Stream, fact: _Fact) -> None:
        recovery = self._recoveries.get(stream)
        if recovery is None:
            recovery = self._recoveries[stream] = _Recovery()
            self._health.report(stream, HealthCause.GAP, _MISSING, at_once=False)
            self._pending.append((stream, recovery))
            self._work.unpark()
        recovery.waiting.append(fact)
        self._waiting += 1
        if self._is_too_much(recovery):
            recovery.cut()

    def _is_too_much(self, recovery: _Recovery) -> bool:
        return len(recovery.waiting) > WAITING or self._waiting > WAITING_IN_ALL

    def _came_again(self, stream: Stream, fact: _Fact) -> None:
        """Keep late events; drop repeated ones, and updates of candles that are closed."""
        recovery, event = self._recoveries.get(stream), fact.event
        is_final = not isinstance(event, Kline) or event.is_closed
        if recovery is not None and is_final and recovery.is_missing(number := number_of(event)):
            recovery.late[number] = fact
            recovery.came_late.unpark_all()
        else:
            self._repeated += 1

    # What runs behind

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(PROBES):
                nursery.start_soon(self._probe, name="backfill probe")
            while True:
                while self._pending:
                    nursery.start_soon(self._recover, *self._pending.popleft(), name="backfill")
                await self._work.park()

    async def _recover(self, stream: Stream, recovery: _Recovery) -> None:
        """Fill each gap, then pass on the events behind it, until none waits."""
        released = 0
        while self._recoveries.get(stream) is recovery:
            if released >= RELEASED and not self._is_too_much(recovery):  # what waits is bounded
                released = 0
                await self._sink.settled()
                continue
            if not recovery.waiting:
                # No await since the look at what waits: the next event passes through again, in order.
                del self._recoveries[stream]
                self._health.clear(stream, HealthCause.GAP, _WHOLE)
                return
            fact = recovery.waiting[0]
            if fact.gap is not None:
                recovery.waiting[0] = msgspec.structs.replace(fact, gap=None)
                recovery.is_crowded = self._is_too_much(recovery)
                await self._fill(stream, fact.gap, recovery, fact)
            else:
                recovery.waiting.popleft()
                self._waiting -= 1
                released += 1
                self._sink.publish(stream, fact.event, fact.received_ms, backfilled=fact.backfilled)

    async def _fill(self, stream: Stream, gap: Gap, recovery: _Recovery, behind: _Fact) -> None:
        """Publish the missing events; declare those that could not be obtained, with the reason."""
        assert gap.first is not None  # a gap in the numbers has both ends
        assert gap.last is not None
        filling = recovery.filling = _Filling(stream, gap.first, gap.last)
        reason = f"the exchange did not answer within {self._deadline_s:g} s"
        with trio.move_on_at(self._fill_by(recovery, behind.at)) as recovery.scope:
            with trio.move_on_at(behind.at + LATE_S):
                while not self._insert_late(filling, recovery):
                    await recovery.came_late.park()
            if not filling.is_whole:
                async with self._asking:
                    reason = await self._ask(filling, recovery)
        if recovery.scope.cancelled_caught and filling.failure:
            reason += f": {filling.failure}"
        if self._recoveries.get(stream) is not recovery:
            return  # it was let go, and everything said
        if recovery.is_crowded:
            recovery.is_crowded, reason = False, "too much came in the meantime"
        is_whole = self._finish(filling, recovery, reason)
        recovery.filling = None
        log.info("gap filled", extra={"stream": stream.name, "events": filling.count, "is_whole": is_whole})

    def _fill_by(self, recovery: _Recovery, missed_at: float) -> float:
        """When to give up a gap that was found at ``missed_at``."""
        if recovery.is_crowded:
            return -math.inf
        attempt_by = min(trio.current_time() + ATTEMPT_S, recovery.began_at + 2 * self._deadline_s)
        return max(missed_at + self._deadline_s, attempt_by)

    async def _ask(self, filling: _Filling, recovery: _Recovery) -> str:
        """Request page after page; returns why events are still missing."""
        pages = failures = 0
        while pages < PAGES:
            before, wait_s = filling.next, RETRY_S
            try:
                facts = await self._history.page(filling.stream, filling.next, filling.last)
            except (Unreadable, VenueError) as error:
                filling.failure = str(error)
                again_s = self._again_s(error, failures, recovery)
                failures += 1
                if again_s is None:
                    return str(error)
                facts, wait_s = [], again_s
            if not await self._insert_all(filling, recovery, facts):
                return "the stream ended"
            if self._insert_late(filling, recovery):
                return ""
            if filling.next == before:
                await trio.sleep(wait_s)
            else:
                pages += 1
        return "more is missing than is asked for"

    @staticmethod
    def _again_s(error: Unreadable | VenueError, failures: int, recovery: _Recovery) -> float | None:
        """Seconds until the next request after a failure; ``None`` if it is not worth waiting for."""
        if isinstance(error, Unreadable) or error.cause is Cause.PROTOCOL:
            return ODD_S
        if error.cause is Cause.NETWORK:
            return error.retry_after_s or min(RETRY_MAX_S, math.ldexp(RETRY_S, min(failures, 10)))
        wait_s = error.retry_after_s
        return wait_s if wait_s and trio.current_time() + wait_s < recovery.scope.deadline else None

    async def _insert_all(self, filling: _Filling, recovery: _Recovery, facts: list[tuple[int, Event]]) -> bool:
        """Publish a page, piece by piece; whether the stream was not reset meanwhile."""
        for count, (number, fact) in enumerate(facts):
            if count and count % RELEASED == 0:
                with trio.CancelScope(shield=True):  # the rest of the page is not missing, whatever is over now
                    await self._sink.settled()
            if self._recoveries.get(filling.stream) is not recovery:
                return False
            self._insert(filling, recovery, number, fact)
        return self._recoveries.get(filling.stream) is recovery

    def _insert(self, filling: _Filling, recovery: _Recovery, number: int, fact: Event) -> None:
        """Publish one event of a page, after late ones before it; declare what the page leaves out."""
        if number > filling.last:
            return
        self._insert_late(filling, recovery)
        if number < filling.next:
            return
        self._close_up(filling, recovery, number, "the exchange has it not")
        recovery.late.pop(number, None)
        self._step(filling, number)
        self._filled += 1
        self._sink.publish(filling.stream, fact, self._clock_ms(), backfilled=True)

    def _insert_late(self, filling: _Filling, recovery: _Recovery) -> bool:
        """Publish late events that are next; whether the gap is filled completely."""
        while filling.next in recovery.late:
            self._send_late(filling, recovery, filling.next)
        return filling.is_whole

    def _close_up(self, filling: _Filling, recovery: _Recovery, up_to: int, reason: str) -> None:
        """Publish late events before a number, and declare the rest."""
        for number in sorted(number for number in recovery.late if filling.next <= number < up_to):
            self._declare_until(filling, number, reason)
            self._send_late(filling, recovery, number)
        self._declare_until(filling, up_to, reason)

    def _finish(self, filling: _Filling, recovery: _Recovery, reason: str) -> bool:
        """Declare what is still missing; whether nothing was."""
        declared = self._declared
        self._close_up(filling, recovery, next_number(filling.stream, filling.last), reason)
        return self._declared == declared

    def _send_late(self, filling: _Filling, recovery: _Recovery, number: int) -> None:
        fact = recovery.late.pop(number)
        self._step(filling, number)
        self._sink.publish(filling.stream, fact.event, fact.received_ms, backfilled=fact.backfilled)

    def _declare_until(self, filling: _Filling, number: int, reason: str) -> None:
        """Declare the missing events before a number."""
        if filling.next < number:
            self._declare(filling.stream, filling.until(previous_number(filling.stream, number), reason))
            filling.next = number

    def _step(self, filling: _Filling, number: int) -> None:
        filling.next = next_number(filling.stream, number)
        filling.count += 1

    def _declare(self, stream: Stream, gap: Gap) -> None:
        self._declared += 1
        self._sink.publish_gap(stream, gap)

    def _let_go(self, stream: Stream) -> None:
        """Pass on all waiting events, with their gaps declared."""
        recovery = self._recoveries.pop(stream, None)
        if recovery is None:
            return
        self._health.clear(stream, HealthCause.GAP)
        recovery.scope.cancel("the stream ended")
        self._waiting -= len(recovery.waiting)
        if recovery.filling is not None:
            self._finish(recovery.filling, recovery, "the stream ended")
        for fact in recovery.waiting:
            if fact.gap is not None:
                self._declare(stream, fact.gap)
            self._sink.publish(stream, fact.event, fact.received_ms, backfilled=fact.backfilled)

    # A stream that is heard again

    async def _probe(self) -> None:
        while True:
            due = min(self._probes.items(), key=lambda item: item[1], default=None)
            if due is None:
                await self._probing.park()
            elif due[1] > trio.current_time():
                with trio.move_on_at(due[1]):
                    await self._probing.park()  # another one may be due before
            else:
                await self._look(due[0])

    async def _look(self, stream: Stream) -> None:
        """Ask for what came after a stream's newest event; try again until the stream itself has news."""
        del self._probes[stream]
        latest = self._continuity.latest(stream)
        if latest is None:
            return
        if stream in self._recoveries or not self._history.has_room:
            self._look_later(stream, PROBE_AGAIN_S)  # what is known to be missing goes first
            return
        try:
            facts = await self._history.page(stream, numbering.first_after(stream, latest), None)
        except Unreadable as error:
            log.warning("probe cannot be read", extra={"stream": stream.name, "reason": str(error)})
            self._look_again(stream, latest, PROBE_SELDOM_S)
            return
        except VenueError as error:
            log.info("probe failed", extra={"stream": stream.name, "reason": str(error)})
            may_answer = error.cause is Cause.NETWORK or error.retry_after_s is not None
            wait_s = PROBE_AGAIN_S if may_answer else PROBE_SELDOM_S
            self._look_again(stream, latest, max(wait_s, error.retry_after_s or 0.0))
            return
        if self._continuity.latest(stream) is None:
            return  # no longer wanted
        now_ms = self._clock_ms()
        for _, fact in facts:
            self._take(stream, fact, now_ms, self._continuity.judge(stream, fact, now_ms), backfilled=True)

    def _look_again(self, stream: Stream, latest: Event, wait_s: float) -> None:
        """Ask later, unless the stream had news in the meantime."""
        if self._continuity.latest(stream) is latest:
            self._look_later(stream, wait_s)
