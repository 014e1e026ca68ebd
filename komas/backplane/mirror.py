"""What the log says, told to this process's hub, which never waits.

Every process reads the same entries in the same order, so it holds the same histories. In each stream what was seen
before is dropped by the exchange's own numbers: a leader that is not sure whether something arrived writes it again. An
entry that is missing (this process was away for longer than the log remembers) shows as a hole in the numbers, which is
declared; an entry that is whole closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
import trio

from komas.backplane.known import Known
from komas.backplane.ports import READABLE, Entry, EntryId
from komas.backplane.report import NOTHING, MarketReport
from komas.backplane.report import read as read_report
from komas.backplane.wire import (
    Acknowledged,
    Asked,
    Closed,
    Conditions,
    Events,
    Facts,
    Followed,
    Heard,
    Inquiry,
    Kept,
    Left,
    Malformed,
    Missing,
    Opened,
    Pinned,
    Record,
    Refused,
    Report,
    State,
    Well,
    key_of,
    read_header,
    read_key,
)
from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.hub.shared_hub import SharedHub
from komas.model.codec import NOT_READ, EncodedEnvelope, Envelope, NoticeEnvelope
from komas.model.kinds import Venue
from komas.model.market import Event, FeedState, FeedStatus, Gap, Health, HealthNotice
from komas.model.streams import Stream, next_number, previous_number
from komas.venues.core.health import Condition

log = event_logger(__name__)

MISSED: Final = "this process could not read them in time"
KEPT_AGAIN: Final = 1024  # of each stream's newest events, that a leader writes again where the log was lost
PART_BYTES: Final = 2**18
LAST_OF_TERM: Final = 2**63  # beyond every sequence


class Own(NamedTuple):
    """What an entry has, where it was written here: its records, and the events of each ``Events`` among them."""

    records: list[Record]
    envelopes: list[list[Envelope]]


class Mirror:
    """Everything that the log has said, so far as this process has read it.

    ``read`` makes an event of its bytes. ``moved`` is unparked after each entry. Who takes entries flushes the hub
    afterwards: entries that were read together are written to readers together.
    """

    def __init__(self, hub: SharedHub, read: Callable[[bytes], Event]) -> None:
        self._hub = hub
        self._read = read
        self._last: dict[Stream, int] = {}  # the number up to which each stream is accounted for
        self._keys: dict[str, Stream] = {}
        self.cursor: EntryId | None = None
        self.newest: EntryId | None = None  # the newest that was read of entries that say something
        self.leader = ""
        self.moved = trio.lowlevel.ParkingLot()
        self.heard_at = -1e9  # when an entry was read last, on trio's clock
        self.knows_more = False  # the log lost what is known here, and nobody has told everything anew since
        self.has_life = False  # the hub has the name of the log's life: places are of it
        self.is_complete = False  # everything that is open is known: a keyframe was read, or the log's beginning
        self.is_log_unfinished = False  # it was to be written again, and its writer has not come to the end of that
        self.is_leaderless = True
        self.openings = 0  # changes of which streams are open
        self.known = Known()
        self.term_began: Callable[[], None] = lambda: None
        self.inquired: Callable[[Inquiry], None] = lambda _inquiry: None
        self.refused: dict[Stream, VenueError] = {}
        self.conditions: dict[Stream, Condition] = {}
        self.told: dict[Stream, Health] = {}  # doubtful streams, as readers were told
        self._reports: dict[Venue, MarketReport] = {}
        self.entries = 0
        self.unreadable = 0
        self.holes = 0
        self.repeated = 0
        self._is_away = False
        self._held: list[tuple[int, Stream, Envelope | Gap]] = []  # with their publications

    # Reading

    def take(self, entry: Entry, own: Own | None = None) -> None:
        """Take the next entry; one that was taken before is none. Nothing is read of one with its ``own``."""
        if self.cursor is not None and entry.id <= self.cursor:
            return
        self.heard_at = trio.current_time()
        self.entries += 1
        if entry.version not in READABLE:
            self.unreadable += 1
            self._complain(entry, f"it has version {entry.version}")
        elif entry.id.sequence == 0:
            self._take_term(entry)
        else:
            self._take_records(entry, own)
            self.newest = entry.id
        self.cursor = entry.id
        self.moved.unpark_all()

    def _take_term(self, entry: Entry) -> None:
        self._let_held_go()
        if self.cursor is not None and (entry.previous is None or entry.previous < self.cursor):
            self.knows_more = True
            log.warning("the log lost what was read here", extra={"at": str(self.cursor), "now": str(entry.previous)})
        elif self.cursor is not None and entry.previous != self.cursor:
            self._note_hole(entry)
        elif self.cursor is None and entry.previous is None:
            self.is_complete = True  # there was nothing before
        self.leader, self.is_leaderless = entry.node, False
        self.term_began()

    def _take_records(self, entry: Entry, own: Own | None) -> None:
        if not entry.is_whole and self.cursor is not None and not _follows(entry.id, self.cursor):
            self._note_hole(entry)
        if own is not None:
            events = iter(own.envelopes)
            for record in own.records:
                if isinstance(record, Events):
                    self._take_events(record, next(events))
                else:
                    self._apply(record, b"")
            return
        try:
            records = read_header(entry.header)
        except Malformed as error:
            self.unreadable += 1
            self._complain(entry, str(error))
            return
        at = 0
        for record in records:
            length = sum(record.lengths) if isinstance(record, Events) else 0
            try:
                self._apply(record, _part_of(entry.data, at, length))
            except ValueError as error:  # of a stream, or a kind, that this version does not have
                self.unreadable += 1
                self._complain(entry, str(error))
            at += length

    def _note_hole(self, entry: Entry) -> None:
        self.holes += 1
        self.is_complete = False
        log.warning("entries of the log were missed", extra={"after": str(self.cursor), "before": str(entry.id)})

    def _complain(self, entry: Entry, reason: str) -> None:
        if self.unreadable == 1:
            log.error("an entry of the log cannot be read", extra={"entry": str(entry.id), "reason": reason})

    def _stream(self, key: str) -> Stream:
        stream = self._keys.get(key)
        if stream is None:
            stream = self._keys[key] = read_key(key)
        return stream

    def _apply(self, record: Record, data: bytes) -> None:  # noqa: C901, PLR0912 - one case for each record
        hub = self._hub
        match record:
            case Events():
                self._take_events(record, self._envelopes(self._stream(record.stream), record, data))
            case Missing():
                self._take_gap(self._stream(record.stream), record.gap, record.publication)
            case Well():
                self._take_health(self._stream(record.stream), record.notice)
            case State():
                self.known.status = record.status
                if not self._is_away:
                    hub.publish_status(record.status)
            case Refused():
                stream = self._stream(record.stream)
                self.refused[stream] = VenueError(record.reason, cause=Cause.REFUSED)
                hub.reject(stream, record.reason)
            case Opened():
                self._adopt(self._stream(record.stream), record.epoch)
            case Closed():
                self._close(self._stream(record.stream))
            case Acknowledged() | Followed() | Asked() | Heard():
                self.known.note(record, self._stream)
            case Pinned():
                self.known.note(record, self._stream)
                streams = [self._stream(key) for key in record.streams]
                (hub.interest.pin if record.on else hub.interest.unpin)(streams)
            case Report():
                self._take_report(record)
            case Facts():
                self._take_facts(record)
            case Conditions():
                for key, health, reason, is_doubtful in record.rows:
                    self._take_condition(self._stream(key), Condition(health, reason, is_doubtful))
            case Kept():
                stream = self._stream(record.stream)
                self._adopt(stream, record.epoch)
                hub.begin_after(stream, record.publication)
            case Inquiry():
                self.inquired(record)
            case Left():
                self.is_leaderless = True

    def _take_facts(self, facts: Facts) -> None:
        """Everything that is so: what is not there is not so any more."""
        hub, before = self._hub, self.known
        self.known = Known.of(facts, self._stream)
        hub.epoch = facts.life
        hub.begin_at(facts.publication)
        for stream in [stream for stream in before.epochs if stream not in self.known.epochs]:
            self._close(stream)
        for stream, epoch in self.known.epochs.items():
            self._adopt(stream, epoch)
        hub.interest.unpin([stream for stream in hub.interest.pins() if stream not in self.known.pins])
        hub.interest.pin([stream for stream in self.known.pins if not hub.interest.pinned(stream)])
        if self.known.status != before.status and not self._is_away:
            hub.publish_status(self.known.status)
        if self.is_log_unfinished and not facts.continues:
            hub.note_all_told(facts.publication)
        self.is_log_unfinished = facts.continues
        self._let_held_go()
        if not facts.continues:
            self.has_life = self.is_complete = True
            self.knows_more = False

    def _adopt(self, stream: Stream, epoch: str) -> None:
        """A stream is open in an epoch. In place of another one, without having been closed: its numbers go on.

        The leader did not know that it was open, or since when; what is missing in between shows in the numbers. Where
        they begin anew, the gap that says so follows.
        """
        self.known.epochs[stream] = epoch
        self.openings += 1
        if self._hub.open_streams.adopted(stream) != epoch:
            self.refused.pop(stream, None)
            self._hub.adopt(stream, epoch)

    def _close(self, stream: Stream) -> None:
        self.openings += 1
        self._last.pop(stream, None)
        self.known.forget(stream)
        self.conditions.pop(stream, None)
        self.told.pop(stream, None)
        self._hub.release(stream)

    def _take_health(self, stream: Stream, notice: HealthNotice) -> None:
        if notice.health is Health.LIVE:
            self.told.pop(stream, None)
        else:
            self.told[stream] = notice.health
        self._hub.publish_health(stream, notice)

    def _take_condition(self, stream: Stream, condition: Condition) -> None:
        self.conditions[stream] = condition
        if condition.is_doubtful:
            self.told[stream] = condition.health

    def _envelopes(self, stream: Stream, record: Events, data: bytes) -> list[Envelope]:
        """The events of a record, which nobody reads before somebody asks for them."""
        envelopes: list[Envelope] = []
        at, publication, received_ms = 0, record.publication, record.received_ms
        for index, (number, length) in enumerate(zip(record.sequences, record.lengths, strict=True)):
            place = 0
            if number is not None:
                place = record.publications[index] if record.publications else publication
                publication += 1
            if record.times:
                received_ms = record.times[index]
            envelopes.append(
                EncodedEnvelope(
                    stream,
                    NOT_READ,
                    received_ms,
                    number,
                    record.epoch,
                    record.backfilled,
                    place,
                    None,
                    data[at : at + length],
                    self._read,
                )
            )
            at += length
        return envelopes

    def _take_events(self, record: Events, envelopes: list[Envelope]) -> None:
        stream = self._stream(record.stream)
        if self._hub.open_streams.adopted(stream) != record.epoch:
            first = record.publications[0] if record.publications else record.publication
            self._hub.begin_at(first - 1)
            self._adopt(stream, record.epoch)
        if not record.publications and (last := _last_publication(envelopes)):
            self._hub.note_told(record.publication, last)
        self._deliver(stream, self._new_of(stream, envelopes, is_said_again=bool(record.times)))

    def _new_of(self, stream: Stream, envelopes: list[Envelope], *, is_said_again: bool) -> list[Envelope]:
        """Those that are new here; events that are missing before one are declared."""
        new: list[Envelope] = []
        last = self._last.get(stream)
        for envelope in envelopes:
            number = envelope.sequence
            if number is None:
                if is_said_again and self._has_newer(stream, envelope.received_ms):
                    continue
            else:
                if last is not None:
                    if number <= last:
                        self.repeated += 1
                        continue
                    if (expected := next_number(stream, last)) < number:
                        self._deliver(stream, new)
                        new = []
                        self._declare(stream, expected, previous_number(stream, number), envelope.publication - 1)
                last = number
            new.append(envelope)
        if last is not None:
            self._last[stream] = last
        return new

    def _deliver(self, stream: Stream, envelopes: list[Envelope]) -> None:
        if not envelopes:
            return
        if self._holds and envelopes[-1].sequence is not None:
            self._held += [(envelope.publication, stream, envelope) for envelope in envelopes]
        else:
            self._hub.deliver(stream, envelopes)

    def _declare(self, stream: Stream, first: int, last: int, publication: int) -> None:
        """Events are missing; ``publication`` is that of the last of them, so that who had others of them is told."""
        gap = Gap(stream=stream.name, first=first, last=last, reason=MISSED)
        self._deliver_gap(stream, gap, publication)

    def _deliver_gap(self, stream: Stream, gap: Gap, publication: int) -> None:
        if self._holds:
            self._held.append((publication, stream, gap))
        else:
            self._hub.deliver_gap(stream, gap, publication)

    @property
    def _holds(self) -> bool:
        """Whether news waits for the end of a log that is written again: it comes stream by stream.

        Readers of many streams, who may be here already, have all of them in one order.
        """
        return self.is_log_unfinished and self.has_life

    def _let_held_go(self) -> None:
        """What was held goes on, in the order in which it was published."""
        held, self._held = self._held, []
        for publication, stream, item in sorted(held, key=itemgetter(0)):
            if stream not in self._hub.open_streams.by_stream:
                continue
            if isinstance(item, Gap):
                self._hub.deliver_gap(stream, item, publication)
            else:
                self._hub.deliver(stream, [item])

    def _has_newer(self, stream: Stream, received_ms: int) -> bool:
        latest = self._hub.latest.get(stream)
        return latest is not None and latest.received_ms >= received_ms

    def _take_gap(self, stream: Stream, gap: Gap, publication: int) -> None:
        if not self.is_log_unfinished:
            self._hub.note_told(publication, publication)
        if self._hub.open_streams.adopted(stream) is None:
            return  # its events will show it
        last = self._last.get(stream)
        if gap.last is None:
            self._last.pop(stream, None)
        elif last is not None and gap.last <= last:
            self.repeated += 1
            return
        else:
            self._last[stream] = gap.last
        self._deliver_gap(stream, gap, publication)

    def _take_report(self, record: Report) -> None:
        try:
            self._reports[record.venue] = read_report(record.body)
        except msgspec.MsgspecError:  # of a version that says other things
            self._reports.pop(record.venue, None)

    async def reached(self, place: EntryId) -> None:
        """Wait until everything before a place has been read, and what stands there."""
        while self.cursor is None or self.cursor < place:
            await self.moved.park()

    def go_back(self, newest: EntryId) -> None:
        """What was read last stands in no log that there is: read the term of the log's newest entry."""
        log.warning("the log is another one than was read here", extra={"at": str(self.cursor), "now": str(newest)})
        self.knows_more = True
        self.cursor = EntryId(newest.term - 1, LAST_OF_TERM)

    # What else is asked

    def report(self, venue: Venue) -> MarketReport:
        """What the leader said of a market last."""
        return self._reports.get(venue, NOTHING)

    @property
    def is_heard(self) -> bool:
        """Whether a leader is heard: what is known here is of now."""
        return not self._is_away and self.cursor is not None

    def is_fresh(self, within_s: float) -> bool:
        """Whether something was read within so many seconds, and everything before it is known."""
        return self.is_complete and trio.current_time() - self.heard_at <= within_s

    def go_away(self, reason: str) -> None:
        """Tell readers that nothing is heard: of the leader, or of the log."""
        if not self._is_away:
            self._is_away = True
            self._hub.publish_status(FeedStatus(state=FeedState.RECONNECTING, reason=reason))

    def come_back(self) -> None:
        """Tell readers how it really is."""
        if self._is_away:
            self._is_away = False
            self._hub.publish_status(self.known.status)

    def states(self, encode: Callable[[Envelope], bytes]) -> Iterator[tuple[list[Record], list[bytes]]]:
        """The latest state of each stream, in parts of a bounded size."""
        found = (self._hub.latest.get(stream) for stream in self.known.epochs)
        states = {each.stream: [each] for each in found if each is not None and each.sequence is None}
        return _parts(states, encode, {})

    def histories(self, encode: Callable[[Envelope], bytes]) -> Iterator[tuple[list[Record], list[bytes]]]:
        """The newest events that are kept of each stream, with the gaps between them, likewise."""
        kept: dict[Stream, list[Envelope | NoticeEnvelope]] = {}
        begins: dict[Stream, Kept] = {}
        for stream, epoch in self.known.epochs.items():
            history = self._hub.open_streams.by_stream[stream].history
            first = max(history.first, history.end - KEPT_AGAIN)
            kept[stream] = list(history.between(first, history.end))
            begins[stream] = Kept(key_of(stream), epoch, history.publication_before(first))
        return _parts(kept, encode, begins)


def _part_of(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise Malformed("an entry of the log is shorter than it says")
    return data[at : at + length] if length else b""


def _last_publication(envelopes: list[Envelope]) -> int:
    """Of the last event that has one, mostly the last; 0 for states alone. For each record, so every step counts."""
    for envelope in reversed(envelopes):
        if envelope.publication:
            return envelope.publication
    return 0


def _follows(entry: EntryId, cursor: EntryId) -> bool:
    return entry.term == cursor.term and entry.sequence == cursor.sequence + 1


def _parts(
    items: Mapping[Stream, list[Envelope] | list[Envelope | NoticeEnvelope]],
    encode: Callable[[Envelope], bytes],
    begins: Mapping[Stream, Record],
) -> Iterator[tuple[list[Record], list[bytes]]]:
    records: list[Record] = []
    data: list[bytes] = []
    size = 0
    for stream, own in items.items():
        records += [begins[stream]] if stream in begins else []
        run: list[tuple[Envelope, bytes]] = []
        for item in own:
            if isinstance(item, NoticeEnvelope):
                _add(records, data, stream, run)
                run = []
                if isinstance(item.notice, Gap):
                    records.append(Missing(key_of(stream), item.notice, item.publication))
                continue
            encoded = encode(item)
            run.append((item, encoded))
            size += len(encoded)
            if size >= PART_BYTES:
                _add(records, data, stream, run)
                yield records, data
                records, data, run, size = [], [], [], 0
        _add(records, data, stream, run)
    if records:
        yield records, data


def _add(records: list[Record], data: list[bytes], stream: Stream, run: list[tuple[Envelope, bytes]]) -> None:
    if not run:
        return
    first = run[0][0]
    records.append(
        Events(
            key_of(stream),
            first.epoch,
            tuple(envelope.sequence for envelope, _ in run),
            tuple(len(encoded) for _, encoded in run),
            first.received_ms,
            first.publication,
            publications=tuple(envelope.publication for envelope, _ in run),
            times=tuple(envelope.received_ms for envelope, _ in run),
        )
    )
    data += [encoded for _, encoded in run]
