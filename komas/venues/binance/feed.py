"""One of Binance's markets as a feed: it holds the wanted streams upstream, and hands their events on.

Between ``connect()`` and ``disconnect()`` the feed spreads the wanted streams over shards, and keeps each shard's link
up (two links with redundancy). It does not decide whether an event is the next one: the sink does.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import trio

from komas.errors import Cause, VenueError
from komas.model.kinds import kinds
from komas.model.market import FeedState, FeedStatus, Health, Incoming, StreamHealth
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.connection import Arrival, ConnectionOptions, ConnectionState, UpstreamConnection
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.protocol import Refusal
from komas.venues.core.counts import ConnectionStatistics, Counts, FeedStatistics
from komas.venues.core.link import Link
from komas.venues.core.liveness import LivenessTracker
from komas.venues.core.ports import FeedSink, Unreadable, Wanted
from komas.venues.core.retry import Backoff, DialBudget, RetryPolicy
from komas.venues.core.shards import plan
from komas.venues.core.websocket import OpenStream, check_url, open_tcp

log = logging.getLogger(__name__)

COMPLAIN_EVERY_S: Final = 60.0  # unreadable frames are counted each, and logged together
NEVER_S: Final = 60.0  # acknowledged, and nothing for so long: a quiet pair, or a stream that is not given any more
LOOK_EVERY_S: Final = 1.0
BREATH: Final = 100
QUIET_AFTER_S: Final = 10.0  # several times the pause of every kind of stream while its symbol trades
_TRADE_BY_TRADE: Final = kinds(needs_trades=True)
# A connection is replaced at a moment between these parts of its life, so that shards do not go together.
_RETIRE_FROM: Final = 0.90
_RETIRE_SPREAD: Final = 0.08


def wall_ms() -> int:
    """Milliseconds since the epoch, by the machine's clock."""
    return time.time_ns() // 1_000_000


class _LinkState:
    """What outlives a link: the state of its connections, and its back-off."""

    def __init__(self, state: ConnectionState, backoff: Backoff) -> None:
        self.state = state
        self.backoff = backoff


class _Shard:
    """Streams that share connections, and the links that hold them: one, or two of the same."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.streams: dict[Stream, None] = {}
        self.links: list[Link[UpstreamConnection]] = []
        self.scope = trio.CancelScope()

    @property
    def is_up(self) -> bool:
        return any(link.lives for link in self.links)

    def assigned(self) -> tuple[Stream, ...]:
        return tuple(self.streams)

    def connections(self) -> Iterator[UpstreamConnection]:
        for link in self.links:
            yield from link.lives


class BinanceFeed:
    """One of Binance's markets as one supervised feed; ``run()`` it in a nursery, then ``connect()``.

    ``flush`` is told that all that came together is with the ``sink``. ``url`` is the venue's base,
    ``wss://host:port``; its stream path is appended. Without ``keeps_idle`` there is no
    connection while no stream is wanted. ``clock_ms`` stamps what is received.
    ``streams_per_connection`` bounds each shard, ``redundancy`` is how many connections hold the same streams.
    """

    def __init__(
        self,
        *,
        sink: FeedSink,
        flush: Callable[[], None],
        wanted: Wanted,
        url: str,
        venue: MarketSpec = limits.SPOT,
        keeps_idle: bool = True,
        retry_policy: RetryPolicy | None = None,
        streams_per_connection: int = limits.STREAMS_PER_CONNECTION,
        redundancy: int = 1,
        open_stream: OpenStream = open_tcp,
        clock_ms: Callable[[], int] = wall_ms,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        check_url(url)
        self.url = url.rstrip("/")
        self._options = ConnectionOptions(self.url, venue, open_stream, clock_ms, streams_per_connection)
        self._keeps_idle = keeps_idle
        self._sink = sink
        self._flush = flush
        self._wanted = wanted
        self._retry_policy = retry_policy or RetryPolicy()
        self._redundancy = redundancy
        self._jitter = jitter
        self._dials = DialBudget()
        self._link_states: dict[tuple[int, int], _LinkState] = {}
        self._shards: dict[int, _Shard] = {}
        self._shard_of: dict[Stream, _Shard] = {}
        self._scope: trio.CancelScope | None = None
        self._asked = False
        self._counts = Counts()
        self._complained_at = -COMPLAIN_EVERY_S
        self._arrivals: dict[Stream, Arrival] = {}
        self._refusals: dict[Stream, Refusal] = {}
        self._doubtful: dict[Stream, Health] = {}  # what was told of streams that are not well
        self.news = trio.lowlevel.ParkingLot()
        self.failure: VenueError | None = None
        self.final_failure: VenueError | None = None  # the one at which the allowed attempts were used up

    # What others ask of the feed

    @property
    def state(self) -> FeedState:
        """Where the conversation with the exchange stands."""
        return self._sink.status.state

    def connect(self) -> None:
        """Open the connections; they are kept up until ``disconnect()``."""
        if not self._asked:
            self._asked = True
            self.failure = self.final_failure = None
            self._announce(FeedState.CONNECTING)

    def disconnect(self) -> None:
        """Close the connections and stay disconnected; wanted streams stay wanted."""
        self._asked = False
        self._close_shards("disconnect() was called")
        self._announce(FeedState.DISCONNECTED)

    def rotate(self) -> int:
        """Replace every connection by a new one, without a gap; returns how many."""
        lives = [link for shard in self._shards.values() for link in shard.links if link.lives]
        for link in lives:
            link.replace("asked for")
        return len(lives)

    async def connected(self) -> None:
        """Wait for the connections, however long it takes; ``failure`` says why it takes so long.

        Raises ``VenueError`` once the feed is not asked for a connection any more, or has given up.
        """
        while self.state is not FeedState.CONNECTED:
            self._check_asked()
            await self.news.park()

    async def given_up(self) -> VenueError:
        """Wait until the allowed attempts are used up; returns the last failure."""
        while self.final_failure is None:
            await self.news.park()
        return self.final_failure

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Wait until the exchange has acknowledged every stream, however long that takes.

        Raises ``VenueError`` with the exchange's words as soon as it refuses one, and when one is no longer wanted
        or no connection is asked for.
        """
        waiting = list(streams)
        for stream in waiting:
            self._refusals.pop(stream, None)
        while True:
            for stream in waiting:
                if (refusal := self._refusals.get(stream)) is not None:
                    text = f"the exchange refused {stream}: {refusal.words}"
                    raise VenueError(text, cause=Cause.REFUSED, code=refusal.code)
            if all(self.holds(stream) for stream in waiting):
                return
            self._check_asked()
            if any(stream not in self._wanted for stream in waiting):
                raise VenueError("the subscription was ended before it was acknowledged", cause=Cause.CLOSED)
            await self.news.park()

    def _check_asked(self) -> None:
        if not self._asked:
            raise self.final_failure or VenueError("the connection was let go", cause=Cause.CLOSED)

    def holds(self, stream: Stream) -> bool:
        """Whether the exchange has acknowledged a stream on a connection that is up."""
        return any(self._holders(stream))

    def arrival(self, stream: Stream) -> Arrival | None:
        """When the stream's newest event came; ``None`` before its first."""
        return self._arrivals.get(stream)

    def health(self, stream: Stream) -> Health:
        """One word on a stream."""
        return self._examine(stream)[0]

    def _examine(self, stream: Stream) -> tuple[Health, str]:
        """The health of a stream, and why."""
        arrival, holders, now = self._arrivals.get(stream), list(self._holders(stream)), trio.current_time()
        trackers = [tracker for holder in holders if (tracker := holder.tracker(stream)) is not None]
        if not trackers:
            return (Health.PENDING, "not acknowledged yet") if arrival is None else (Health.RECOVERING, "cut")
        # A connection that has only just taken over proves nothing by its silence.
        trackers = [tracker for tracker in trackers if tracker.heard_at is not None] or trackers
        silent_s = min(tracker.silent_s(now) for tracker in trackers)
        if all(tracker.is_stale(now) for tracker in trackers):
            return Health.STALE, "silent for longer than its pace allows"
        if all(tracker.heard_at is None for tracker in trackers):
            return self._examine_unheard(stream, arrival, silent_s)
        if all(holder.is_silent(now) for holder in holders):
            return Health.STALE, "its connection is silent"
        return (Health.LIVE, "") if silent_s < QUIET_AFTER_S else (Health.QUIET, "")

    def _examine_unheard(self, stream: Stream, arrival: Arrival | None, silent_s: float) -> tuple[Health, str]:
        """The health of a stream that was acknowledged and has not delivered since."""
        if arrival is not None:
            return Health.RECOVERING if silent_s < QUIET_AFTER_S else Health.QUIET, "nothing new since it was cut"
        if silent_s < NEVER_S:
            return Health.PENDING, "acknowledged"
        reason = f"acknowledged, and nothing has come for {NEVER_S:g} s"
        siblings = (Stream(kind, stream.symbol) for kind in _TRADE_BY_TRADE)
        since = trio.current_time() - silent_s
        if any(found.at_s > since for sibling in siblings if (found := self._arrivals.get(sibling)) is not None):
            return Health.STALE, f"{reason}, although {stream.symbol} trades"
        return Health.QUIET, reason

    def statistics(self) -> FeedStatistics:
        """Counts, for metrics and the status page."""
        counts = self._counts
        return FeedStatistics(
            messages_received=counts.messages,
            unreadable=counts.unreadable,
            unknown=counts.unknown,
            reconnects=counts.reconnects,
            rotations=counts.rotations,
            last_message_ms=counts.last_message_ms,
            connections=tuple(
                _row(shard, connection) for shard in self._shards.values() for connection in shard.connections()
            ),
        )

    # The life of the connections

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: connected while asked to be."""
        task_status.started()
        while True:
            await self._rest_until_asked()
            with trio.CancelScope() as self._scope:
                await self._keep_shards()
            self._scope = None

    async def _rest_until_asked(self) -> None:
        """Wait for ``connect()``; streams that are unwanted in the meantime start anew when they come back."""
        while not self._asked:
            seen = self._wanted.version
            self._prune(self._wanted.streams())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wake, partial(self._wanted.changed, seen), nursery.cancel_scope)
                await self.news.park()
                nursery.cancel_scope.cancel()

    @staticmethod
    async def _wake(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        await wait()
        scope.cancel()

    async def _keep_shards(self) -> None:
        """Give every wanted stream its place, again whenever the wishes change."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after, name="stream health")
            while True:
                seen = self._wanted.version
                self._place(nursery)
                self.news.unpark_all()
                await self._wanted.changed(seen)
                # Who changed it may have let the connections go in the same moment: nothing is opened for them then.
                await trio.lowlevel.checkpoint_if_cancelled()

    def _place(self, nursery: trio.Nursery) -> None:
        wanted = self._wanted.streams()
        self._prune(wanted)
        present = {number: shard.streams for number, shard in self._shards.items()}
        for move in plan(wanted, present, self._options.most):
            if move.source is not None:
                self._shards[move.source].streams.pop(move.stream)
                self._shard_of.pop(move.stream, None)
            if move.target is not None:
                shard = self._shards.get(move.target) or self._open(move.target, nursery)
                shard.streams[move.stream] = None
                self._shard_of[move.stream] = shard
        if not self._shards and self._keeps_idle:
            self._open(0, nursery)  # a connection is wanted, though no stream yet
        for number in [number for number, shard in self._shards.items() if not shard.streams]:
            if len(self._shards) > 1 or not self._keeps_idle:
                self._shards.pop(number).scope.cancel("its streams are not wanted any more")
        if not self._shards:
            self.failure = None
            self._announce(FeedState.DISCONNECTED)  # at rest: there is nothing to be connected for
        self._check_up()

    def _open(self, number: int, nursery: trio.Nursery) -> _Shard:
        shard = self._shards[number] = _Shard(number)
        for leg in range(self._redundancy):
            shard.links.append(self._link(shard, leg))
        nursery.start_soon(self._keep, shard, name=f"shard {number}")
        return shard

    def _link(self, shard: _Shard, leg: int) -> Link[UpstreamConnection]:
        """One link of a shard; what it remembers of refusals and waits outlives a ``disconnect()``."""
        key = shard.number, leg
        if key not in self._link_states:
            self._link_states[key] = _LinkState(
                ConnectionState(), Backoff(self._retry_policy, self._jitter, self._dials)
            )
        link_state = self._link_states[key]

        def make() -> UpstreamConnection:
            life_s = self._options.life_s * (_RETIRE_FROM + _RETIRE_SPREAD * self._jitter())
            return UpstreamConnection(
                self._options, self, shard.assigned, link_state.state, replace=link.replace, retire_after_s=life_s
            )

        link = Link(
            make,
            backoff=link_state.backoff,
            tally=self._counts,
            changed=self._changed,
            lost=partial(self._lost, shard),
            is_needed=lambda: not shard.is_up,
        )
        return link

    async def _keep(self, shard: _Shard) -> None:
        with shard.scope:
            async with trio.open_nursery() as nursery:
                for link in shard.links:
                    nursery.start_soon(self._run_link, link, name="link")

    async def _run_link(self, link: Link[UpstreamConnection]) -> None:
        try:
            await link.run()
        except VenueError as error:
            self._give_up(error)

    def _give_up(self, error: VenueError) -> None:
        log.error("feed gave up: no attempts left", extra={"reason": str(error)})
        self._asked = False
        self.final_failure = error
        for link_state in self._link_states.values():
            link_state.backoff.succeeded()
        self._close_shards("the allowed attempts are used up")
        tries = f"{self._retry_policy.attempts} failed attempts"
        self._announce(FeedState.DISCONNECTED, reason=f"given up after {tries}: {error}; the next connect tries again")

    async def _look_after(self) -> None:
        """Tell who listens when a stream becomes doubtful, and when it is well again."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            for count, stream in enumerate(tuple(self._shard_of)):
                if count % BREATH == 0:
                    await trio.lowlevel.checkpoint()  # thousands of streams must not hold up a trade
                health, reason = self._examine(stream)
                is_doubtful = health is Health.STALE or (health is Health.QUIET and stream not in self._arrivals)
                if is_doubtful and self._doubtful.get(stream) is not health:
                    self._doubtful[stream] = health
                    log.warning("stream doubtful", extra={"stream": stream.name, "health": health, "reason": reason})
                    self._sink.on_health(stream, StreamHealth(stream=stream.name, health=health, reason=reason))
                elif health is Health.LIVE and self._doubtful.pop(stream, None) is not None:
                    told = StreamHealth(stream=stream.name, health=health, reason="it is heard again")
                    self._sink.on_health(stream, told)

    def _close_shards(self, reason: str) -> None:
        """Let every connection go; what its tasks say while they end is about nothing that there is."""
        self._shards.clear()
        self._shard_of.clear()
        if self._scope is not None:
            self._scope.cancel(reason)

    # What the links tell

    def _changed(self) -> None:
        self._check_up()
        self.news.unpark_all()

    def _check_up(self) -> None:
        if self._asked and self._shards and all(shard.is_up for shard in self._shards.values()):
            self.failure = None
            self._announce(FeedState.CONNECTED)

    def _lost(self, shard: _Shard, error: VenueError, wait_s: float) -> None:
        if self._asked and self._shards.get(shard.number) is shard and not shard.is_up:
            self.failure = error
            self._announce(FeedState.RECONNECTING, reason=str(error), retry_in_s=round(wait_s, 3))

    def _announce(self, state: FeedState, *, reason: str | None = None, retry_in_s: float | None = None) -> None:
        status = FeedStatus(state=state, reason=reason, retry_in_s=retry_in_s)
        if status != self._sink.status:
            self._sink.on_status(status)
        self.news.unpark_all()

    # What the connections hand over

    def on_events(self, stream: Stream, events: Sequence[Incoming], arrival: Arrival) -> None:
        """Hand on events that arrived together, if their stream is assigned to a shard."""
        if stream not in self._shard_of:
            return  # some still come after an unsubscription, and do not start the stream again
        self._arrivals[stream] = arrival
        self._sink.on_events(stream, events, arrival.at_ms)

    def on_held(self, connection: UpstreamConnection, stream: Stream) -> None:
        """A connection holds a stream from now on; if no other did, events may have been missed."""
        if not self._others(connection, stream):
            self._sink.on_suspect(stream)

    def on_silent(self, connection: UpstreamConnection, stream: Stream) -> None:
        """A stream is silent on a connection and should not be; ignored if another connection delivers it."""
        now = trio.current_time()
        others = self._others(connection, stream)
        if not any(tracker.heard_at is not None and not tracker.is_stale(now) for tracker in others):
            self._sink.on_suspect(stream)

    def on_refusals(self, refusals: tuple[Refusal, ...]) -> None:
        """Reject the streams that the exchange refused."""
        for refusal in refusals:
            log.warning("stream refused", extra={"stream": refusal.name, "code": refusal.code, "words": refusal.words})
            stream = next((stream for stream in self._wanted.streams() if stream.name == refusal.name), None)
            if stream is not None:
                self._refusals[stream] = refusal
                self._sink.on_refused(stream, refusal.words)

    def on_read(self, count: int, received_ms: int) -> None:
        """Count the data frames of one read, and let the events they brought go out."""
        self._counts.messages += count
        self._counts.last_message_ms = received_ms
        self._flush()

    def count_unknown(self) -> None:
        """Count one frame of a stream that komas does not know."""
        self._counts.unknown += 1

    def count_unreadable(self, error: Unreadable) -> None:
        """Count one frame that cannot be read, and log one now and then."""
        self._counts.unreadable += 1
        now = trio.current_time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("unreadable frame", extra={"reason": str(error), "unreadable": self._counts.unreadable})

    def _prune(self, wanted: tuple[Stream, ...]) -> None:
        """Forget streams that are no longer wanted: when they come back, they start anew."""
        goal = set(wanted)
        for stream in [stream for stream in self._doubtful if stream not in goal]:
            del self._doubtful[stream]
        for stream in [stream for stream in self._arrivals if stream not in goal]:
            del self._arrivals[stream]
            self._sink.on_reset(stream)

    def _others(self, connection: UpstreamConnection, stream: Stream) -> list[LivenessTracker]:
        """The beats of a stream on every other connection that holds it."""
        return [
            tracker for each in self._holders(stream) if each is not connection and (tracker := each.tracker(stream))
        ]

    def _holders(self, stream: Stream) -> Iterator[UpstreamConnection]:
        shard = self._shard_of.get(stream)
        return (each for each in shard.connections() if each.tracker(stream) is not None) if shard else iter(())


def _row(shard: _Shard, connection: UpstreamConnection) -> ConnectionStatistics:
    return ConnectionStatistics(
        url=connection.url,
        shard=shard.number,
        streams=connection.held,
        connected_at_ms=connection.connected_at_ms,
        uptime_s=round(trio.current_time() - connection.connected_at, 3),
        messages_received=connection.messages,
    )
