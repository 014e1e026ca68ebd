"""The health of streams: components say what they know, and one component decides, and tells readers what changed.

It is the one owner of that fact: notices to readers, ``GET /api/ws/streams``, readiness and metrics all come from here.

What decides, first to last: the symbol does not trade; no connection holds the stream; it is silent for longer than
its pace allows; its order book has a gap, or missing events are asked for; else it is live, or quiet as some pairs are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

import msgspec
import trio

from komas.event_log import event_logger
from komas.model.kinds import kinds
from komas.model.market import FeedState, FeedStatus, Health, HealthNotice
from komas.model.streams import Stream
from komas.venues.core.complaints import EACH, Complaints
from komas.venues.core.connection import Arrival, Connection
from komas.venues.core.ports import Wanted

log = event_logger(__name__)

NEVER_S: Final = 60.0  # acknowledged, and nothing for so long: a quiet pair, or a stream that is not given any more
LOOK_EVERY_S: Final = 1.0
BREATH: Final = 20  # streams, between which others run: where all of them have news, each is told and logged
QUIET_AFTER_S: Final = 10.0  # several times the pause of every kind of stream while its symbol trades
_TRADE_BY_TRADE: Final = kinds(needs_trades=True)


class HealthCause(Enum):
    """What a component knows of a stream, beside how long it has been silent."""

    LISTING = "listing"  # what the exchange says of the symbol
    ORDER_BOOK = "order book"
    GAP = "gap"


_REPAIRS: Final = (HealthCause.ORDER_BOOK, HealthCause.GAP)


class Condition(msgspec.Struct, frozen=True):
    """The health of a stream, and why; readers are told of one that is doubtful."""

    health: Health
    reason: str = ""
    is_doubtful: bool = False


class _Report(msgspec.Struct, frozen=True):
    """What was said of a stream, and when, on trio's clock (seconds)."""

    condition: Condition
    at_s: float


class Holders(Protocol):
    """Which connections hold a stream."""

    def holders(self, stream: Stream) -> Sequence[Connection]:
        """The connections that are up and on which the exchange has acknowledged a stream."""

    def streams(self) -> Collection[Stream]:
        """Every stream that connections are to hold."""


class HealthSink(Protocol):
    """Who is told."""

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Publish a stream's health."""


class StreamHealth:
    """The health of one market's streams; ``run()`` beside its feed.

    With ``tells_outages`` the readers of each stream are told when the market's connection is cut; without, the sink
    tells everybody the market's state.
    """

    def __init__(self, shards: Holders, wanted: Wanted, sink: HealthSink, *, tells_outages: bool = False) -> None:
        self._shards = shards
        self._wanted = wanted
        self._sink = sink
        self._tells_outages = tells_outages
        self._outage = ""  # why there is no connection
        self._arrivals: dict[Stream, Arrival] = {}
        self._reports: dict[Stream, dict[HealthCause, _Report]] = {}
        self._told: dict[Stream, Health] = {}  # of streams whose readers know that something is, or was, wrong
        self._totals: Counter[Health] = Counter()
        self._stale: frozenset[Stream] = frozenset()
        self._complaints = Complaints(log, lines=EACH)

    # What components report

    def arrived(self, stream: Stream, arrival: Arrival) -> None:
        """Events of a stream came."""
        self._arrivals[stream] = arrival

    def report(self, stream: Stream, cause: HealthCause, condition: Condition, *, at_once: bool = True) -> None:
        """Something is to be known of a stream until ``clear()``; of what passes by itself, not ``at_once``."""
        if stream not in self._wanted:
            return  # it was forgotten, or is about to be
        self._reports.setdefault(stream, {})[cause] = _Report(condition, trio.current_time())
        if at_once:
            self._tell(stream)

    def clear(self, stream: Stream, cause: HealthCause, mended: str = "") -> None:
        """What was reported is over; where it is ``mended``, readers who heard of it are told at once."""
        reports = self._reports.get(stream)
        if reports is None or reports.pop(cause, None) is None:
            return
        if not reports:
            del self._reports[stream]
        if mended:
            self._tell(stream, mended)

    def on_status(self, status: FeedStatus, streams: Sequence[Stream]) -> None:
        """The market's connection was made, cut, or let go; ``streams`` are those that are wanted of it."""
        is_out = status.state in (FeedState.RECONNECTING, FeedState.DISCONNECTED)
        self._outage = (status.reason or f"the connection is {status.state}") if is_out else ""
        if is_out and self._tells_outages:
            for stream in streams:
                self._tell(stream)

    def resume(self, told: Mapping[Stream, Health]) -> None:
        """Go on for another process: readers were told this of doubtful streams, and nothing that was told here."""
        self._told = dict(told)

    def forget(self, stream: Stream) -> bool:
        """Forget a stream that is no longer wanted: it starts anew; returns whether it had delivered."""
        self._told.pop(stream, None)
        self._reports.pop(stream, None)
        return self._arrivals.pop(stream, None) is not None

    # What others ask

    def arrival(self, stream: Stream) -> Arrival | None:
        """When the stream's newest event came; ``None`` before its first."""
        return self._arrivals.get(stream)

    @property
    def totals(self) -> Mapping[Health, int]:
        """How many streams were how at the last look."""
        return self._totals

    @property
    def stale(self) -> frozenset[Stream]:
        """Which streams were stale at the last look."""
        return self._stale

    def of(self, stream: Stream) -> Condition:
        """The health of a stream now."""
        reports = self._reports.get(stream, {})
        arrival = self._arrivals.get(stream)
        if (listing := self._listing(reports, arrival)) is not None:
            return listing
        holders = self._shards.holders(stream)
        silence = self._judge_silence(stream, holders, arrival) if holders else self._judge_outage(arrival)
        if silence.is_doubtful or not holders:
            return silence
        return next((reports[cause].condition for cause in _REPAIRS if cause in reports), silence)

    @staticmethod
    def _listing(reports: Mapping[HealthCause, _Report], arrival: Arrival | None) -> Condition | None:
        """What the exchange says of the symbol, unless that is to come and has come."""
        report = reports.get(HealthCause.LISTING)
        if report is None:
            return None
        is_over = report.condition.health is Health.PENDING and arrival is not None and arrival.at_s > report.at_s
        return None if is_over else report.condition

    def _judge_outage(self, arrival: Arrival | None) -> Condition:
        is_told = bool(self._outage) and self._tells_outages
        if arrival is None and not is_told:
            return Condition(Health.PENDING, "not acknowledged yet")
        return Condition(Health.RECOVERING, self._outage or "its connection was cut", is_told)

    def _judge_silence(self, stream: Stream, holders: Sequence[Connection], arrival: Arrival | None) -> Condition:
        now = trio.current_time()
        trackers = [tracker for holder in holders if (tracker := holder.tracker(stream)) is not None]
        # A connection that has only just taken over proves nothing by its silence.
        trackers = [tracker for tracker in trackers if tracker.heard_at is not None] or trackers
        silent_s = min(tracker.silent_s(now) for tracker in trackers)
        if all(tracker.is_stale(now) for tracker in trackers):
            return Condition(Health.STALE, "silent for longer than its pace allows", is_doubtful=True)
        if all(tracker.heard_at is None for tracker in trackers):
            return self._judge_unheard(stream, arrival, silent_s)
        if all(holder.is_silent(now) for holder in holders):
            return Condition(Health.STALE, "its connection is silent", is_doubtful=True)
        return Condition(Health.LIVE if silent_s < QUIET_AFTER_S else Health.QUIET)

    def _judge_unheard(self, stream: Stream, arrival: Arrival | None, silent_s: float) -> Condition:
        """The health of a stream that was acknowledged and has not delivered since."""
        if arrival is not None:
            health = Health.RECOVERING if silent_s < QUIET_AFTER_S else Health.QUIET
            return Condition(health, "nothing new since its connection was cut")
        if silent_s < NEVER_S:
            return Condition(Health.PENDING, "acknowledged")
        reason = f"acknowledged, and nothing has come for {NEVER_S:g} s"
        siblings = (Stream(kind, stream.symbol, venue=stream.venue) for kind in _TRADE_BY_TRADE)
        since = trio.current_time() - silent_s
        if any(found.at_s > since for sibling in siblings if (found := self._arrivals.get(sibling)) is not None):
            return Condition(Health.STALE, f"{reason}, although {stream.symbol} trades", is_doubtful=True)
        return Condition(Health.QUIET, reason, is_doubtful=True)

    # What readers are told

    async def run(self) -> None:
        """Look at every stream each second: time alone makes one doubtful. Until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            found: dict[Stream, Health] = {}
            for count, stream in enumerate(tuple(self._shards.streams())):
                if count % BREATH == 0:
                    await trio.lowlevel.checkpoint()  # thousands of streams must not hold up a trade
                found[stream] = self._tell(stream)
            self._totals = Counter(found.values())
            self._stale = frozenset(stream for stream, health in found.items() if health is Health.STALE)

    def _tell(self, stream: Stream, mended: str = "") -> Health:
        """Tell readers what is doubtful, and when it is well again: heard, or ``mended``."""
        condition, told = self.of(stream), self._told.get(stream)
        if condition.is_doubtful:
            health, reason = condition.health, condition.reason
        elif condition.health is Health.LIVE or mended:
            health, reason = Health.LIVE, mended or "it is heard again"
        else:
            return condition.health  # silent for now, which proves nothing
        is_news = told is not health if condition.is_doubtful else told is not None
        if is_news and stream in self._wanted:
            if condition.is_doubtful:
                self._told[stream] = health
            else:
                del self._told[stream]
            level = logging.WARNING if condition.is_doubtful else logging.INFO
            self._complaints.write(level, "stream health", stream=stream.name, health=health, reason=reason)
            self._sink.publish_health(stream, HealthNotice(stream=stream.name, health=health, reason=reason))
        return condition.health
