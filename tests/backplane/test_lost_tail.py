"""What a leader and a mirror make of a log that has lost some of its entries; each test names a fault there was."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from decimal import Decimal

import msgspec
import pytest
import trio
import trio.testing

from komas.backplane.interest import GONE_S, ClusterInterest
from komas.backplane.known import Known
from komas.backplane.memory import MemoryBackplane, MemoryStore
from komas.backplane.mirror import Mirror
from komas.backplane.ports import VERSION, Acquired, Entry, EntryId, Fenced
from komas.backplane.wire import Events, Kept, Opened, Record, header_of, key_of
from komas.backplane.writer import Writer
from komas.hub.shared_hub import SharedHub
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Kind
from komas.model.market import Gap, Trade
from komas.model.streams import Stream
from komas.web.encoding import read_event, server_sent_event
from komas.web.multiplex import MultiplexedShow

BTC = Stream(Kind.TRADE, "BTCUSDT")
ETH = Stream(Kind.TRADE, "ETHUSDT")
SHOW = MultiplexedShow(epoch=lambda: "e")


def trade(number: int) -> Trade:
    """One trade."""
    return Trade(
        symbol="BTCUSDT",
        trade_id=number,
        price=Decimal("1.00"),
        quantity=Decimal(1),
        timestamp=number,
        is_buyer_maker=False,
    )


def events(epoch: str, numbers: Iterable[int], publication: int, stream: Stream = BTC) -> tuple[Events, bytes]:
    """A record of trades, and their bytes."""
    encoded = [server_sent_event(Envelope(stream, trade(number), 1, number, epoch)) for number in numbers]
    sequences = tuple(numbers)
    record = Events(key_of(stream), epoch, sequences, tuple(map(len, encoded)), 1, publication)
    return record, b"".join(encoded)


class Log:
    """Entries of one log, one after another, for a mirror."""

    def __init__(self, term: int = 1) -> None:
        self._at = EntryId(term, 0)

    def term(self, term: int, previous: EntryId | None) -> Entry:
        """The first entry of a term."""
        self._at = EntryId(term, 0)
        return Entry(self._at, VERSION, node="n", previous=previous)

    def entry(self, *records: Record, data: bytes = b"", is_whole: bool = False) -> Entry:
        """The next entry."""
        self._at = EntryId(self._at.term, self._at.sequence + 1)
        return Entry(self._at, VERSION, header_of(records), data, is_whole)


def kept(hub: SharedHub) -> list[int | str]:
    """What a hub has of the stream's history: numbers, and gaps as words."""
    history = hub.open_streams.by_stream[BTC].history
    items: list[int | str] = []
    for item in history.between(history.first, history.end):
        if isinstance(item, NoticeEnvelope):
            assert isinstance(item.notice, Gap)
            items.append(f"{item.notice.first}..{item.notice.last}")
        else:
            assert item.sequence is not None
            items.append(item.sequence)
    return items


def read_all(mirror: Mirror, entries: Iterable[Entry]) -> None:
    """Let a mirror read entries."""
    for entry in entries:
        mirror.take(entry)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_entry_whose_answer_was_lost_is_written_once(
    autojump_clock: trio.testing.MockClock, *, is_lost: bool
) -> None:
    """The connection is cut after the store has taken it; whether or not the store forgets it, it is there once."""
    store = MemoryStore()
    backplane = store.connect(delay_s=1.0)
    got = await backplane.acquire("a", 60)
    assert isinstance(got, Acquired)
    known = Known()
    known.epochs[BTC] = "e"
    writer = Writer(backplane, server_sent_event, known=known, publication=0)
    taken: list[EntryId] = []
    writer.written = lambda entry, _own: taken.append(entry.id)
    writer.begin(got.term, got.previous)

    async def disturb() -> None:
        await trio.sleep(0.75)
        backplane.cut()
        if is_lost:
            store.wipe()
        backplane.mend()

    writer.publish(BTC, trade(7), 1)
    writer.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disturb)
        with pytest.raises(Fenced) if is_lost else nullcontext(), trio.move_on_after(10):
            await writer.run()
    if is_lost:
        again = await backplane.acquire("a", 60)
        assert isinstance(again, Acquired)
        writer.begin(again.term, again.previous)
        with trio.move_on_after(10):
            await writer.run()
        got = again
    assert taken == [EntryId(got.term, 1)]
    assert await written(backplane) == [7]
    assert store.entries == 2


async def written(backplane: MemoryBackplane) -> list[int | None]:
    """Numbers of the first events that stand in the log."""
    after: EntryId | None = None
    with trio.fail_after(5):
        while True:
            for entry in await backplane.read(after, most=10, wait_s=1):
                after = entry.id
                for record in msgspec.msgpack.decode(entry.header) if entry.header else []:
                    if record[0] == 0:
                        return list(record[3])


async def test_what_an_epoch_in_place_of_another_leaves_out_is_declared() -> None:
    """A leader that did not know that a stream was open began a new epoch: readers lost what was in between, unsaid."""
    hub, log = SharedHub(), Log()
    mirror = Mirror(hub, read_event)
    first, first_data = events("old", [1, 2, 3], 1)
    then, then_data = events("new", [7, 8], 10)
    read_all(mirror, [log.term(1, None), log.entry(Opened(key_of(BTC), "old")), log.entry(first, data=first_data)])
    read_all(mirror, [log.entry(Opened(key_of(BTC), "new")), log.entry(then, data=then_data)])
    assert kept(hub) == ["4..6", 7, 8]


async def test_what_an_epoch_in_place_of_another_repeats_is_dropped() -> None:
    """The same where the new leader knows less: what readers had came again."""
    hub, log = SharedHub(), Log()
    mirror = Mirror(hub, read_event)
    first, first_data = events("old", [1, 2, 3], 1)
    then, then_data = events("new", [2, 3, 4], 10)
    read_all(mirror, [log.term(1, None), log.entry(Opened(key_of(BTC), "old")), log.entry(first, data=first_data)])
    read_all(mirror, [log.entry(Opened(key_of(BTC), "new")), log.entry(then, data=then_data)])
    assert kept(hub) == [4]


def facts_of(mirror: Mirror, hub: SharedHub, log: Log) -> list[Entry]:
    """What a leader with a mirror writes where the log was lost."""
    parts: list[tuple[list[Record], list[bytes]]] = [
        ([mirror.known.facts(hub.epoch, hub.publication, continues=True)], []),
        *mirror.histories(server_sent_event),
        ([mirror.known.facts(hub.epoch, hub.publication)], []),
    ]
    return [log.entry(*records, data=b"".join(data), is_whole=not place) for place, (records, data) in enumerate(parts)]


def old_leader() -> tuple[Mirror, SharedHub]:
    """One that has read the whole log."""
    hub, log = SharedHub(), Log()
    mirror = Mirror(hub, read_event)
    record, data = events("e", [1, 2, 3], 5)
    read_all(mirror, [log.term(1, None), log.entry(Opened(key_of(BTC), "e")), log.entry(record, data=data)])
    return mirror, hub


async def test_a_process_that_begins_with_a_log_written_again_declares_no_gap() -> None:
    """A reader came back to one with a place among events that it had, and was told that the stream was not open."""
    mirror, hub = old_leader()
    log = Log(9)
    entries = [log.term(9, None), *facts_of(mirror, hub, log)]
    fresh_hub = SharedHub()
    fresh = Mirror(fresh_hub, read_event)
    read_all(fresh, entries)
    assert kept(fresh_hub) == [1, 2, 3]
    gap, cursor = fresh_hub.open_streams.by_stream[BTC].history.recover_publication(5)
    assert gap is None
    assert len(cursor) == 2
    assert fresh_hub.has_passed(None, StreamPosition(hub.epoch, hub.publication))


async def test_a_process_that_reads_a_log_written_again_is_complete_at_its_end() -> None:
    """Readers that came back in the middle of it got a gap, and then all of it."""
    mirror, hub = old_leader()
    log = Log(9)
    *entries, last = [log.term(9, EntryId(1, 0)), *facts_of(mirror, hub, log)]
    fresh = Mirror(SharedHub(), read_event)
    for entry in entries:
        fresh.take(entry)
        assert not fresh.is_complete
        assert not fresh.has_life
    assert fresh.is_log_unfinished
    fresh.take(last)
    assert fresh.is_complete
    assert fresh.has_life
    assert not fresh.is_log_unfinished


async def test_a_history_that_is_written_again_leaves_what_is_known_as_it_is() -> None:
    """Others know all of it already."""
    mirror, hub = old_leader()
    log = Log(9)
    read_all(mirror, [log.term(9, None), *facts_of(mirror, hub, log)])
    assert kept(hub) == [1, 2, 3]
    assert hub.publication == 7
    mirror.take(log.entry(Kept(key_of(BTC), "e", 6)))
    assert hub.open_streams.by_stream[BTC].history.recover_publication(5)[0] is None


async def test_a_history_that_is_written_again_is_news_in_the_order_of_all_streams() -> None:
    """It comes stream by stream: a reader of many streams that was cut off in the middle lost what came before."""
    hub, log = SharedHub(), Log()
    mirror = Mirror(hub, read_event)
    opened = [Opened(key_of(stream), "e") for stream in (BTC, ETH)]
    pieces = [events("e", [1], 5), events("e", [1], 6, ETH), events("e", [2], 7), events("e", [2], 8, ETH)]
    both = [log.term(1, None), log.entry(*opened)]
    first, *more = [log.entry(record, data=data) for record, data in pieces]
    read_all(mirror, [*both, first, *more])
    behind_hub = SharedHub()
    behind = Mirror(behind_hub, read_event)
    read_all(behind, [*both, first, log.entry(mirror.known.facts(hub.epoch, 0))])
    again = Log()
    with behind_hub.multiplex([BTC, ETH], SHOW) as subscription:
        read_all(behind, [again.term(9, None), *facts_of(mirror, hub, again)])
        batch = subscription.drain_nowait()
    assert batch is not None
    assert [(item.publication, item.stream.symbol) for item in batch.items if isinstance(item, Envelope)] == [
        (6, "ETHUSDT"),
        (7, "BTCUSDT"),
        (8, "ETHUSDT"),
    ]


async def test_who_comes_back_into_a_hole_is_told_of_the_rest_of_it() -> None:
    """The gap stood before the hole: a reader of many streams that had read into it elsewhere was told nothing."""
    hub, log = SharedHub(), Log()
    mirror = Mirror(hub, read_event)
    first, first_data = events("e", [1], 5)
    then, then_data = events("e", [9], 13)
    opened = Opened(key_of(BTC), "e")
    read_all(mirror, [log.term(1, None), log.entry(opened), log.entry(first, data=first_data)])
    log.entry()  # it was trimmed away before it was read here
    read_all(mirror, [log.entry(then, data=then_data)])
    history = hub.open_streams.by_stream[BTC].history
    _, cursor = history.recover_publication(8)
    gap, event = cursor.take(len(cursor))
    assert isinstance(gap, NoticeEnvelope)
    assert isinstance(event, Envelope)
    _, cursor = history.recover_publication(12)  # who had all of them is not
    assert len(cursor) == 1


def wanting(node: str) -> ClusterInterest:
    """An interest in which a node wants a stream."""
    interest = ClusterInterest()
    interest.lead(opened=lambda _stream: None, closed=lambda _stream: None, tell=lambda _record: None, known=Known())
    interest.join([BTC], node)
    return interest


async def test_a_store_that_forgot_what_nodes_want_closes_no_stream(autojump_clock: trio.testing.MockClock) -> None:
    """All streams were closed, and opened in new epochs seconds later: what happened meanwhile was lost."""
    interest = wanting("n1")
    interest.take_all({})
    await trio.sleep(GONE_S * 0.9)
    interest.take_all({"n1": msgspec.msgpack.encode([1, [key_of(BTC)]])})
    await trio.sleep(GONE_S * 0.9)
    interest.take_all({})
    assert BTC in interest


async def test_a_node_that_stays_away_wants_nothing_any_more(autojump_clock: trio.testing.MockClock) -> None:
    """Its streams are closed after a while."""
    interest = wanting("n1")
    interest.take_all({})
    assert BTC in interest
    await trio.sleep(GONE_S)
    interest.take_all({})
    await interest_swept(interest)
    assert BTC not in interest


async def interest_swept(interest: ClusterInterest) -> None:
    """What nobody wants is let go a moment later."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interest.sweep)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
