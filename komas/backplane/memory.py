"""The store in memory, for several nodes of one process: tests on any clock, without sockets.

It keeps what the store in Redis keeps, by the same rules, and fails on demand: connections are cut, the store freezes,
forgets everything, or is replaced by a replica that has not seen the newest entries.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import trio

from komas.backplane.ports import (
    READABLE,
    VERSION,
    Acquired,
    BackplaneError,
    Entry,
    EntryId,
    Fenced,
    Held,
)
from komas.backplane.retention import Retention

EPOCH_MS: Final = 1_700_000_000_000  # the store's clock when trio's is at 0: a test's clock starts there
CALL_S: Final = 2.0  # a call that is not answered for so long beyond its own waiting has failed
WISHES_S: Final = 300.0
ANSWER_S: Final = 60.0
LOSABLE: Final = 10_000  # entries that a replica can lack

_T = TypeVar("_T")


class _Lease(NamedTuple):
    node: str
    term: int
    until_ms: float


class _Stored(NamedTuple):
    entry: Entry
    at_ms: int


class _Before(NamedTuple):
    """What the log was before an entry, for a replica that has not seen it."""

    last: EntryId | None
    lease: _Lease | None
    deleted: list[_Stored]


class _Expiring(NamedTuple):
    value: bytes
    until_ms: float


class MemoryStore:
    """The store: what it holds, and the switches of a test. Times are those of ``trio.current_time()``."""

    def __init__(self, retention: Retention | None = None) -> None:
        self._retention = retention or Retention()
        self._connections: list[MemoryBackplane] = []
        self._log: list[_Stored] = []
        self._last: EntryId | None = None
        self._lease: _Lease | None = None
        self._befores: deque[_Before] = deque(maxlen=LOSABLE)
        self._facts: dict[str, dict[str, _Expiring]] = {}
        self._wishes: list[tuple[EntryId, bytes]] = []
        self._answers: dict[str, list[_Expiring]] = {}
        self._changed = trio.Event()
        self._thawed = trio.Event()
        self._thawed.set()
        self._late: list[_FrozenCall[Any]] = []

    def connect(self, *, delay_s: float = 0.0, version: int = VERSION) -> MemoryBackplane:
        """A node's connection; each of its calls takes ``delay_s``, and it writes entries of ``version``."""
        connection = MemoryBackplane(self, delay_s=delay_s, version=version)
        self._connections.append(connection)
        return connection

    def cut(self) -> None:
        """Cut every connection: what is in flight fails, done or not, and so does what follows until ``mend()``."""
        for connection in self._connections:
            connection.cut()

    def mend(self) -> None:
        """Every connection works again."""
        for connection in self._connections:
            connection.mend()

    def freeze(self) -> None:
        """Answer nothing until ``thaw()``, which does what was asked meanwhile, also where nobody waits any more."""
        self._thawed = trio.Event()

    def thaw(self) -> None:
        """Go on."""
        late, self._late = self._late, []
        for call in late:
            call.do()
        self._thawed.set()

    def wipe(self) -> None:
        """Forget everything."""
        self._log.clear()
        self._befores.clear()
        self._last = self._lease = None
        self._facts.clear()
        self._wishes.clear()
        self._answers.clear()

    def lose_tail(self, entries: int) -> None:
        """A replica takes over that has not seen the newest entries: log, ``newest`` and lease are what it knows."""
        for _ in range(entries):
            before = self._befores.pop()
            self._log.pop()
            self._log[:0] = before.deleted
            self._last, self._lease = before.last, before.lease

    @property
    def entries(self) -> int:
        """How many entries the log holds."""
        return len(self._log)

    @property
    def now_ms(self) -> int:
        """The store's clock."""
        return EPOCH_MS + math.floor(trio.current_time() * 1000)

    def _add(self, entry: Entry, *, starts_anew: bool = False) -> None:
        before = _Before(self._last, self._live_lease(), self._delete(len(self._log) if starts_anew else self._old()))
        self._befores.append(before)
        self._log.append(_Stored(entry, self.now_ms))
        self._last = entry.id
        self._wake()

    def _delete(self, entries: int) -> list[_Stored]:
        deleted = self._log[:entries]
        del self._log[:entries]
        return deleted

    def _old(self) -> int:
        """How many entries are beyond what is kept."""
        oldest_ms = self.now_ms - self._retention.age_s * 1000
        old = bisect_left(self._log, oldest_ms, key=lambda stored: stored.at_ms)
        size = 0
        for place in range(len(self._log) - 1, old - 1, -1):
            entry = self._log[place].entry
            size += len(entry.header) + len(entry.data)
            if size > self._retention.size:
                return place + 1
        return old

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _live_lease(self) -> _Lease | None:
        if self._lease is not None and self._lease.until_ms <= self.now_ms:
            self._lease = None
        return self._lease

    def acquire(self, node: str, lease_s: float, version: int, seen: EntryId | None) -> Acquired | Held:
        """As the connection's."""
        lease, now = self._live_lease(), self.now_ms
        if lease is not None and lease.node != node:
            return Held(lease.node, (lease.until_ms - now) / 1000)
        previous = self._last
        term = max([now, *(place.term + 1 for place in (previous, seen) if place is not None)])
        self._add(Entry(EntryId(term, 0), version, node=node, previous=previous))
        self._lease = _Lease(node, term, now + lease_s * 1000)
        return Acquired(term, previous)

    def renew(self, node: str, term: int, lease_s: float) -> bool:
        """As the connection's."""
        if not self._is_held(node, term):
            return False
        self._lease = _Lease(node, term, self.now_ms + lease_s * 1000)
        return True

    def release(self, node: str, term: int) -> None:
        """As the connection's."""
        if self._is_held(node, term):
            self._lease = None

    def _is_held(self, node: str, term: int) -> bool:
        lease = self._live_lease()
        return lease is not None and (lease.node, lease.term) == (node, term)

    def append(self, previous: EntryId, entry: Entry, *, starts_anew: bool) -> None:
        """As the connection's."""
        if previous != self._last:
            raise Fenced(f"the log is at {self._last}, not at {previous}", newest=self._last)
        self._add(entry, starts_anew=starts_anew)

    def newest(self) -> EntryId | None:
        """As the connection's."""
        return self._last

    def after(self, place: EntryId | None, most: int) -> list[Entry]:
        """Up to so many entries after one."""
        start = 0 if place is None else bisect_right(self._log, place, key=lambda stored: stored.entry.id)
        return [_readable(stored.entry) for stored in self._log[start : start + most]]

    def keep(self, name: str, node: str, value: bytes, ttl_s: float) -> None:
        """As the connection's."""
        self._facts.setdefault(name, {})[node] = _Expiring(value, self.now_ms + ttl_s * 1000)

    def drop(self, name: str, node: str) -> None:
        """As the connection's."""
        self._facts.get(name, {}).pop(node, None)

    def kept(self, name: str) -> dict[str, bytes]:
        """As the connection's."""
        facts = {node: fact for node, fact in self._facts.get(name, {}).items() if fact.until_ms > self.now_ms}
        self._facts[name] = facts
        return {node: fact.value for node, fact in facts.items()}

    def wish(self, value: bytes) -> None:
        """As the connection's."""
        now = self.now_ms
        newest = self._wishes[-1][0] if self._wishes else EntryId(0, 0)
        place = EntryId(now, 0) if now > newest.term else EntryId(newest.term, newest.sequence + 1)
        del self._wishes[: bisect_left(self._wishes, now - WISHES_S * 1000, key=lambda wish: wish[0].term)]
        self._wishes.append((place, value))
        self._wake()

    def wishes_after(self, place: str, most: int) -> list[tuple[str, bytes]]:
        """Up to so many wishes after a place; after one that is not known, from the oldest on."""
        after = parse_place(place)
        if not self._wishes or after > self._wishes[-1][0]:
            after = EntryId(0, 0)
        start = bisect_right(self._wishes, after, key=lambda wish: wish[0])
        return [(str(each), value) for each, value in self._wishes[start : start + most]]

    def answer(self, question: str, value: bytes) -> None:
        """As the connection's."""
        self._answers = {key: left for key, values in self._answers.items() if (left := self._live(values))}
        self._answers.setdefault(question, []).append(_Expiring(value, self.now_ms + ANSWER_S * 1000))
        self._wake()

    def take_answer(self, question: str) -> bytes | None:
        """The oldest answer to a question; nobody else gets it."""
        values = self._live(self._answers.pop(question, []))
        if not values:
            return None
        if values[1:]:
            self._answers[question] = values[1:]
        return values[0].value

    def _live(self, values: list[_Expiring]) -> list[_Expiring]:
        return [each for each in values if each.until_ms > self.now_ms]

    @property
    def changed(self) -> trio.Event:
        """Set as soon as something is added from now on."""
        return self._changed

    async def do(self, action: Callable[[], _T]) -> _T:
        """Do it; while the store is frozen, when it thaws: also where nobody waits for that any more."""
        if self._thawed.is_set():
            return action()
        call = _FrozenCall(action)
        self._late.append(call)
        await self._thawed.wait()
        return call.result()


class _FrozenCall(Generic[_T]):
    """What was asked of a frozen store."""

    def __init__(self, action: Callable[[], _T]) -> None:
        self._action = action
        self._value: _T | None = None
        self._refusal: Fenced | None = None

    def do(self) -> None:
        try:
            self._value = self._action()
        except Fenced as refusal:
            self._refusal = refusal

    def result(self) -> _T:
        if self._refusal is not None:
            raise self._refusal
        return cast("_T", self._value)


class MemoryBackplane:
    """A node's connection to the store: ``Backplane``, in memory. ``MemoryStore.connect()`` makes it."""

    def __init__(self, store: MemoryStore, *, delay_s: float = 0.0, version: int = VERSION) -> None:
        self._store = store
        self._delay_s = delay_s
        self._version = version
        self._calls: set[trio.CancelScope] = set()
        self._is_cut = False

    def cut(self) -> None:
        """Cut it: a call that is in flight fails, and was done if half of its ``delay_s`` had passed."""
        self._is_cut = True
        for call in self._calls:
            call.cancel()

    def mend(self) -> None:
        """It works again."""
        self._is_cut = False

    async def acquire(self, node: str, lease_s: float, *, seen: EntryId | None = None) -> Acquired | Held:
        """As ``Log``."""
        return await self._call(lambda: self._store.acquire(node, lease_s, self._version, seen))

    async def renew(self, node: str, term: int, lease_s: float) -> bool:
        """As ``Log``."""
        return await self._call(lambda: self._store.renew(node, term, lease_s))

    async def release(self, node: str, term: int) -> None:
        """As ``Log``."""
        await self._call(lambda: self._store.release(node, term))

    async def append(
        self,
        previous: EntryId,
        entry: EntryId,
        header: bytes,
        data: bytes,
        *,
        is_whole: bool = False,
        starts_anew: bool = False,
    ) -> None:
        """As ``Log``."""
        if entry <= previous:
            raise ValueError(f"{entry} is not behind {previous}")
        added = Entry(entry, self._version, header, data, is_whole)
        await self._call(lambda: self._store.append(previous, added, starts_anew=starts_anew))

    async def newest(self) -> EntryId | None:
        """As ``Log``."""
        return await self._call(self._store.newest)

    async def read(self, after: EntryId | None, *, most: int, wait_s: float) -> list[Entry]:
        """As ``Log``."""
        return await self._wait(lambda: self._store.after(after, most), wait_s) or []

    async def keep(self, name: str, node: str, value: bytes, ttl_s: float) -> None:
        """As ``Facts``."""
        await self._call(lambda: self._store.keep(name, node, value, ttl_s))

    async def drop(self, name: str, node: str) -> None:
        """As ``Facts``."""
        await self._call(lambda: self._store.drop(name, node))

    async def kept(self, name: str) -> dict[str, bytes]:
        """As ``Facts``."""
        return await self._call(lambda: self._store.kept(name))

    async def wish(self, value: bytes) -> None:
        """As ``Wishes``."""
        await self._call(lambda: self._store.wish(value))

    async def wishes(self, after: str, *, most: int, wait_s: float) -> list[tuple[str, bytes]]:
        """As ``Wishes``."""
        return await self._wait(lambda: self._store.wishes_after(after, most), wait_s) or []

    async def answer(self, question: str, value: bytes) -> None:
        """As ``Wishes``."""
        await self._call(lambda: self._store.answer(question, value))

    async def answer_to(self, question: str, wait_s: float) -> bytes | None:
        """As ``Wishes``."""
        return await self._wait(lambda: self._store.take_answer(question), wait_s)

    async def _call(self, action: Callable[[], _T]) -> _T:
        with self._in_flight(CALL_S):
            await trio.sleep(self._delay_s / 2)
            result = await self._store.do(action)
            await trio.sleep(self._delay_s / 2)
            return result
        raise self._lost()

    async def _wait(self, action: Callable[[], _T], wait_s: float) -> _T:
        """Until it has a result that is not empty, or the time is over."""
        with self._in_flight(wait_s + CALL_S):
            await trio.sleep(self._delay_s)
            until = trio.current_time() + wait_s
            while True:
                changed = self._store.changed
                if (result := await self._store.do(action)) or trio.current_time() >= until:
                    return result
                with trio.move_on_at(until):
                    await changed.wait()
        raise self._lost()

    @contextmanager
    def _in_flight(self, bound_s: float) -> Iterator[None]:
        with trio.move_on_after(bound_s) as scope:
            if self._is_cut:
                scope.cancel()
            self._calls.add(scope)
            try:
                yield
            finally:
                self._calls.discard(scope)

    def _lost(self) -> BackplaneError:
        words = "its connection is cut" if self._is_cut else f"it did not answer within {CALL_S:g} s"
        return BackplaneError(f"the store in memory: {words}")


def parse_place(place: str) -> EntryId:
    """A wish's place, which ``str()`` of its id made; nothing stands for the beginning."""
    term, _, sequence = place.partition("-")
    return EntryId(int(term or 0), int(sequence or 0))


def _readable(entry: Entry) -> Entry:
    return entry if entry.version in READABLE else Entry(entry.id, entry.version)
