"""One encoding for all subscribers alike: groups of them, and the broadcaster that writes to their connections.

``publish()`` never writes: it leaves items with buffers and groups. Whoever published calls ``Broadcaster.flush()``, so
that one write carries everything that one read of the exchange brought. What takes longer than a time slice, and what
was not flushed, is written by the task that runs ``Broadcaster.run()``.

Who writes to a subscriber's connection, the broadcaster or the subscriber's own task:

=============== ============================================================= ==========================================
state           events reach it through                                       next
=============== ============================================================= ==========================================
busy            its own buffer; its task drains it and writes                 ``join()``: *joining*, or at once *member*
joining         its own buffer, until the group's pending batch is written    *member*, or *busy* if it would block
member          the group, in one encoding for all                            *busy*: its connection would block, or its
                                                                              task was woken or cancelled
=============== ============================================================= ==========================================

A subscriber is a member only while its task waits for events, or while it rests without one
(``DirectSubscription.rest()``). When its connection would block, it leaves the group with what it has not received, and
a task of its own goes on at the connection's pace; it joins again once nothing waits for it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

import trio

from komas.hub.overflow import EventQueue
from komas.hub.wakeup import Wakeup

B = TypeVar("B")
T = TypeVar("T")
B_contra = TypeVar("B_contra", contravariant=True)

WRITES_PER_TURN: Final = 16  # writes before others may run, and members admitted in one go
SLICE_S: Final = 0.005  # of writing, by whichever task, before everything else may run
HEARTBEAT_TOLERANCE: Final = 0.1  # of the interval: groups that are nearly due get their heartbeat together with others
SETTLE_S: Final = 0.2
TICK_S: Final = 0.001
GATHER: Final = 2.0  # times what its last writing took, from the beginning of that: then a large group is written again


class Writer(Protocol):
    """A connection that can be written to without waiting."""

    def write_nowait(self, data: bytes) -> int:
        """Write what the connection takes at once; returns how many bytes are left.

        All of them are left if it takes nothing now; fewer if it took a part: then it keeps the rest, and writes it
        before anything else.
        """

    async def flush(self) -> bool:
        """Write the rest that was kept, waiting while the connection blocks; whether there was a rest."""


class Encoder(Protocol[B_contra]):
    """A representation of events; subscribers with equal encoders of the same streams share their bytes."""

    def __hash__(self) -> int:
        """Be a key."""

    @property
    def heartbeat(self) -> bytes:
        """What is written after a silence; empty for nothing."""

    def new_encoding(self) -> Callable[[B_contra], bytes]:
        """A function that encodes batches, one after another; it may keep state between them."""


class Member(Protocol[B]):
    """One subscriber, as its group sees it; its task waits for events meanwhile."""

    @property
    def writer(self) -> Writer:
        """The subscriber's connection."""

    @property
    def is_finished(self) -> bool:
        """Whether its subscription has ended."""

    def drain_nowait(self) -> B | None:
        """Return what waits in its own buffer; ``None`` for nothing."""

    def put_back(self, batch: B) -> None:
        """Leave a batch in its own buffer, behind what waits there."""

    def encode(self, batch: B) -> bytes:
        """Encode what only this subscriber has not received."""

    def joined(self) -> None:
        """The group receives events for it from now on."""

    def left(self) -> None:
        """Its own buffer receives events again."""

    def wake(self) -> None:
        """Wake its task."""


class BroadcastGroup(Generic[T, B]):
    """Subscribers to the same streams in the same representation.

    ``schedule`` is called when something waits; ``write_pending()`` is to be run then. ``new_encoding`` makes a
    function that encodes one batch after another, beginning with the first member. ``heartbeat`` is written after
    ``heartbeat_due()``, unless something else is. ``written`` is called with each batch that all members were offered.
    """

    def __init__(
        self,
        pending: EventQueue[T, B],
        new_encoding: Callable[[], Callable[[B], bytes]],
        schedule: Callable[[BroadcastGroup[T, B]], None],
        heartbeat: bytes = b"",
        written: Callable[[B], None] | None = None,
    ) -> None:
        self._pending = pending
        self._heartbeat = heartbeat
        self._is_heartbeat_due = False
        self._new_encoding = new_encoding
        self._encode = new_encoding()
        self._schedule = schedule
        self._written = written
        self._is_scheduled = False
        self._members: dict[Member[B], None] = {}
        self._joining: dict[Member[B], None] = {}
        self._unwritten: dict[Member[B], None] = {}  # members that ``_batch`` was not written to yet
        self._batch: B | None = None
        self.subscriptions = 0  # whether they are members now or not
        self.written_at = 0.0  # seconds, on the clock that ``write_pending()`` is given; set by the caller at first
        self.not_before = 0.0  # seconds, on the broadcaster's slice clock: until then, what is published gathers

    def __len__(self) -> int:
        return len(self._members)

    def put(self, *items: T) -> None:
        """Add items for all members."""
        self._pending.put(*items)
        self._schedule_once()

    def join(self, member: Member[B]) -> None:
        """Add a subscriber: now, or after the pending batch, which it has already received as initial state."""
        if self._pending:
            self._joining[member] = None
            self._schedule_once()
        else:
            self._admit(member)

    def leave(self, member: Member[B]) -> None:
        """Remove a subscriber; what it has not received goes to its own buffer."""
        self._joining.pop(member, None)
        if member not in self._members:
            return
        del self._members[member]
        member.left()
        if member in self._unwritten:
            del self._unwritten[member]
            if self._batch is not None:
                member.put_back(self._batch)
        if self._pending:
            member.put_back(self._pending.peek())
        if not self._members:
            # It was for former members only: a new member has received it, or more, as initial state.
            self._pending.drain()
            self._batch = None

    def owes(self, member: Member[B]) -> bool:
        """Whether something that was put here is still to be written to a member."""
        return member in self._members and (bool(self._pending) or member in self._unwritten)

    def clear(self) -> None:
        """Remove every subscriber, and forget what they have not received."""
        self._joining.clear()
        self._unwritten.clear()
        self._pending.drain()
        while self._members:
            member, _ = self._members.popitem()
            member.left()

    def write_pending(self, clock: Callable[[], float]) -> Iterator[None]:
        """Write what waits to all members; yields now and then, so that others may run."""
        self._is_scheduled = False
        if self._pending:
            self._batch, self._unwritten = self._pending.drain(), self._members.copy()
        # Nothing waits now: a member admitted here receives every event published from here on.
        for member in tuple(islice(self._joining, WRITES_PER_TURN)):
            self._catch_up(member)
        if self._joining:
            self._schedule_once()
        yield
        chunk = b""
        if (batch := self._batch) is not None:
            # Encoded even if no member is left: those who joined have received it, and what follows may depend on it.
            chunk = self._encode(batch)
            yield from self._write(chunk)
            self._batch = None
            if chunk and self._written is not None:
                self._written(batch)
        if self._is_heartbeat_due and not chunk:
            chunk, self._unwritten = self._heartbeat, self._members.copy()
            yield from self._write(chunk)
        if chunk:
            self.written_at = clock()
        self._is_heartbeat_due = False

    def write_small(self, clock: Callable[[], float]) -> bool:
        """Do all that ``write_pending()`` does, where that is one batch for few members; whether it was."""
        if self._joining or self._is_heartbeat_due or len(self._members) > WRITES_PER_TURN or not self._pending:
            return False
        self._is_scheduled = False
        batch = self._batch = self._pending.drain()
        unwritten = self._unwritten = self._members.copy()
        chunk = self._encode(batch)
        while unwritten:
            self._write_to(unwritten.popitem()[0], chunk)
        self._batch = None
        if chunk:
            if self._written is not None:
                self._written(batch)
            self.written_at = clock()
        return True

    def heartbeat_due(self) -> None:
        """Have the heartbeat written: nothing else was for long."""
        self._is_heartbeat_due = bool(self._heartbeat)
        if self._is_heartbeat_due:
            self._schedule_once()

    def _write(self, chunk: bytes) -> Iterator[None]:
        count, unwritten = 0, self._unwritten
        while unwritten:
            self._write_to(unwritten.popitem()[0], chunk)
            count += 1
            if count % WRITES_PER_TURN == 0:
                yield

    def _write_to(self, member: Member[B], chunk: bytes) -> None:
        if chunk and (left := member.writer.write_nowait(chunk)):
            if left == len(chunk):
                self._unwritten[member] = None  # it has received nothing of it
            self.leave(member)
            member.wake()

    def _catch_up(self, member: Member[B]) -> None:
        """Write to a joining subscriber what only it has not received, then admit it."""
        del self._joining[member]
        if member.is_finished:
            member.wake()
            return
        batch = member.drain_nowait()
        if batch is not None:
            chunk = member.encode(batch)
            if chunk and (left := member.writer.write_nowait(chunk)):
                if left == len(chunk):
                    member.put_back(batch)
                member.wake()
                return
        self._admit(member)

    def _admit(self, member: Member[B]) -> None:
        if not self._members:
            self._encode = self._new_encoding()
        self._members[member] = None
        member.joined()

    def _schedule_once(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(self)


class Broadcaster(Generic[T, B]):
    """All groups, and the task that writes to them.

    ``slice_clock`` measures time slices, in seconds; ``written`` is called with each batch that a group was written.
    What is published to groups of more than ``gather_above`` gathers for ``GATHER`` times what their last writing took:
    fewer writes to each of many, for a delay that is as long as writing to them.
    """

    def __init__(
        self,
        slice_clock: Callable[[], float] = time.perf_counter,
        *,
        written: Callable[[B], None] | None = None,
        gather_above: float = math.inf,
    ) -> None:
        self._gather_above = gather_above
        self._gathering: list[BroadcastGroup[T, B]] = []
        self._current: BroadcastGroup[T, B] | None = None  # that is being written to, and since when
        self._current_began = 0.0
        self._slice_clock = slice_clock
        self._written = written
        self._groups: dict[Hashable, BroadcastGroup[T, B]] = {}
        self._scheduled: deque[BroadcastGroup[T, B]] = deque()
        self._writing: Iterator[None] = iter(())  # to one of them, which may not be finished
        self._wakeup = Wakeup()
        self._slice_end: float | None = None  # of the present time slice, while a group is scheduled

    def open_group(
        self, key: Hashable, queue: Callable[[], EventQueue[T, B]], encoder: Encoder[B]
    ) -> BroadcastGroup[T, B]:
        """The group of a key for one more subscription; ``close_group()`` ends the subscription's part in it."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = BroadcastGroup(
                queue(), encoder.new_encoding, self._schedule, encoder.heartbeat, self._written
            )
            group.written_at = trio.current_time()
        group.subscriptions += 1
        return group

    def close_group(self, key: Hashable) -> None:
        """Count one subscription less; a group is forgotten with its last one."""
        group = self._groups[key]
        group.subscriptions -= 1
        if not group.subscriptions:
            del self._groups[key]

    def clear(self) -> None:
        """Remove every subscriber from its group, and forget what they have not received."""
        for group in self._groups.values():
            group.clear()

    def _schedule(self, group: BroadcastGroup[T, B]) -> None:
        self._scheduled.append(group)
        if self._slice_end is None:
            self._slice_end = self._slice_clock() + SLICE_S
        self._wakeup.wake()

    async def run(self) -> None:
        """Write to scheduled groups until cancelled; other tasks run between time slices."""
        while True:
            self._slice_end = self._slice_clock() + SLICE_S
            if self._write_until(self._slice_end):
                await trio.lowlevel.checkpoint()
            else:
                self._slice_end = None
                await self._wait()

    async def _wait(self) -> None:
        """Until a group is scheduled, or one has gathered for long enough."""
        if not self._gathering:
            await self._wakeup.wait()
            return
        due_in_s = min(group.not_before for group in self._gathering) - self._slice_clock()
        with trio.move_on_after(max(0.0, due_in_s)):
            await self._wakeup.wait()
        due, self._gathering = self._gathering, []
        self._scheduled += due  # who is early goes on gathering

    def flush(self) -> None:
        """Write now, until the end of the slice that began with the first scheduled group; ``run()`` does the rest."""
        if self._slice_end is not None:
            self._write_until(self._slice_end)

    async def settled(self) -> None:
        """Wait until no group is scheduled, at most ``SETTLE_S``; subscribers' own tasks run meanwhile."""
        self.flush()
        with trio.move_on_after(SETTLE_S):
            await trio.sleep(TICK_S)
            while self._slice_end is not None or self._gathering:  # noqa: ASYNC110 - an event would cost every write
                await trio.sleep(TICK_S)

    def _write_until(self, slice_end: float) -> bool:
        """Write until a time; whether something is left."""
        while self._slice_clock() < slice_end:
            for _ in self._writing:
                if self._slice_clock() > slice_end:
                    return True
            self._note_written()
            if not self._scheduled:
                return False
            self._begin(self._scheduled.popleft())
        return True

    def _begin(self, group: BroadcastGroup[T, B]) -> None:
        """Write to a group next, or let it gather."""
        if len(group) > self._gather_above:
            now = self._slice_clock()
            if now < group.not_before:
                self._gathering.append(group)
                return
            self._current, self._current_began = group, now
        if not group.write_small(trio.current_time):
            self._writing = group.write_pending(trio.current_time)

    def _note_written(self) -> None:
        group, self._current = self._current, None
        if group is not None:
            took_s = self._slice_clock() - self._current_began
            group.not_before = self._current_began + GATHER * took_s

    async def run_heartbeats(self, every_s: float) -> None:
        """Have the heartbeat written to every group that was silent for ``every_s`` seconds, until cancelled."""
        while True:
            now = trio.current_time()
            next_at = now + every_s
            for group in self._groups.values():
                if group.written_at + every_s * (1 - HEARTBEAT_TOLERANCE) <= now:
                    group.heartbeat_due()
                else:
                    next_at = min(next_at, group.written_at + every_s)
            await trio.sleep_until(next_at)
