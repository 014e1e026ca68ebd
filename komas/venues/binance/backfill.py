"""A gap is filled over REST before what follows it goes out; what cannot be filled is declared, never kept silent.

It stands between the feed and its sink, and obeys the sink's law: of each stream, in order, and it never waits. What
follows a gap waits in a bounded buffer while a task asks for what is missing; other streams go on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.market import Event, FeedStatus, Gap
from komas.model.streams import Stream
from komas.venues.binance import rows
from komas.venues.binance.wire import Unreadable
from komas.venues.ports import Sink
from komas.venues.rest import Rest

log = logging.getLogger("komas.backfill")

DEADLINE_S: Final = 10.0  # for one gap: what is live waits behind it
RETRY_S: Final = 0.5  # REST answers from another database than the streams, a moment behind them
WAITING: Final = 10_000  # facts behind one gap: some seconds of the busiest pair
PAGES: Final = 20  # of one gap: a stream that was away for longer has other gaps to declare than this one
WORKERS: Final = 4  # gaps that are filled beside each other: all streams have one after a reconnect


class BackfillStatistics(msgspec.Struct, frozen=True):
    """Counts since the start: facts filled in, gaps (or parts of them) declared; streams that wait now."""

    filled: int
    declared: int
    recovering: int


class _Fact(msgspec.Struct, frozen=True):
    """One fact that waits, since when, and the gap right before it."""

    event: Event
    received_ms: int
    at: float
    gap: Gap | None


class _Filling:
    """How far a gap is filled."""

    def __init__(self, stream: Stream, first: int, last: int) -> None:
        self.stream = stream
        self.next = first
        self.last = last
        self.count = 0

    def rest(self, reason: str) -> Gap | None:
        """What is still missing, and why."""
        if self.next > self.last:
            return None
        return Gap(stream=self.stream.name, first=self.next, last=self.last, reason=reason)


class _Recovery:
    """One stream whose facts wait; ``filling`` is what is asked for now."""

    def __init__(self, gap: Gap) -> None:
        self.waiting: deque[_Fact] = deque()
        self.next_gap: Gap | None = gap  # before the fact that comes next
        self.filling: _Filling | None = None
        self.scope = trio.CancelScope()


class Backfill:
    """A ``Sink`` in front of another one; ``run()`` it beside the feed."""

    def __init__(self, sink: Sink, rest: Rest, clock_ms: Callable[[], int]) -> None:
        self._sink = sink
        self._rest = rest
        self._clock_ms = clock_ms
        self._recoveries: dict[Stream, _Recovery] = {}
        self._pending: deque[tuple[Stream, _Recovery]] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._filled = 0
        self._declared = 0

    @property
    def status(self) -> FeedStatus:
        """The feed's state, as it was announced."""
        return self._sink.status

    def statistics(self) -> BackfillStatistics:
        """Counts, for telemetry."""
        return BackfillStatistics(self._filled, self._declared, len(self._recoveries))

    # What the feed hands over

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Pass one fact on, or let it wait behind the gap of its stream."""
        recovery = self._recoveries.get(stream)
        if recovery is None:
            self._sink.publish(stream, event, received_ms, backfilled=backfilled)
            return
        recovery.waiting.append(_Fact(event, received_ms, trio.current_time(), recovery.next_gap))
        recovery.next_gap = None
        if len(recovery.waiting) > WAITING:
            recovery.scope.cancel("too much waits behind the gap")

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Begin to fill a gap, or declare one that cannot be filled."""
        recovery = self._recoveries.get(stream)
        if recovery is not None:
            recovery.next_gap = gap
        elif rows.can_fill(stream) and gap.first is not None and gap.last is not None:
            recovery = self._recoveries[stream] = _Recovery(gap)
            self._pending.append((stream, recovery))
            self._work.unpark()
        else:
            self._declare(stream, gap)

    def announce(self, status: FeedStatus) -> None:
        """Pass the feed's state on."""
        self._sink.announce(status)

    def renew(self, stream: Stream, gap: Gap) -> None:
        """Pass a new life of a stream on, after what waits of the old one."""
        self._let_go(stream)
        self._sink.renew(stream, gap)

    def refuse(self, stream: Stream, reason: str) -> None:
        """Pass a refusal on, after what waits."""
        self._let_go(stream)
        self._sink.refuse(stream, reason)

    # What runs behind

    async def run(self) -> None:
        """Fill gaps until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work_on, name="backfill")

    async def _work_on(self) -> None:
        while True:
            while not self._pending:
                await self._work.park()
            stream, recovery = self._pending.popleft()
            await self._recover(stream, recovery)

    async def _recover(self, stream: Stream, recovery: _Recovery) -> None:
        """Fill each gap, and pass on what waits behind it, until nothing waits any more."""
        while self._recoveries.get(stream) is recovery:
            if not recovery.waiting:
                # No await since the look at what waits: the next fact passes through again, in order.
                del self._recoveries[stream]
                return
            fact = recovery.waiting[0]
            if fact.gap is not None:
                recovery.waiting[0] = msgspec.structs.replace(fact, gap=None)
                await self._fill(stream, fact.gap, recovery, fact.at + DEADLINE_S)
            else:
                recovery.waiting.popleft()
                self._sink.publish(stream, fact.event, fact.received_ms)

    async def _fill(self, stream: Stream, gap: Gap, recovery: _Recovery, deadline: float) -> None:
        """Send what is missing; declare what could not be had, and why."""
        assert gap.first is not None  # publish_gap() lets no other in
        assert gap.last is not None
        filling = recovery.filling = _Filling(stream, gap.first, gap.last)
        reason = f"the exchange did not answer within {DEADLINE_S:g} s"
        with trio.move_on_at(deadline) as recovery.scope:
            reason = await self._ask(filling, recovery)
        if self._recoveries.get(stream) is not recovery:
            return  # it was let go, and everything said
        if len(recovery.waiting) > WAITING:
            reason = "too much came in the meantime"
        recovery.filling = None
        if (rest := filling.rest(reason)) is not None:
            self._declare(stream, rest)
        log.info("gap filled", extra={"stream": stream.name, "facts": filling.count, "is_whole": rest is None})

    async def _ask(self, filling: _Filling, recovery: _Recovery) -> str:
        """Ask page by page; returns why not everything came."""
        for _ in range(PAGES):
            asked = rows.request(filling.stream, filling.next, filling.last)
            before = filling.next
            try:
                page: list[object] = await self._rest.get(asked.path, asked.rows, asked.params)
                facts = [rows.read(filling.stream, row) for row in page]
            except Unreadable as error:
                return str(error)
            except VenueError as error:
                if error.cause is not Cause.NETWORK:
                    return str(error)
                facts = []
            if self._recoveries.get(filling.stream) is not recovery:
                return "the stream ended"
            for number, fact in facts:
                self._take(filling, number, fact)
            if filling.next > filling.last:
                return ""
            if filling.next == before:
                await trio.sleep(RETRY_S)
        return "more is missing than is asked for"

    def _take(self, filling: _Filling, number: int, fact: Event) -> None:
        if not filling.next <= number <= filling.last:
            return
        if number > filling.next:
            last = rows.previous_number(filling.stream, number)
            self._declare(
                filling.stream,
                Gap(stream=filling.stream.name, first=filling.next, last=last, reason="the exchange has it not"),
            )
        filling.next = rows.next_number(filling.stream, number)
        filling.count += 1
        self._filled += 1
        self._sink.publish(filling.stream, fact, self._clock_ms(), backfilled=True)

    def _declare(self, stream: Stream, gap: Gap) -> None:
        self._declared += 1
        self._sink.publish_gap(stream, gap)

    def _let_go(self, stream: Stream) -> None:
        """Pass everything on that waits, its gaps declared."""
        recovery = self._recoveries.pop(stream, None)
        if recovery is None:
            return
        recovery.scope.cancel("the stream ended")
        if recovery.filling is not None and (rest := recovery.filling.rest("the stream ended")) is not None:
            self._declare(stream, rest)
        for fact in recovery.waiting:
            if fact.gap is not None:
                self._declare(stream, fact.gap)
            self._sink.publish(stream, fact.event, fact.received_ms)
