"""What follows the exchange's listings: subscriptions to every symbol, and news of symbols that are gone or halted.

A kind that is followed has every trading symbol pinned: a new listing is subscribed as soon as it is known. A stream
that is wanted although its symbol is not listed (any more) is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from komas.event_log import event_logger
from komas.model.kinds import Kind, Venue
from komas.model.market import Health
from komas.model.streams import Stream
from komas.venues.binance.listings import TRADING, Listings
from komas.venues.core.complaints import EACH, Complaints
from komas.venues.core.health import BREATH, Condition, HealthCause, StreamHealth
from komas.venues.core.ports import Pins

log = event_logger(__name__)


class SymbolTracker:
    """All symbols, for some kinds of stream; ``run()`` beside the listings.

    ``refuse`` is called, with the reason, for a wanted stream whose symbol is not listed.
    """

    def __init__(
        self,
        venue: Venue,
        listings: Listings,
        pins: Pins,
        health: StreamHealth,
        *,
        refuse: Callable[[Stream, str], None],
    ) -> None:
        self._venue = venue
        self._health = health
        self._listings = listings
        self._pins = pins
        self._refuse = refuse
        self._followed: set[Kind] = set()
        self._complaints = Complaints(log, lines=EACH)
        self._statuses: dict[str, str] = {}  # of the wanted symbols, as they were at the last look

    def follow(self, kind: Kind) -> tuple[Stream, ...]:
        """Pin every trading symbol from now on; returns the streams of this moment."""
        self._followed.add(kind)
        streams = self.streams(kind)
        self._pins.pin(streams)
        return streams

    def unfollow(self, kind: Kind) -> tuple[Stream, ...]:
        """Let all symbols of a kind go; returns the streams that were pinned."""
        self._followed.discard(kind)
        wanted = self._pins.streams(self._venue)
        pinned = tuple(stream for stream in wanted if stream.kind is kind and self._pins.pinned(stream))
        self._pins.unpin(pinned)
        return pinned

    def streams(self, kind: Kind) -> tuple[Stream, ...]:
        """Every trading symbol, as streams of a kind."""
        return tuple(Stream(kind, symbol, venue=self._venue) for symbol in self._listings.trading())

    async def run(self) -> None:
        """Follow the listings until cancelled."""
        seen = 0
        while True:
            seen = await self._listings.changed(seen)
            for kind in self._followed:
                self._pins.pin(self.streams(kind))
            await self._check()

    async def _check(self) -> None:
        """Say what has become of the symbols of wanted streams."""
        wanted = self._pins.streams(self._venue)
        now = {stream.symbol: self._listings.status(stream.symbol) for stream in wanted}
        for count, stream in enumerate(wanted):
            if count and count % BREATH == 0:
                await trio.lowlevel.checkpoint()  # all of them may have news
            status = now[stream.symbol]
            if status is None:
                self._complaints.warning("symbol not listed", stream=stream.name)
                self._refuse(stream, f"{stream.symbol} is not listed by the exchange")
            elif status != self._statuses.get(stream.symbol, TRADING):
                self._complaints.warning("symbol status", stream=stream.name, status=status)
                health = Health.PENDING if status == TRADING else Health.QUIET
                condition = Condition(health, f"{stream.symbol} is in status {status}", is_doubtful=True)
                self._health.report(stream, HealthCause.LISTING, condition)
        self._statuses = {symbol: status for symbol, status in now.items() if status is not None}
