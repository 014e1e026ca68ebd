"""Waiting until the exchange has acknowledged streams, or has refused one; what its answers mean is the venue's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from komas.errors import Cause, VenueError
from komas.model.streams import Stream
from komas.venues.core.connection import Refusal
from komas.venues.core.health import Holders


class _Wanted(Protocol):
    def __contains__(self, stream: Stream) -> bool:
        """Whether a stream is wanted."""


class Acknowledgements:
    """What the exchange has said to the streams that it was asked for; ``news`` is unparked when that changes."""

    def __init__(self, shards: Holders, wanted: _Wanted, news: trio.lowlevel.ParkingLot) -> None:
        self._shards = shards
        self._wanted = wanted
        self._news = news
        self._refusals: dict[Stream, Refusal] = {}

    def refused(self, stream: Stream, refusal: Refusal) -> None:
        """Note that the exchange does not give a stream."""
        self._refusals[stream] = refusal

    async def wait(self, streams: Iterable[Stream], check: Callable[[], None]) -> None:
        """Wait until every stream is acknowledged, however long that takes.

        Raises ``VenueError`` with the exchange's words as soon as it refuses one, when one is no longer wanted, and
        what ``check`` raises.
        """
        waiting = list(streams)
        for stream in waiting:
            self._refusals.pop(stream, None)
        while True:
            for stream in waiting:
                if (refusal := self._refusals.get(stream)) is not None:
                    text = f"the exchange refused {stream}: {refusal.words}"
                    raise VenueError(text, cause=Cause.REFUSED, code=refusal.code)
            if all(self._shards.holders(stream) for stream in waiting):
                return
            check()
            if any(stream not in self._wanted for stream in waiting):
                raise VenueError("the subscription was ended before it was acknowledged", cause=Cause.CLOSED)
            await self._news.park()
