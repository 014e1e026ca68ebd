"""What is asked of Redis or Valkey, 6.2 or newer, and what its answers mean; over connections that know how to ask."""

from __future__ import annotations

import math
from typing import Final, Protocol, cast

import trio

from komas.backplane import redis_scripts as scripts
from komas.backplane.ports import READABLE, Acquired, Entry, EntryId, Fenced, Held
from komas.backplane.redis_scripts import Script
from komas.backplane.retention import Retention

WISHES_S: Final = 300.0
ANSWER_S: Final = 60.0
SHORT_CALLS: Final = 16  # at a time, of facts and wishes: requests of clients can cause any number
WAITS: Final = 64  # for answers, at a time: each has a connection

_OLDEST: Final = b"0-0"


class Connections(Protocol):
    """How Redis is asked. Both raise ``BackplaneError`` where it does not answer within bounds, or refuses."""

    async def call(self, *command: bytes, wait_s: float = 0.0) -> object:
        """What it answers to a command; ``wait_s`` is what it may wait by itself."""

    async def run(self, script: Script, keys: list[bytes], *arguments: bytes) -> object:
        """What a script returns."""


class RedisBackplane:
    """``Backplane``, in Redis. ``open_redis()`` makes it; ``prefix`` begins the name of every key."""

    def __init__(self, connections: Connections, prefix: str, retention: Retention, version: int) -> None:
        self._connections = connections
        self._prefix = prefix.encode()
        self._bus, self._last = self._key("bus"), self._key("last")
        self._lease, self._marks, self._wishes = self._key("lease"), self._key("marks"), self._key("wishes")
        self._retention = retention
        self._version = b"%d" % version
        self._unmarked = 0
        self._marked_at = -math.inf
        self._short_calls = trio.Semaphore(SHORT_CALLS)
        self._waits = trio.Semaphore(WAITS)

    async def acquire(self, node: str, lease_s: float, *, seen: EntryId | None = None) -> Acquired | Held:
        """As ``Log``."""
        keys = [self._bus, self._last, self._lease, self._marks]
        reply = await self._run(
            scripts.ACQUIRE, keys, node.encode(), _ms(lease_s), self._version, b"%d" % (seen.term if seen else 0)
        )
        is_acquired, words, rest = cast("tuple[int, bytes, bytes | int]", reply)
        if not is_acquired:
            return Held(words.decode(), max(0, cast("int", rest)) / 1000)
        self._unmarked, self._marked_at = 0, trio.current_time()
        return Acquired(int(words), _place(cast("bytes", rest)))

    async def renew(self, node: str, term: int, lease_s: float) -> bool:
        """As ``Log``."""
        return bool(await self._run(scripts.RENEW, [self._lease], _holder(node, term), _ms(lease_s)))

    async def release(self, node: str, term: int) -> None:
        """As ``Log``."""
        await self._run(scripts.RELEASE, [self._lease], _holder(node, term))

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
        self._unmarked += len(header) + len(data)
        flags = b"%d" % is_whole, b"%d" % starts_anew
        mark = self._mark()
        last = await self._run(
            scripts.APPEND,
            [self._bus, self._last, self._marks],
            *(b"%d-%d" % previous, b"%d-%d" % entry, self._version, header, data, *flags, *mark),
        )
        if last is not None:
            newest = _place(cast("bytes", last))
            raise Fenced(f"the log is at {newest}, not at {previous}", newest=newest)
        if mark:
            self._unmarked, self._marked_at = 0, trio.current_time()

    def _mark(self) -> tuple[bytes, ...]:
        """What the store is told to mark, where that is due."""
        kept = self._retention
        if self._unmarked < kept.step_size and trio.current_time() - self._marked_at < kept.step_s:
            return ()
        return b"%d" % self._unmarked, _ms(kept.age_s), b"%d" % kept.size

    async def newest(self) -> EntryId | None:
        """As ``Log``."""
        return _place(cast("bytes | None", await self._connections.call(b"GET", self._last)) or b"")

    async def read(self, after: EntryId | None, *, most: int, wait_s: float) -> list[Entry]:
        """As ``Log``."""
        place = _OLDEST if after is None else b"%d-%d" % after
        return [_entry(place, fields) for place, fields in await self._read(self._bus, place, most, wait_s)]

    async def _read(self, key: bytes, after: bytes, most: int, wait_s: float) -> list[tuple[bytes, list[bytes]]]:
        block = (b"BLOCK", _ms(wait_s)) if wait_s > 0 else ()  # BLOCK 0 waits for ever
        reply = await self._connections.call(
            *(b"XREAD", b"COUNT", b"%d" % most, *block, b"STREAMS", key, after), wait_s=wait_s
        )
        return cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", reply)[0][1] if reply else []

    async def keep(self, name: str, node: str, value: bytes, ttl_s: float) -> None:
        """As ``Facts``."""
        async with self._short_calls:
            await self._run(scripts.KEEP, [self._facts(name)], node.encode(), value, _ms(ttl_s))

    async def drop(self, name: str, node: str) -> None:
        """As ``Facts``."""
        async with self._short_calls:
            await self._connections.call(b"HDEL", self._facts(name), node.encode())

    async def kept(self, name: str) -> dict[str, bytes]:
        """As ``Facts``."""
        async with self._short_calls:
            facts = cast("list[bytes]", await self._run(scripts.KEPT, [self._facts(name)]))
        return {node.decode(): value for node, value in zip(facts[::2], facts[1::2], strict=True)}

    async def wish(self, value: bytes) -> None:
        """As ``Wishes``."""
        async with self._short_calls:
            await self._run(scripts.WISH, [self._wishes], value, _ms(WISHES_S))

    async def wishes(self, after: str, *, most: int, wait_s: float) -> list[tuple[str, bytes]]:
        """As ``Wishes``."""
        place = _place(after.encode())
        if place is not None:
            newest = _place(cast("bytes", await self._run(scripts.NEWEST_WISH, [self._wishes])))
            place = None if newest is None or place > newest else place
        begin = _OLDEST if place is None else b"%d-%d" % place
        return [(at.decode(), fields[1]) for at, fields in await self._read(self._wishes, begin, most, wait_s)]

    async def answer(self, question: str, value: bytes) -> None:
        """As ``Wishes``."""
        async with self._short_calls:
            await self._run(scripts.ANSWER, [self._key(f"answer:{question}")], value, _ms(ANSWER_S))

    async def answer_to(self, question: str, wait_s: float) -> bytes | None:
        """As ``Wishes``."""
        key = self._key(f"answer:{question}")
        if wait_s <= 0:
            return cast("bytes | None", await self._connections.call(b"LPOP", key))
        async with self._waits:
            reply = await self._connections.call(b"BLPOP", key, b"%.3f" % max(wait_s, 0.001), wait_s=wait_s)
        return cast("list[bytes]", reply)[1] if reply else None

    async def _run(self, script: Script, keys: list[bytes], *arguments: bytes) -> object:
        return await self._connections.run(script, keys, *arguments)

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode()

    def _facts(self, name: str) -> bytes:
        return self._key(f"facts:{name}")


def _ms(seconds: float) -> bytes:
    return b"%d" % max(1, math.ceil(seconds * 1000))


def _holder(node: str, term: int) -> bytes:
    return f"{term}:{node}".encode()


def _place(text: bytes) -> EntryId | None:
    if not text:
        return None
    term, _, sequence = text.partition(b"-")
    return EntryId(int(term), int(sequence))


def _entry(place: bytes, fields: list[bytes]) -> Entry:
    term, _, sequence = place.partition(b"-")
    at, named = EntryId(int(term), int(sequence)), dict(zip(fields[::2], fields[1::2], strict=True))
    version = int(named[b"v"])
    if version not in READABLE:
        return Entry(at, version)
    if b"n" in named:
        return Entry(at, version, node=named[b"n"].decode(), previous=_place(named[b"p"]))
    return Entry(at, version, named[b"h"], named[b"d"], named[b"s"] == b"1")
