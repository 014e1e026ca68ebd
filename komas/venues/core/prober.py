"""Asks for what a stream may have missed without knowing it: one that is heard again and has said nothing yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.market import Event
from komas.model.streams import Stream
from komas.venues.core import numbering
from komas.venues.core.complaints import Complaints
from komas.venues.core.ports import EventHistory, Unreadable

log = event_logger(__name__)

PROBE_S: Final = 2.0  # a stream that is heard again and says nothing for so long is asked for over REST,
PROBE_AGAIN_S: Final = 10.0  # and again where that failed,
PROBE_SELDOM_S: Final = 60.0  # or was refused
PROBES: Final = 4  # beside each other


class Prober:
    """``latest`` is the newest event of a stream, ``is_waiting`` whether it is known to miss some.

    ``take`` is given each event that is found, in order.
    """

    def __init__(
        self,
        history: EventHistory,
        *,
        latest: Callable[[Stream], Event | None],
        is_waiting: Callable[[Stream], bool],
        take: Callable[[Stream, Event], None],
    ) -> None:
        self._history = history
        self._latest = latest
        self._is_waiting = is_waiting
        self._take = take
        self._due: dict[Stream, float] = {}  # streams that may have missed something, and when to ask for them
        self._news = trio.lowlevel.ParkingLot()
        self._complaints = Complaints(log)

    def suspect(self, stream: Stream) -> None:
        """Ask for what a stream may have missed, unless its next events show it soon."""
        if numbering.can_fill(stream) and self._latest(stream) is not None:
            self._look_later(stream, PROBE_S)

    def settle(self, stream: Stream) -> None:
        """A stream had news, or is not wanted any more: there is nothing to ask for."""
        if self._due:
            self._due.pop(stream, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(PROBES):
                nursery.start_soon(self._probe, name="backfill probe")

    def _look_later(self, stream: Stream, wait_s: float) -> None:
        self._due[stream] = trio.current_time() + wait_s
        self._news.unpark_all()

    async def _probe(self) -> None:
        while True:
            due = min(self._due.items(), key=lambda item: item[1], default=None)
            if due is None:
                await self._news.park()
            elif due[1] > trio.current_time():
                with trio.move_on_at(due[1]):
                    await self._news.park()  # another one may be due before
            else:
                await self._look(due[0])

    async def _look(self, stream: Stream) -> None:
        """Ask for what came after a stream's newest event; try again until the stream itself has news."""
        del self._due[stream]
        latest = self._latest(stream)
        if latest is None:
            return
        if self._is_waiting(stream) or not self._history.has_room:
            self._look_later(stream, PROBE_AGAIN_S)  # what is known to be missing goes first
            return
        try:
            found = await self._history.page(stream, numbering.first_after(stream, latest), None)
        except Unreadable as error:
            self._complaints.warning("probe cannot be read", stream=stream.name, reason=str(error))
            self._look_again(stream, latest, PROBE_SELDOM_S)
            return
        except VenueError as error:
            self._complaints.info("probe failed", stream=stream.name, reason=str(error))
            may_answer = error.cause is Cause.NETWORK or error.retry_after_s is not None
            wait_s = PROBE_AGAIN_S if may_answer else PROBE_SELDOM_S
            self._look_again(stream, latest, max(wait_s, error.retry_after_s or 0.0))
            return
        if self._latest(stream) is None:
            return  # no longer wanted
        for _, event in found:
            self._take(stream, event)

    def _look_again(self, stream: Stream, latest: Event, wait_s: float) -> None:
        """Ask later, unless the stream had news in the meantime."""
        if self._latest(stream) is latest:
            self._look_later(stream, wait_s)
