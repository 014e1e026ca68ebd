"""One process of many: it mirrors the log, says that it is there and what it wants, and leads when nobody does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Final

import msgspec
import trio

from komas.backplane.interest import WantedTeller
from komas.backplane.leader import Leader, LeaderOptions, OpenMarkets
from komas.backplane.mirror import Mirror
from komas.backplane.nodes import NODE_S, NODES, NodeRow, read_node, write_node
from komas.backplane.ports import READABLE, VERSION, Acquired, Backplane, BackplaneError, EntryId, Held
from komas.backplane.standby import Standby, open_standby
from komas.backplane.wire import Inquiry
from komas.event_log import event_logger
from komas.hub.shared_hub import SharedHub
from komas.model.codec import Envelope, StreamPosition
from komas.model.kinds import Venue
from komas.model.market import Event
from komas.model.streams import Stream

log = event_logger(__name__)

READ_MOST: Final = 64  # entries at once
READ_S: Final = 1.0
TOGETHER_BYTES: Final = 2**16  # of entries whose events are written to readers in one go, where reading falls behind
READ_AGAIN_S: Final = (0.05, 0.25)  # from the first to the longest wait until the store is read again
AGAIN_S: Final = 1.0
AWAY_S: Final = 2.0  # without a word of the leader, after which readers are told
FRESH_S: Final = 3.0  # beyond that, no balancer should send anybody here
LOOK_S: Final = 0.25
ANNOUNCED_S: Final = 1.0
INCOMPLETE_S: Final = 10.0  # a node that does not know everything leads only where nobody else does for so long
FOUNDING_S: Final = 1.5  # in which every node has said what it knows
BARRIER_S: Final = 3.0  # until this process has what a reader heard elsewhere
RETIRE_S: Final = 1.0
JITTER: Final = 0.05
YIELDS: Final = 3  # in a row, to nodes that say that they have read more
SURE_S: Final = 0.75  # for every node to say how far it has read
ASK_AGAIN_S: Final = 0.05
SEEN_S: Final = 10.0  # in which a node that was there is asked for, though the store has forgotten it
INQUIRIES: Final = 1000  # that wait to be answered
PREPARED_FIRST_S: Final = 5 * JITTER  # in which a node that stood by, if there is one, has taken the lease
AWAY: Final = "the backplane does not answer"  # readers hear of it, so where it is and what it says is in the log alone


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``name`` tells the node from all others, also from one of before, and is ``shown`` as people call it.

    One that ``stands_by`` is connected to the exchange while it does not lead, too; one that does not ``leads`` never
    is. One that does not ``serves`` is not for readers.
    """

    name: str
    shown: str
    role: str
    version: str
    lease_s: float
    window_s: float
    leads: bool = True
    serves: bool = True
    stands_by: bool = False

    @property
    def standby(self) -> str:
        """How the node waits for its turn to lead; empty where it never will."""
        return ("hot" if self.stands_by else "cold") if self.leads else ""


class Node:
    """``run()`` it beside everything else; ``resign()`` when the server is about to end."""

    def __init__(
        self,
        store: Backplane,
        hub: SharedHub,
        options: NodeOptions,
        *,
        venues: Sequence[Venue],
        open_markets: OpenMarkets,
        encode: Callable[[Envelope], bytes],
        read: Callable[[bytes], Event],
        subscribers: Callable[[], int],
    ) -> None:
        self.store = store
        self.options = options
        self.mirror = Mirror(hub, read)
        self._hub = hub
        self._open_markets = open_markets
        self._encode = encode
        self._teller = WantedTeller(store, options.name, hub.interest, venues)
        self._subscribers = subscribers
        self._leader: Leader | None = None
        self._answers: dict[str, Callable[[bytes], bytes | None]] = {}
        self._inquiries, self._to_answer = trio.open_memory_channel[Inquiry](INQUIRIES)
        self.mirror.inquired = self._note_inquiry
        self.mirror.term_began = self._on_term
        self._standby: Standby | None = None
        self._resigned = trio.Event()
        self._caught_up = trio.Event()
        self._why_silent = "nothing was read of the backplane yet"
        self._holds_back = ""  # why this process does not lead though nobody does
        self._rows: dict[str, NodeRow] = {}
        self._seen: dict[str, float] = {}  # when each node was there, also where the store has forgotten it since
        self._said = trio.Event()  # what this node said of itself is of before the newest term
        self._was_cut = False  # the store may be another one than it was when it was read last
        self.terms = 0  # how often it began to lead

    @property
    def nodes(self) -> Sequence[NodeRow]:
        """Every node that said something of itself lately."""
        return tuple(self._rows.values())

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that is connected to the exchange."""
        return self._leader is not None

    @property
    def is_prepared(self) -> bool:
        """Whether this process stands by, and could lead without asking for what it missed."""
        standby = self._standby
        waits = not self.is_leader and not self._resigned.is_set()
        return waits and standby is not None and standby.is_prepared

    @property
    def unwritten_bytes(self) -> int:
        """How much waits for the store, where this process leads."""
        return 0 if self._leader is None else self._leader.writer.unwritten_bytes

    @property
    def reason(self) -> str:
        """Why no leader is heard, if none is."""
        return self._holds_back or self._why_silent

    def why_not_ready(self) -> str | None:
        """Why no balancer should send readers here; ``None`` if there is no reason."""
        if not self.options.serves:
            return "this process only feeds the others (role = feed)"
        if self.mirror.is_fresh(FRESH_S):
            return None
        if not self.mirror.is_complete:
            return f"backplane: {self.reason}"
        return f"backplane: nothing was heard for {trio.current_time() - self.mirror.heard_at:.0f} s: {self.reason}"

    async def run(self) -> None:
        """Take part until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, name="backplane reader")
            nursery.start_soon(self._watch, name="backplane watch")
            nursery.start_soon(self._announce, name="backplane nodes")
            nursery.start_soon(self._teller.run, name="backplane wants")
            nursery.start_soon(self._answer, name="backplane answers")
            if self.options.leads:
                nursery.start_soon(self._campaign, name="backplane election")

    def answer(self, topic: str, answer: Callable[[bytes], bytes | None]) -> None:
        """Answer what any process asks about a topic; ``None`` where it is for another one to answer."""
        self._answers[topic] = answer

    def _note_inquiry(self, inquiry: Inquiry) -> None:
        with suppress(trio.WouldBlock):  # who asks gives up, and asks again
            self._inquiries.send_nowait(inquiry)

    async def _answer(self) -> None:
        async for inquiry in self._to_answer:
            answer = self._answers.get(inquiry.topic)
            if answer is not None and (value := answer(inquiry.body)) is not None:
                with suppress(BackplaneError):
                    await self.store.answer(inquiry.question, value)

    def resign(self) -> None:
        """Lead no more: the server is about to end."""
        self._resigned.set()
        if self._leader is not None:
            self._leader.resign()

    async def retire(self) -> None:
        """Lead no more, and wait until the lease is let go: at most a second."""
        self.resign()
        if (leader := self._leader) is not None:
            with trio.move_on_after(RETIRE_S):
                await leader.released.wait()

    async def leave(self) -> None:
        """Tell the others that this node is gone; they would notice."""
        with trio.move_on_after(0.5):
            try:
                await self._teller.leave()
                await self.store.drop(NODES, self.options.name)
            except BackplaneError:
                return

    async def passed(self, place: StreamPosition | None, stream: Stream | None) -> bool:
        """Wait until nothing that a reader at a place has received is still to come here; ``False`` if it takes long.

        A reader may come from a process that was some milliseconds ahead. A place that nothing here tells of is one of
        another life, once all is read that the log has. Before the name of this life was read, no place can be judged,
        and none can be given: so it is waited for by readers without a place (``None``), too.
        """
        if place is not None and self._is_whole() and self._hub.has_passed(stream, place):
            return True
        with trio.move_on_after(BARRIER_S):
            while not self._is_whole():
                await self.mirror.moved.park()
            if place is None:
                return True
            try:
                newest = await self.store.newest()
            except BackplaneError:
                return False
            if newest is not None:
                await self.mirror.reached(newest)
            while self._is_ahead(place, stream) or not self._is_whole():
                await self.mirror.moved.park()
            return True
        # It may be lost with everybody who knew it: then nobody knows better than this process what to go on with.
        return place is not None and stream is None and self._is_whole() and self._hub.is_untold(place.offset)

    def _is_whole(self) -> bool:
        """Whether the name of the log's life is known, and it is not in the middle of being written again."""
        return self.mirror.has_life and not self.mirror.is_log_unfinished

    def _is_ahead(self, place: StreamPosition, stream: Stream | None) -> bool:
        """Whether a place is one of this life, and beyond what was read here."""
        epoch = self._hub.epoch if stream is None else self._hub.open_streams.adopted(stream)
        return epoch == place.epoch and not self._hub.has_passed(stream, place)

    async def _read(self) -> None:
        wait_s, longest_s = READ_AGAIN_S
        while True:
            if self._leader is not None:
                await self._leader.interrupted()
            try:
                entries = await self.store.read(self.mirror.cursor, most=READ_MOST, wait_s=READ_S)
            except BackplaneError as error:
                if wait_s >= longest_s:
                    log.warning("the backplane cannot be read", extra={"reason": str(error)})
                self._why_silent = AWAY
                self._was_cut = True
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
                continue
            wait_s = READ_AGAIN_S[0]
            self._why_silent = "no process leads" if self.mirror.is_leaderless else "the leader says nothing"
            size = 0
            for entry in entries:
                self.mirror.take(entry)
                self._was_cut &= not entry.id.sequence  # its writer has found the log as it left it
                size += len(entry.header) + len(entry.data)
                if size >= TOGETHER_BYTES or entry is entries[-1]:
                    self._hub.flush()
                    await trio.lowlevel.checkpoint()
                    size = 0
            if len(entries) < READ_MOST:
                self._caught_up.set()
            if not entries and trio.current_time() - self.mirror.heard_at > AWAY_S:
                await self._look_back()

    async def _look_back(self) -> None:
        """Nothing comes: of two stores, whose ways had parted, this process may have read the one that is gone."""
        with suppress(BackplaneError):
            newest, cursor = await self.store.newest(), self.mirror.cursor
            if newest is not None and cursor is not None and newest < cursor:
                self.mirror.go_back(newest)

    async def _watch(self) -> None:
        """Tell readers when nothing is heard."""
        while True:
            await trio.sleep(LOOK_S)
            if trio.current_time() - self.mirror.heard_at > AWAY_S:
                self.mirror.go_away(self.reason)
            else:
                self.mirror.come_back()

    async def _announce(self) -> None:
        while True:
            said = self._said = trio.Event()
            row = NodeRow(
                self.options.shown,
                self.options.role,
                self.options.version,
                READABLE,
                self.is_leader,
                self._subscribers(),
                str(self.mirror.cursor or ""),
                round(max(0.0, trio.current_time() - self.mirror.heard_at), 3),
                self.mirror.knows_more,
                self.options.standby,
                self.is_prepared,
                self.mirror.is_complete,
                str(self.mirror.newest or ""),
            )
            try:
                await self.store.keep(NODES, self.options.name, write_node(row), NODE_S)
                await self._look_around()
            except BackplaneError as error:
                log.debug("nodes are not known", extra={"reason": str(error)})
            with trio.move_on_after(ANNOUNCED_S):
                await said.wait()

    def _on_term(self) -> None:
        """Somebody is to lead: say at once what is wanted here, and how far this process has read."""
        self._teller.tell_again()
        self._said.set()

    async def _look_around(self) -> None:
        kept = sorted((await self.store.kept(NODES)).items())
        self._rows = {name: row for name, value in kept if (row := read_node(value)) is not None}
        now = trio.current_time()
        self._seen = {name: at for name, at in self._seen.items() if now < at + SEEN_S} | dict.fromkeys(self._rows, now)

    async def _campaign(self) -> None:
        """Lead whenever nobody does."""
        await self._caught_up.wait()
        founded_at = trio.current_time() + FOUNDING_S
        while not self._resigned.is_set():
            async with self._standing_by() as self._standby:
                await trio.sleep_until(founded_at)
                if (acquired := await self._acquire(founded_at + INCOMPLETE_S)) is not None:
                    await self._lead(acquired, self._standby)

    def _standing_by(self) -> AbstractAsyncContextManager[Standby | None]:
        return open_standby(self._open_markets, self.mirror) if self.options.stands_by else nullcontext()

    async def _acquire(self, complete_by: float) -> Acquired | None:
        """Wait for the lease; ``None`` where this node is not to lead any more."""
        left: list[Acquired] = []
        while not self._resigned.is_set():
            if trio.current_time() < complete_by and self._others_know_more():
                await trio.sleep(LOOK_S)
                continue
            if (older := next((row for row in self.nodes if VERSION not in row.readable), None)) is not None:
                self._holds_back = f"{older.name} (komas {older.version}) could not read what this process writes"
                await trio.sleep(ANNOUNCED_S)
                continue
            self._holds_back = ""
            await self._let_prepared_go_first()
            try:
                got = await self.store.acquire(self.options.name, self.options.lease_s, seen=self.mirror.cursor)
            except BackplaneError:
                self._why_silent = AWAY
                await trio.sleep(AGAIN_S)
                continue
            cursor = self.mirror.cursor
            if left and cursor is not None and cursor.term > left[-1].term and cursor.sequence:
                left.clear()  # somebody led since
            if isinstance(got, Held):
                await self._wait(got.left_s)
            elif len(left) < YIELDS and await self._should_yield(got):
                left.append(got)
                await self._yield_to_others(got)
            else:
                return got
        return None

    async def _should_yield(self, got: Acquired) -> bool:
        """Whether another node has read entries that this one has not, and the log has lost: it writes them again.

        Each node says how far it has read as soon as it reads of the term. Where the log has lost something, or may
        have, nobody leads before all have done so, or could have.
        """
        may_have_lost = self._was_cut
        sure_at = trio.current_time() + SURE_S
        with trio.move_on_at(sure_at):
            await self.mirror.reached(EntryId(got.term, 0))
        own = self.mirror.newest or EntryId(0, 0)
        while True:
            with suppress(BackplaneError):
                await self._look_around()
            others = {name: self._rows.get(name) for name in self._seen if name != self.options.name}
            if any(row is not None and row.has_read_more(own) for row in others.values()):
                return True
            have_said = all(row is not None and row.has_heard(got.term) for row in others.values())
            if have_said or not (may_have_lost or self.mirror.knows_more) or trio.current_time() >= sure_at:
                return False
            await trio.sleep(ASK_AGAIN_S)
            with suppress(BackplaneError):
                await self.store.renew(self.options.name, got.term, self.options.lease_s)

    async def _yield_to_others(self, got: Acquired) -> None:
        log.info("leaves the lease to a node that has read more", extra={"term": got.term})
        with suppress(BackplaneError):
            await self.store.release(self.options.name, got.term)
        await trio.sleep(ANNOUNCED_S)

    async def _let_prepared_go_first(self) -> None:
        """Who is connected already has all that came since the leader was heard."""
        others = (row for row in self.nodes if row.name != self.options.shown)
        if any(row.is_prepared for row in others) and not self.is_prepared:
            await trio.sleep(PREPARED_FIRST_S)

    def _others_know_more(self) -> bool:
        """Whether others should lead: an empty log may be one that forgot everything, which they still know."""
        if self.mirror.cursor is not None:
            return not self.mirror.is_complete
        return any(row.cursor for row in self.nodes)

    async def _wait(self, left_s: float) -> None:
        """Wait for the end of somebody's lease, or until it is let go; who knows more may be left it in silence."""
        left_s = min(left_s, LOOK_S) if self.mirror.knows_more else left_s
        with trio.move_on_after(left_s + random.uniform(0, JITTER)):  # noqa: S311 - spreads load, guards nothing
            while not self.mirror.is_leaderless:
                await self.mirror.moved.park()
            await trio.sleep(random.uniform(0, JITTER))  # noqa: S311

    async def _lead(self, acquired: Acquired, standby: Standby | None) -> None:
        options = LeaderOptions(
            node=self.options.name,
            encode=self._encode,
            lease_s=self.options.lease_s,
            window_s=self.options.window_s,
        )
        leader = Leader(
            self.store,
            self._hub,
            self.mirror,
            self._open_markets,
            options,
            nodes=lambda: self._rows,
            prepared=standby,
        )
        self._leader = leader
        if self._resigned.is_set():
            leader.resign()
        self.terms += 1
        log.info("leads", extra={"term": acquired.term, "node": self.options.name})
        try:
            await leader.run(acquired)
        finally:
            self._leader = None
            leader.released.set()
        log.info("leads no more", extra={"node": self.options.name})
