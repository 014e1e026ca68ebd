"""One market of an exchange as one supervised feed: it keeps connections up that hold the wanted streams.

Between ``connect()`` and ``disconnect()`` the feed spreads the wanted streams over shards, and keeps each shard's link
up (two links with redundancy). What the connections bring is ``FeedInput``'s; how they speak is the venue's.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, Generic

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.kinds import Venue
from komas.model.market import FeedState, FeedStatus
from komas.model.streams import Stream
from komas.venues.core.connection import C, Connection, Dialer
from komas.venues.core.feed_input import FeedInput
from komas.venues.core.link import Link
from komas.venues.core.ports import Wanted
from komas.venues.core.retry import Backoff, DialBudget, RetryPolicy
from komas.venues.core.shards import Shard, Shards
from komas.venues.core.statistics import ConnectionStatistics, FeedStatistics

log = event_logger(__name__)

# A connection is replaced at a moment between these parts of its life, so that shards do not go together.
_RETIRE_FROM: Final = 0.90
_RETIRE_SPREAD: Final = 0.08
_AT_ONCE: Final = 256  # streams that are given a place before others may run


class FeedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a market is connected to.

    ``url`` is where, as users are shown it. Without ``keeps_idle`` there is no connection while no stream is wanted.
    ``redundancy`` is how many connections hold the same streams, ``connection_life_s`` how long the exchange lets one
    live.
    """

    venue: Venue
    url: str
    connection_life_s: float
    keeps_idle: bool = True
    redundancy: int = 1
    retry_policy: RetryPolicy = RetryPolicy()
    jitter: Callable[[], float] = random.random


class _LinkMemory(Generic[C]):
    """One of a shard's links, as it outlives a ``disconnect()``: what it remembers of refusals and waits."""

    def __init__(self, dialer: Dialer[C], backoff: Backoff) -> None:
        self.dialer = dialer
        self.backoff = backoff


class Feed(Generic[C]):
    """``run()`` it in a nursery, then ``connect()``.

    ``new_dialer`` makes what connects one link; ``on_status`` is called with each new state.
    """

    def __init__(
        self,
        options: FeedOptions,
        wanted: Wanted,
        shards: Shards[C],
        feed_input: FeedInput[C],
        *,
        new_dialer: Callable[[], Dialer[C]],
        on_status: Callable[[FeedStatus], None],
    ) -> None:
        self._options = options
        self._wanted = wanted
        self._changes = wanted.changes(options.venue)
        self._shards = shards
        self._input = feed_input
        self._news = feed_input.news
        self._new_dialer = new_dialer
        self._on_status = on_status
        self._dials = DialBudget()
        self._memories: dict[tuple[int, int], _LinkMemory[C]] = {}
        self._scope: trio.CancelScope | None = None
        self._asked = False
        self.status = FeedStatus(state=FeedState.DISCONNECTED)
        self.failure: VenueError | None = None
        self.final_failure: VenueError | None = None  # the one at which the allowed attempts were used up

    # What others ask of the feed

    @property
    def url(self) -> str:
        """Where it connects to."""
        return self._options.url

    @property
    def state(self) -> FeedState:
        """Where the conversation with the exchange stands."""
        return self.status.state

    def connect(self) -> None:
        """Open the connections; they are kept up until ``disconnect()``."""
        if not self._asked:
            self._asked = True
            self.failure = self.final_failure = None
            self._announce(FeedState.CONNECTING)

    def disconnect(self) -> None:
        """Close the connections and stay disconnected; wanted streams stay wanted."""
        self._asked = False
        self._close("disconnect() was called")
        self._announce(FeedState.DISCONNECTED)

    def rotate(self) -> int:
        """Replace every connection by a new one, without a gap; returns how many."""
        links = [link for shard in self._shards for link in shard.links if link.connections]
        for link in links:
            link.replace("asked for")
        return len(links)

    async def connected(self) -> None:
        """Wait for the connections, however long it takes; ``failure`` says why it takes so long.

        Raises ``VenueError`` once the feed is not asked for a connection any more, or has given up.
        """
        while self.state is not FeedState.CONNECTED:
            self._check_asked()
            await self._news.park()

    async def given_up(self) -> VenueError:
        """Wait until the allowed attempts are used up; returns the last failure."""
        while self.final_failure is None:
            await self._news.park()
        return self.final_failure

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Wait until the exchange has acknowledged every stream, however long that takes.

        Raises ``VenueError`` with the exchange's words as soon as it refuses one, and when one is no longer wanted
        or no connection is asked for.
        """
        await self._input.acknowledgements.wait(streams, self._check_asked)

    def _check_asked(self) -> None:
        if not self._asked:
            raise self.final_failure or VenueError("the connection was let go", cause=Cause.CLOSED)

    def holds(self, stream: Stream) -> bool:
        """Whether the exchange has acknowledged a stream on a connection that is up."""
        return bool(self._shards.holders(stream))

    def statistics(self) -> FeedStatistics:
        """Counts, for metrics and the status page."""
        rows = (_row(shard, connection) for shard in self._shards for connection in shard.connections())
        return self._input.counts.shown(tuple(rows))

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
            if taken := self._changes.take(_AT_ONCE):
                self._input.forget(stream for stream in taken if stream not in self._wanted)
                await trio.lowlevel.checkpoint()
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wake, partial(self._wanted.changed, seen), nursery.cancel_scope)
                await self._news.park()
                nursery.cancel_scope.cancel()

    @staticmethod
    async def _wake(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        await wait()
        scope.cancel()

    async def _keep_shards(self) -> None:
        """Give every wanted stream its place, again whenever another one is wanted, or one is not any more."""
        self._changes.begin_anew()
        async with trio.open_nursery() as nursery:
            while True:
                seen = self._wanted.version
                while self._place(nursery):
                    await trio.lowlevel.checkpoint()
                await self._wanted.changed(seen)
                # Who changed it may have let the connections go in the same moment: nothing is opened for them then.
                await trio.lowlevel.checkpoint_if_cancelled()

    def _place(self, nursery: trio.Nursery) -> bool:
        """Place some of the streams that changed; returns whether there may be more."""
        taken = self._changes.take(_AT_ONCE)
        wanted = [stream for stream in taken if stream in self._wanted]
        unwanted = [stream for stream in taken if stream not in self._wanted]
        self._input.forget(unwanted)
        for shard in self._shards.place(wanted, unwanted, keeps_idle=self._options.keeps_idle):
            shard.links += [self._new_link(shard, number) for number in range(self._options.redundancy)]
            nursery.start_soon(self._keep, shard, name=f"shard {shard.number}")
        if self._shards.is_empty:
            self.failure = None
            self._announce(FeedState.DISCONNECTED)  # at rest: there is nothing to be connected for
        self._check_up()
        self._news.unpark_all()
        return len(taken) == _AT_ONCE

    def _new_link(self, shard: Shard[C], number: int) -> Link[C]:
        key = shard.number, number
        if key not in self._memories:
            backoff = Backoff(self._options.retry_policy, self._options.jitter, self._dials)
            self._memories[key] = _LinkMemory(self._new_dialer(), backoff)
        memory = self._memories[key]

        def make() -> C:
            life_s = self._options.connection_life_s * (_RETIRE_FROM + _RETIRE_SPREAD * self._options.jitter())
            return memory.dialer.connection(shard.assigned, replace=link.replace, retire_after_s=life_s)

        link = Link(
            make,
            backoff=memory.backoff,
            tally=self._input.counts,
            changed=self._changed,
            lost=partial(self._lost, shard),
            is_needed=lambda: not shard.is_up,
        )
        return link

    async def _keep(self, shard: Shard[C]) -> None:
        with shard.scope:
            async with trio.open_nursery() as nursery:
                for link in shard.links:
                    nursery.start_soon(self._run_link, link, name="link")

    async def _run_link(self, link: Link[C]) -> None:
        try:
            await link.run()
        except VenueError as error:
            self._give_up(error)

    def _give_up(self, error: VenueError) -> None:
        log.error("feed gave up: no attempts left", extra={"reason": str(error)})
        self._asked = False
        self.final_failure = error
        for memory in self._memories.values():
            memory.backoff.reset()
        self._close("the allowed attempts are used up")
        tries = f"{self._options.retry_policy.attempts} failed attempts"
        self._announce(FeedState.DISCONNECTED, reason=f"given up after {tries}: {error}; the next connect tries again")

    def _close(self, reason: str) -> None:
        """Let every connection go; what its tasks say while they end is about nothing that there is."""
        self._shards.clear()
        if self._scope is not None:
            self._scope.cancel(reason)

    # What the links tell

    def _changed(self) -> None:
        self._check_up()
        self._news.unpark_all()

    def _check_up(self) -> None:
        if self._asked and self._shards.is_up:
            self.failure = None
            self._announce(FeedState.CONNECTED)

    def _lost(self, shard: Shard[C], error: VenueError, wait_s: float) -> None:
        if self._asked and self._shards.is_known(shard) and not shard.is_up:
            self.failure = error
            self._announce(FeedState.RECONNECTING, reason=str(error), retry_in_s=round(wait_s, 3))

    def _announce(self, state: FeedState, *, reason: str | None = None, retry_in_s: float | None = None) -> None:
        status = FeedStatus(state=state, reason=reason, retry_in_s=retry_in_s)
        if status != self.status:
            self.status = status
            self._on_status(status)
        self._news.unpark_all()


def _row(shard: Shard[C], connection: Connection) -> ConnectionStatistics:
    return ConnectionStatistics(
        url=connection.url,
        shard=shard.number,
        streams=connection.held,
        connected_at_ms=connection.connected_at_ms,
        uptime_s=round(trio.current_time() - connection.connected_at, 3),
        messages_received=connection.messages,
        message_room=connection.message_room(trio.current_time()),
    )
