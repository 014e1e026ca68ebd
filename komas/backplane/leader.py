"""Leading: the one process that is connected to the exchange writes what it receives into the log.

A leader holds a lease and renews it. When the store is away it goes on, and keeps what it could not write; when the
store is there again, it takes a new term, unless somebody else has. What it lost is written again from its mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

import msgspec
import trio

from komas.backplane import report
from komas.backplane.interest import WANT, ClusterInterest
from komas.backplane.mirror import Mirror, Own
from komas.backplane.nodes import NodeRow
from komas.backplane.ports import Acquired, Backplane, BackplaneError, Entry, EntryId, Fenced, Held
from komas.backplane.report import LedMarket
from komas.backplane.wire import (
    Acknowledged,
    Asked,
    Book,
    Conditions,
    Connect,
    Follow,
    Followed,
    Heard,
    Inquire,
    Inquiry,
    Left,
    Pin,
    Report,
    Rotate,
    Want,
    Wish,
    key_of,
    read_key,
    read_wish,
    write_names,
)
from komas.backplane.writer import WINDOW_S, Writer
from komas.errors import VenueError
from komas.event_log import event_logger
from komas.hub.shared_hub import SharedHub
from komas.model.codec import Envelope
from komas.model.kinds import Kind, Venue
from komas.model.market import Health
from komas.model.streams import Stream
from komas.venues.core.ports import Interest, MarketSink

log = event_logger(__name__)

# Publications of a term begin at a number of its own, so many for each millisecond of its time: who has read events
# that were lost with all who knew them has a place that no other event was given, or will be.
PUBLICATIONS: Final = 2**10
BEGAN_MS: Final = 1_700_000_000_000  # before the first term of all
HEARTBEAT_S: Final = 1.0
FACTS_S: Final = 60.0
FACTS_AGAIN_S: Final = 5.0  # where a node has missed entries
ORPHANS_S: Final = 15.0  # until every node has said anew what it wants
LOOK_S: Final = 10.0
WISHES: Final = 256
BREATH: Final = 200  # streams, between which others run
TURNS: Final = 5  # of a lease, in which it is renewed


class OpenMarkets(Protocol):
    """Opens the markets of the exchange."""

    def __call__(
        self, sink: MarketSink, interest: Interest, held: Callable[[Stream], None], *, stands_by: bool
    ) -> AbstractAsyncContextManager[Sequence[LedMarket]]:
        """Markets that publish to ``sink``; ``held`` is called with each stream that the exchange has acknowledged.

        Those that stand by keep what comes until they are to ``go_on()``.
        """


class Prepared(Protocol):
    """Markets that stood by until now, connected, with the streams that were open."""

    @property
    def interest(self) -> ClusterInterest:
        """What they are asked for."""

    @property
    def markets(self) -> Sequence[LedMarket]:
        """They run."""

    @property
    def covered_until(self) -> float:
        """When, on trio's clock, another leader was heard last."""

    def lead(self, writer: Writer, held: Callable[[Stream], None]) -> None:
        """Publish to a writer from now on, and tell it what was not told yet."""


class LeaderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node leads: ``lease_s`` is how long the others wait for one that says nothing.

    ``encode`` makes an event's bytes as readers get them.
    """

    node: str
    encode: Callable[[Envelope], bytes]
    lease_s: float
    window_s: float = WINDOW_S


class Leader:
    """One time of leading, from an acquired lease to its end; ``run()`` it."""

    def __init__(
        self,
        store: Backplane,
        hub: SharedHub,
        mirror: Mirror,
        open_markets: OpenMarkets,
        options: LeaderOptions,
        *,
        nodes: Callable[[], Mapping[str, NodeRow]],
        prepared: Prepared | None = None,
    ) -> None:
        """``nodes`` are those that are there, by their names."""
        self._nodes = nodes
        self._store = store
        self._hub = hub
        self._mirror = mirror
        self._open_markets = open_markets
        self._encode = options.encode
        self._options = options
        known = mirror.known.copy()
        self.writer = Writer(
            store,
            options.encode,
            window_s=options.window_s,
            known=known,
            publication=hub.publication,
        )
        self._prepared = prepared
        self._interest = ClusterInterest() if prepared is None else prepared.interest
        self._news = trio.Event()  # of markets: another state, since it was reported
        self.writer.written = self._take
        self.writer.rejected = self._interest.abandon
        self.writer.status_changed = self._note_news
        self._markets: dict[Venue, LedMarket] = {}
        self._conditions: dict[Stream, tuple[Health, str, bool]] = {}
        self._facts_at = 0.0
        self._term = 0
        self._is_writing = False
        self._interrupted = trio.lowlevel.ParkingLot()
        self._resigned = trio.Event()
        self.released = trio.Event()  # somebody else may lead

    def resign(self) -> None:
        """Let somebody else lead."""
        self._resigned.set()

    async def run(self, acquired: Acquired) -> None:
        """Lead until somebody else does, until ``resign()``, or until more waits than is worth keeping."""
        if not await self._has_read_up_to(acquired.term):
            return
        self.writer.known = self._mirror.known.copy()  # what was on its way when the lease was got is there
        self.writer.publication = max(self._hub.publication, (acquired.term - BEGAN_MS) * PUBLICATIONS)
        self._begin(acquired)
        try:
            async with trio.open_nursery() as lead:
                lead.start_soon(self._resign_with, lead.cancel_scope)
                async with self._opened() as markets, trio.open_nursery() as work:
                    self._start(markets, work)
                    await self._hold_on()
                    work.cancel_scope.cancel("somebody else leads")
                lead.cancel_scope.cancel("over")
        finally:
            self._interrupt()

    async def interrupted(self) -> None:
        """Wait while the log holds nothing but what is written here: the mirror is told that, and need not read it."""
        while self._is_writing:
            await self._interrupted.park()

    def _interrupt(self) -> None:
        self._is_writing = False
        self._interrupted.unpark_all()

    def _take(self, entry: Entry, own: Own | None) -> None:
        """An entry that was written here is in the log."""
        self._mirror.take(entry, own)
        self._hub.flush()

    def _opened(self) -> AbstractAsyncContextManager[Sequence[LedMarket]]:
        if self._prepared is not None:
            return nullcontext(self._prepared.markets)
        return self._open_markets(self.writer, self._interest, self._on_held, stands_by=False)

    def _start(self, markets: Sequence[LedMarket], work: trio.Nursery) -> None:
        known = self.writer.known
        self._markets = {market.venue: market for market in markets}
        let_go = self._interest.lead(
            opened=self.writer.opened, closed=self.writer.closed, tell=self.writer.tell, known=known
        )
        if self._prepared is not None:
            self._prepared.lead(self.writer, self._on_held)
        work.start_soon(self._forget_orphans, let_go, name="orphans")
        for market in markets:
            latest = ((stream, self._hub.latest.get(stream)) for stream in known.epochs if stream.venue is market.venue)
            told = {stream: health for stream, health in self._mirror.told.items() if stream.venue is market.venue}
            market.resume(((stream, envelope.event) for stream, envelope in latest if envelope is not None), told)
            if self._prepared is None:
                market.start_beside_reference(work)
            else:
                work.start_soon(market.go_on, self._prepared.covered_until, name="going on")
            if known.asked:
                market.feed.connect()
            elif self._prepared is not None:
                market.feed.disconnect()
        for kind in known.followed:
            self._market_of(kind).symbol_tracker.follow(kind)
        work.start_soon(self._interest.sweep, name="cluster's interest")
        work.start_soon(self._hear_wishes, work, name="wishes")
        work.start_soon(self._look_after_nodes, name="nodes' interest")
        work.start_soon(self._report, name="reports")

    async def _has_read_up_to(self, term: int) -> bool:
        """Wait until everything before a term is known here; ``False`` if it takes too long."""
        self._term = term
        with trio.move_on_after(self._options.lease_s):
            await self._mirror.reached(EntryId(term, 0))
            return True
        return False

    def _begin(self, acquired: Acquired) -> None:
        """Write in a term from now on; first what the log has lost."""
        self.writer.begin(acquired.term, acquired.previous)
        if self._mirror.knows_more or self._mirror.is_log_unfinished:
            self._write_again()
        self._facts_at = trio.current_time()
        self._is_writing = True

    def _write_again(self) -> None:
        """The log lost some of its entries: all that is known here is written once more."""
        log.warning("the log lost entries; what is known here is written again", extra={"term": self._term})
        life, publication = self._hub.epoch, self._hub.publication
        facts = self._mirror.known.facts(life, publication)
        first = self._mirror.known.facts(life, publication, continues=True)
        histories, states = self._mirror.histories(self._encode), self._mirror.states(self._encode)
        self.writer.write_again([([first], []), *histories, *states, ([facts], [])])
        self._conditions.clear()  # they are told once more

    async def _hold_on(self) -> None:
        """Write, for one term after another, until somebody else leads."""
        self._tell_facts()
        while True:
            try:
                async with trio.open_nursery() as term:
                    term.start_soon(self._keep_lease, term.cancel_scope, name="lease")
                    term.start_soon(self.writer.run, name="log writer")
            except* Fenced as fenced:
                log.warning("the log is not where it was left", extra={"reason": str(fenced.exceptions[0])})
            self._interrupt()
            again = await self._acquire_again()
            if again is None or not await self._has_read_up_to(again.term):
                return
            if self._hub.publication > self.writer.publication:
                return  # somebody led meanwhile: what waits here has places before what came since
            self._begin(again)
            log.info("leads again", extra={"term": again.term})

    async def _keep_lease(self, scope: trio.CancelScope) -> None:
        """Renew the lease; end the term when it is not ours any more. While the store is away, nobody can take it."""
        while True:
            await trio.sleep(self._options.lease_s / TURNS)
            if self.writer.is_overfull:
                self.resign()
            try:
                if not await self._store.renew(self._options.node, self._term, self._options.lease_s):
                    log.warning("the lease was lost", extra={"term": self._term})
                    scope.cancel("the lease was lost")
                    return
            except BackplaneError as error:
                log.warning("the lease cannot be renewed", extra={"reason": str(error)})

    async def _acquire_again(self) -> Acquired | None:
        while True:
            try:
                got = await self._store.acquire(self._options.node, self._options.lease_s, seen=self._mirror.cursor)
            except BackplaneError:
                await trio.sleep(self._options.lease_s / TURNS)
                continue
            return None if isinstance(got, Held) else got

    async def _resign_with(self, scope: trio.CancelScope) -> None:
        """Write what waits, say that the lease is free, and let it go."""
        await self._resigned.wait()
        with trio.move_on_after(self._options.lease_s / TURNS):
            self.writer.tell(Left())
            await self.writer.drained()
        try:
            await self._store.release(self._options.node, self._term)
        except BackplaneError as error:
            log.warning("the lease cannot be let go", extra={"reason": str(error)})
        self.released.set()
        scope.cancel("somebody else is to lead")

    async def _forget_orphans(self, let_go: Callable[[], None]) -> None:
        await trio.sleep(ORPHANS_S)
        let_go()

    # What nodes want

    async def _look_after_nodes(self) -> None:
        """Know what every node wants: of those that are gone, nothing."""
        while True:
            try:
                kept = await self._store.kept(WANT)
            except BackplaneError as error:
                log.warning("what nodes want is not known", extra={"reason": str(error)})
            else:
                self._interest.take_all(kept)
            await trio.sleep(LOOK_S)

    async def _hear_wishes(self, work: trio.Nursery) -> None:
        place = self.writer.known.heard
        while True:
            try:
                wishes = await self._store.wishes(place, most=WISHES, wait_s=HEARTBEAT_S)
            except BackplaneError as error:
                log.warning("wishes cannot be heard", extra={"reason": str(error)})
                await trio.sleep(HEARTBEAT_S)
                continue
            for place, value in wishes:  # noqa: B007 - the last one's is told below
                try:
                    await self._hear(read_wish(value), work)
                except ValueError as error:  # of a release that has other kinds, or says other things
                    log.warning("a wish cannot be heard", extra={"reason": str(error)})
            if wishes:
                self.writer.tell(Heard(place))

    async def _hear(self, wish: Wish, work: trio.Nursery) -> None:
        match wish:
            case Want():
                self._interest.take(wish)
            case Pin():
                streams = [read_key(key) for key in wish.streams]
                (self._interest.pin if wish.on else self._interest.unpin)(streams)
            case Connect():
                self.writer.tell(Asked(wish.on))
                for market in self._markets.values():
                    (market.feed.connect if wish.on else market.feed.disconnect)()
                self._note_news()
            case Inquire():
                self.writer.tell(Inquiry(wish.question, wish.topic, wish.body))
            case Follow():
                work.start_soon(self._follow, wish, Kind(wish.kind), name="follow")
            case Rotate():
                work.start_soon(self._rotate, wish, name="rotate")
            case Book():
                work.start_soon(self._show_book, wish, read_key(wish.stream), name="order book")

    async def _follow(self, wish: Follow, kind: Kind) -> None:
        tracker = self._market_of(kind).symbol_tracker
        self.writer.tell(Followed(kind, wish.on))
        streams = (tracker.follow if wish.on else tracker.unfollow)(kind)
        await self._answer(wish.question, write_names(map(key_of, streams)))

    async def _rotate(self, wish: Rotate) -> None:
        await self._answer(wish.question, msgspec.msgpack.encode(self._markets[wish.venue].feed.rotate()))

    async def _show_book(self, wish: Book, stream: Stream) -> None:
        with trio.move_on_after(wish.wait_s):
            try:
                await self._markets[stream.venue].feed.acknowledged([stream])
            except VenueError:
                return  # the node hears of it
            book = await self._markets[stream.venue].order_books.known(stream, wish.levels)
            await self._answer(wish.question, msgspec.json.encode(book))

    async def _answer(self, question: str, value: bytes) -> None:
        try:
            await self._store.answer(question, value)
        except BackplaneError as error:
            log.warning("a question cannot be answered", extra={"reason": str(error)})

    def _market_of(self, kind: Kind) -> LedMarket:
        return self._markets[Stream.of(kind, "X").venue]

    # What is told

    def _on_held(self, stream: Stream) -> None:
        if stream not in self.writer.known.acknowledged:
            self.writer.tell(Acknowledged((key_of(stream),)))

    def _tell_facts(self) -> None:
        self._facts_at = trio.current_time()
        self.writer.tell(self.writer.known.facts(self._hub.epoch, self.writer.publication))

    async def _report(self) -> None:
        """Once a second what mirrors cannot know; once a minute everything that is so, and the latest states."""
        nodes: set[str] = set()
        while True:
            self._news = trio.Event()
            for market in self._markets.values():
                self.writer.tell(Report(market.venue, report.of(market)))
            await self._tell_conditions()
            if trio.current_time() >= self._facts_at + FACTS_S or self._is_asked_for_facts(nodes):
                self._conditions.clear()
                self._tell_facts()
                self.writer.add(self._mirror.states(self._encode))
                await self._tell_conditions()
            self.writer.flush()
            with trio.move_on_after(HEARTBEAT_S):
                await self._news.wait()

    def _note_news(self) -> None:
        self._news.set()

    def _is_asked_for_facts(self, seen: set[str]) -> bool:
        """Whether a node has begun to read since the last look, or has missed entries."""
        rows = self._nodes()
        is_new = not rows.keys() <= seen
        seen.clear()
        seen.update(rows)
        lacks = trio.current_time() >= self._facts_at + FACTS_AGAIN_S and not all(
            row.is_complete for row in rows.values()
        )
        return is_new or lacks

    async def _tell_conditions(self) -> None:
        """How streams are, where that has changed since it was told."""
        rows: list[tuple[str, Health, str, bool]] = []
        for count, stream in enumerate(tuple(self.writer.known.epochs)):
            if count % BREATH == BREATH - 1:
                await trio.lowlevel.checkpoint()
            condition = self._markets[stream.venue].health.of(stream)
            now = condition.health, condition.reason, condition.is_doubtful
            if self._conditions.get(stream) != now:
                self._conditions[stream] = now
                rows.append((key_of(stream), *now))
        for stream in [stream for stream in self._conditions if stream not in self.writer.known.epochs]:
            del self._conditions[stream]
        if rows:
            self.writer.tell(Conditions(tuple(rows)))
