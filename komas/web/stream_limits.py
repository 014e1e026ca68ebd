"""How many streams may be open at the exchange, and for whom.

One reader must not take the house: what is open on behalf of an address is bounded, streams that only linger for it
included, and so is how fast it may have new ones opened. What lingers goes first where room is short. Pins, which are
the administrator's, have a part of the room to themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

import msgspec
import trio

from komas.hub.interest import Interest
from komas.model.kinds import KINDS
from komas.model.streams import Stream
from komas.settings import Settings
from komas.web.request_rates import RequestRates

FOR_PINS: Final = 10  # one part in so many of ``max_streams`` is for pins alone
REFILL_S: Final = 60.0  # in which an address may have as many new streams opened as it may read
OPENINGS_AT_ONCE: Final = 2  # times as many, after a pause

_REASONS: Final = {  # as they are counted, and in words
    "streams_per_address": "too many different streams from this address",
    "books_per_address": "too many order books from this address",
    "new_streams_per_address": "too many new streams from this address in a short time",
    "streams": "too many streams are open",
}

_Rule: TypeAlias = Callable[[Stream], bool]


class StreamLimitStatistics(msgspec.Struct, frozen=True):
    """Readers who were turned away for want of room, by reason; lingering streams that had to make room."""

    refused: Mapping[str, int]
    made_room: int


class StreamLimits:
    """Decides whether streams may be opened, and makes room for them."""

    def __init__(self, settings: Settings, interest: Interest) -> None:
        self._interest = interest
        self._most = settings.max_streams
        self._most_of_readers = settings.max_streams - settings.max_streams // FOR_PINS
        self._most_per_address = settings.max_streams_per_address
        self._most_books = min(settings.max_books_per_address, settings.max_streams_per_address)
        most = settings.max_streams_per_address
        self._openings = RequestRates(most / REFILL_S, OPENINGS_AT_ONCE * most)
        self._refused: Counter[str] = Counter(dict.fromkeys(_REASONS, 0))
        self._made_room = 0

    def why_full(self, reader: str, streams: Collection[Stream]) -> str | None:
        """Why a reader cannot have streams, which is counted; ``None`` when it can: then there is room for them."""
        counted = self._why_full(reader, streams)
        if counted is None:
            return None
        self._refused[counted] += 1
        return _REASONS[counted]

    def has_room_for_pins(self, streams: Collection[Stream]) -> bool:
        """Whether streams may be pinned; then there is room for them."""
        return self._has_room(streams, self._most)

    def statistics(self) -> StreamLimitStatistics:
        """Counts, for metrics."""
        return StreamLimitStatistics(self._refused, self._made_room)

    def _why_full(self, reader: str, streams: Collection[Stream]) -> str | None:
        if not self._fits(reader, streams, self._most_per_address, lambda _: True):
            return "streams_per_address"
        if not self._fits(reader, streams, self._most_books, lambda stream: KINDS[stream.kind].is_book):
            return "books_per_address"
        if not self._may_open(reader, sum(stream not in self._interest for stream in streams)):
            return "new_streams_per_address"
        if not self._has_room(streams, self._most_of_readers):
            return "streams"
        return None

    def _fits(self, reader: str, streams: Collection[Stream], most: int, among: _Rule) -> bool:
        """Whether what an address holds, of some kind, stays within its bound; what lingers for it makes room."""
        held = self._interest.held(reader)
        wanted = {stream for stream in streams if among(stream)}
        over = len(_of(held, among) | wanted) - most
        if not wanted or over <= 0:
            return True
        return self._count(over, has_room=self._interest.let_go(reader, over, wanted, among))

    def _may_open(self, reader: str, count: int) -> bool:
        return not count or not self._openings.take(reader, trio.current_time(), count)

    def _has_room(self, streams: Collection[Stream], most: int) -> bool:
        more = sum(stream not in self._interest for stream in streams)
        over = len(self._interest) + more - most
        if not more or over <= 0:
            return True
        return self._count(over, has_room=self._interest.make_room(over, streams))

    def _count(self, closed: int, *, has_room: bool) -> bool:
        self._made_room += closed if has_room else 0
        return has_room


def _of(held: Mapping[Stream, int], among: _Rule) -> set[Stream]:
    return {stream for stream in held if among(stream)}
