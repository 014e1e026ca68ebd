"""The leader's end of the log: what the markets publish is collected, and appended entry by entry.

Publishing never waits. One append is in flight at a time, the next begins ``window_s`` after it began, or at once
where that is over: so a single event leaves immediately, and many share an entry. What was appended is told to the
leader's own mirror, which need not read it: a store that forgets its newest entries gets them again from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec
import trio

from komas.backplane.known import Known
from komas.backplane.mirror import Own
from komas.backplane.ports import VERSION, BackplaneError, Entry, EntryId, Fenced, Log
from komas.backplane.wire import (
    Closed,
    Events,
    Missing,
    Opened,
    Record,
    Refused,
    State,
    Well,
    header_of,
    key_of,
    read_key,
)
from komas.event_log import event_logger
from komas.hub.hub import new_epoch
from komas.model.codec import Envelope
from komas.model.kinds import BY_EVENT
from komas.model.market import Event, FeedStatus, Gap, HealthNotice
from komas.model.streams import Stream

log = event_logger(__name__)

Part: TypeAlias = tuple[Sequence[Record], Sequence[bytes]]  # what is to be one entry: records, and the bytes of events

WINDOW_S: Final = 0.002
ENTRY_BYTES: Final = 2**18  # of one entry: a mirror takes it in one go
ENTRY_EVENTS: Final = 512
RING_BYTES: Final = 2**28  # while the store is away; then the exchange's REST remembers better
RING_S: Final = 120.0
SETTLED_BYTES: Final = 2**20  # that wait, and do not yet hold up who publishes a lot
SETTLE_S: Final = 0.2
AGAIN_S: Final = (0.05, 1.0)  # from the first to the longest wait until the store is tried again


class _Run:
    """Events of one stream that were published one after another."""

    __slots__ = ("backfilled", "envelopes", "epoch", "key", "lengths", "publication", "received_ms", "stream")

    def __init__(
        self, stream: Stream, key: str, epoch: str, received_ms: int, publication: int, *, backfilled: bool
    ) -> None:
        self.stream = stream
        self.key = key
        self.epoch = epoch
        self.received_ms = received_ms
        self.publication = publication
        self.backfilled = backfilled
        self.envelopes: list[Envelope] = []
        self.lengths: list[int] = []

    def record(self) -> Events:
        """What it is in an entry."""
        return Events(
            self.key,
            self.epoch,
            tuple([envelope.sequence for envelope in self.envelopes]),
            tuple(self.lengths),
            self.received_ms,
            self.publication,
            self.backfilled,
        )


class _Draft(msgspec.Struct):
    """An entry, appended or still to be."""

    header: bytes
    data: bytes
    at_s: float
    id: EntryId | None = None
    is_whole: bool = False
    own: Own | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.header) + len(self.data)


class Writer:
    """A ``MarketSink`` whose events go into the log; ``encode`` makes an event's bytes as readers get them.

    ``known`` is what was so before, which it keeps up; ``publication`` is that of the newest event.
    """

    def __init__(
        self,
        store: Log,
        encode: Callable[[Envelope], bytes],
        *,
        window_s: float = WINDOW_S,
        known: Known,
        publication: int,
    ) -> None:
        self._store = store
        self._encode = encode
        self._window_s = window_s
        self.known = known
        self.publication = publication
        self._items: list[_Run | Record] = []
        self._data: list[bytes] = []
        self._size = self._events = 0
        self._keys: dict[Stream, str] = {}  # as they are written
        self._drafts: deque[_Draft] = deque()  # to be appended
        self._ring_bytes = 0
        self._wake = trio.lowlevel.ParkingLot()
        self._moved = trio.lowlevel.ParkingLot()
        self._newest = EntryId(0, 0)
        self._is_away = False  # the store did not take the last entry that it was given
        self.written: Callable[[Entry, Own | None], None] = lambda _entry, _own: None
        self.rejected: Callable[[Stream], None] = lambda _stream: None
        self.status_changed: Callable[[], object] = lambda: None

    # A MarketSink

    def publish(self, stream: Stream, event: Event, received_ms: int, *, backfilled: bool = False) -> None:
        """Publish one event."""
        self.publish_all(stream, (event,), received_ms, backfilled=backfilled)

    def publish_all(
        self, stream: Stream, events: Sequence[Event], received_ms: int, *, backfilled: bool = False
    ) -> None:
        """Publish events of one stream that came together, in order; those of a stream that is not open are dropped."""
        epoch = self.known.epochs.get(stream)
        if epoch is None:
            return
        sequence = BY_EVENT[type(events[0])].sequence
        run = self._run(stream, epoch, received_ms, backfilled=backfilled)
        for event in events:
            publication = 0
            if (number := sequence(event)) is not None:
                publication = self.publication = self.publication + 1
            envelope = Envelope(stream, event, received_ms, number, epoch, backfilled, publication)
            data = self._encode(envelope)
            run.envelopes.append(envelope)
            run.lengths.append(len(data))
            self._data.append(data)
            self._size += len(data)
        self._events += len(events)
        if self._size >= ENTRY_BYTES or self._events >= ENTRY_EVENTS:
            self._seal()

    def _run(self, stream: Stream, epoch: str, received_ms: int, *, backfilled: bool) -> _Run:
        last = self._items[-1] if self._items else None
        if (
            isinstance(last, _Run)
            and last.stream == stream
            and last.epoch == epoch
            and last.received_ms == received_ms
            and last.backfilled is backfilled
        ):
            return last
        if (key := self._keys.get(stream)) is None:
            key = self._keys[stream] = key_of(stream)
        run = _Run(stream, key, epoch, received_ms, self.publication + 1, backfilled=backfilled)
        self._items.append(run)
        return run

    def flush(self) -> None:
        """Let what was published go."""
        if self._items:
            self._wake.unpark()

    async def settled(self) -> None:
        """Wait, at most a fifth of a second, until not too much waits."""
        with trio.move_on_after(SETTLE_S):
            await trio.lowlevel.checkpoint()
            while self.unwritten_bytes > SETTLED_BYTES:
                await self._moved.park()

    def publish_gap(self, stream: Stream, gap: Gap) -> None:
        """Publish that events are missing before the next one."""
        if stream in self.known.epochs:
            self.publication += 1
            self.tell(Missing(key_of(stream), gap, self.publication))

    def publish_status(self, status: FeedStatus) -> None:
        """Publish the state of the primary market's connection."""
        self.tell(State(status))
        self.status_changed()

    def reset_sequence(self, stream: Stream, gap: Gap) -> None:
        """Begin a new epoch of a stream whose numbers started again."""
        if stream in self.known.epochs:
            self._open(stream)
            self.publish_gap(stream, gap)

    def publish_health(self, stream: Stream, health: HealthNotice) -> None:
        """Publish a stream's health."""
        self.tell(Well(key_of(stream), health))

    def reject(self, stream: Stream, reason: str) -> None:
        """Publish that the exchange refused a stream, which is not wanted afterwards."""
        self.tell(Refused(key_of(stream), reason))
        self.rejected(stream)

    # What the leader adds

    def opened(self, stream: Stream) -> None:
        """A stream is wanted: it is open, in the epoch that it had, or in a new one."""
        if stream not in self.known.epochs:
            self._open(stream)

    def closed(self, stream: Stream) -> None:
        """A stream is not wanted any more."""
        if stream in self.known.epochs:
            self.tell(Closed(key_of(stream)))

    def _open(self, stream: Stream) -> None:
        self.tell(Opened(key_of(stream), new_epoch()))

    def tell(self, *records: Record) -> None:
        """Add records, which go soon."""
        for record in records:
            self.known.note(record, read_key)
            if isinstance(record, Closed):
                self._keys.pop(read_key(record.stream), None)
        self._items += records
        self._wake.unpark()

    def write_again(self, parts: Iterable[Part]) -> None:
        """Put entries in front of all that wait: they say everything that was said before, of which some was lost."""
        drafts = self._drafted(parts)
        drafts[0].is_whole = True
        self._drafts.extendleft(reversed(drafts))

    def add(self, parts: Iterable[Part]) -> None:
        """Put entries behind all that wait."""
        self._seal()
        self._drafts += self._drafted(parts)

    def _drafted(self, parts: Iterable[Part]) -> list[_Draft]:
        now = trio.current_time()
        drafts = [_Draft(header_of(records), b"".join(data), now) for records, data in parts]
        self._ring_bytes += sum(draft.size for draft in drafts)
        self._wake.unpark()
        return drafts

    # Appending

    @property
    def is_overfull(self) -> bool:
        """Whether more waits than is worth keeping: the store is away for too long."""
        oldest = self._drafts[0].at_s if self._drafts else trio.current_time()
        return self._ring_bytes > RING_BYTES or trio.current_time() - oldest > RING_S

    @property
    def newest(self) -> EntryId:
        """The newest entry that is known to be in the log."""
        return self._newest

    @property
    def unwritten_bytes(self) -> int:
        """How much is to be appended."""
        return self._size + sum(draft.size for draft in self._drafts)

    def begin(self, term: int, in_log: EntryId | None) -> None:
        """Append in this term from now on; ``in_log`` is the newest entry before it."""
        if self._drafts and (first := self._drafts[0]).id is not None:
            if in_log == first.id:  # it got there, though nobody said so; the mirror has read it
                self._ring_bytes -= self._drafts.popleft().size
            else:
                first.id = None
        self._newest = EntryId(term, 0)
        self._wake.unpark()

    async def run(self) -> None:
        """Append until cancelled; raises ``Fenced`` when somebody else has, or the log lost its newest entries.

        While the store is away it is tried again and again.
        """
        began_at = -self._window_s
        while True:
            if not self._drafts:
                if not self._items:
                    await self._wake.park()
                    continue
                if began_at + self._window_s > trio.current_time():
                    await trio.sleep_until(began_at + self._window_s)
                self._seal()
            draft = self._drafts[0]
            began_at = trio.current_time()
            self._newest = await self._append(draft)
            self._drafts.popleft()
            self._ring_bytes -= draft.size
            self.written(Entry(self._newest, VERSION, draft.header, draft.data, draft.is_whole), draft.own)
            self._moved.unpark_all()

    async def drained(self) -> None:
        """Append what waits, then return; raises what the store does."""
        self._seal()
        while self._drafts:
            await self._moved.park()

    async def _append(self, draft: _Draft) -> EntryId:
        wait_s, longest_s = AGAIN_S
        while True:
            previous = self._newest
            own = draft.id = EntryId(previous.term, previous.sequence + 1)
            try:
                await self._store.append(
                    previous, own, draft.header, draft.data, is_whole=draft.is_whole, starts_anew=draft.is_whole
                )
            except Fenced as error:
                if error.newest == own:
                    return own  # an earlier try got there, though nobody said so
                raise
            except BackplaneError as error:
                log.warning("the backplane does not take entries", extra={"reason": str(error)})
                self._note_away()
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                self._is_away = False
                return own

    def _note_away(self) -> None:
        """What waits for the store is kept as bytes alone."""
        if not self._is_away:
            self._is_away = True
            for draft in self._drafts:
                draft.own = None

    def _seal(self) -> None:
        if not self._items:
            return
        records = [item.record() if isinstance(item, _Run) else item for item in self._items]
        draft = _Draft(header_of(records), b"".join(self._data), trio.current_time())
        if not self._is_away:
            draft.own = Own(records, [item.envelopes for item in self._items if isinstance(item, _Run)])
        self._drafts.append(draft)
        self._ring_bytes += draft.size
        self._items, self._data = [], []
        self._size = self._events = 0
