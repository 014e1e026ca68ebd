"""Which stream goes over which connection.

A shard is one connection's worth of streams. A stream keeps its shard, because a move costs messages and a gap to
fill; new ones go to the first shard with room. So the moves are as few as possible: one for each stream added or
removed, and one for each that no longer fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Generic, TypeVar

import msgspec
import trio

from komas.model.streams import Stream
from komas.venues.core.connection import C
from komas.venues.core.link import Link

T = TypeVar("T")


class Move(msgspec.Struct, Generic[T], frozen=True):
    """One stream from a shard to another; ``None`` is outside: a stream that comes, or goes."""

    stream: T
    source: int | None
    target: int | None


def plan(wanted: Sequence[T], shards: Mapping[int, Collection[T]], most: int) -> list[Move[T]]:
    """The moves after which exactly the wanted streams have a place, at most ``most`` of them in each shard.

    ``shards`` is where they are now; a target that is not in it is a new shard. ``most`` is at least 1.
    """
    goal = dict.fromkeys(wanted)
    moves: list[Move[T]] = []
    placed: dict[T, int] = {}
    fill: dict[int, int] = {}
    homeless: dict[T, int | None] = {}
    for shard, streams in shards.items():
        fill[shard] = 0
        for stream in streams:
            if stream not in goal:
                moves.append(Move(stream, shard, None))
            elif fill[shard] == most:
                homeless[stream] = shard
            else:
                placed[stream] = shard
                fill[shard] += 1
    homeless = {stream: homeless.get(stream) for stream in goal if stream not in placed}
    room = _room(fill, most)
    moves += [Move(stream, source, next(room)) for stream, source in homeless.items()]
    return moves


def _room(fill: dict[int, int], most: int) -> Iterator[int]:
    """A shard for each stream that asks, the lowest with room; numbers that are free make new ones."""
    for shard in sorted(fill):
        for _ in range(most - fill[shard]):
            yield shard
    for shard in count():
        if shard not in fill:
            for _ in range(most):
                yield shard


class Shard(Generic[C]):
    """Streams that share connections, and the links that hold them: one, or two of the same."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.streams: dict[Stream, None] = {}
        self.links: list[Link[C]] = []
        self.scope = trio.CancelScope()

    @property
    def is_up(self) -> bool:
        """Whether one of its links has a connection."""
        return any(link.connections for link in self.links)

    def assigned(self) -> tuple[Stream, ...]:
        """The streams that each of its connections is to hold."""
        return tuple(self.streams)

    def connections(self) -> Iterator[C]:
        """Its connections that are up."""
        for link in self.links:
            yield from link.connections


class Shards(Generic[C]):
    """The shards, and ``by_stream`` the one that each placed stream is on; ``most`` streams go on one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shards: dict[int, Shard[C]] = {}
        self.by_stream: dict[Stream, Shard[C]] = {}

    def __iter__(self) -> Iterator[Shard[C]]:
        return iter(tuple(self._shards.values()))

    def place(self, wanted: Sequence[Stream], *, keeps_idle: bool) -> list[Shard[C]]:
        """Give every wanted stream its place, and close shards without any; returns the shards that are new.

        With ``keeps_idle`` one shard stays although no stream is wanted.
        """
        new: list[Shard[C]] = []
        present = {number: shard.streams for number, shard in self._shards.items()}
        for move in plan(wanted, present, self._most):
            if move.source is not None:
                self._shards[move.source].streams.pop(move.stream)
                self.by_stream.pop(move.stream, None)
            if move.target is not None:
                shard = self._shards.get(move.target) or self._add(move.target, new)
                shard.streams[move.stream] = None
                self.by_stream[move.stream] = shard
        if not self._shards and keeps_idle:
            self._add(0, new)
        for number in [number for number, shard in self._shards.items() if not shard.streams]:
            if len(self._shards) > 1 or not keeps_idle:
                self._shards.pop(number).scope.cancel("its streams are not wanted any more")
        return new

    def clear(self) -> None:
        """Forget every shard; its connections are the caller's to end."""
        self._shards.clear()
        self.by_stream.clear()

    def is_known(self, shard: Shard[C]) -> bool:
        """Whether a shard has not been closed."""
        return self._shards.get(shard.number) is shard

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be connected for."""
        return not self._shards

    @property
    def is_up(self) -> bool:
        """Whether every shard has a connection, and there is one."""
        return bool(self._shards) and all(shard.is_up for shard in self._shards.values())

    def streams(self) -> tuple[Stream, ...]:
        """Every stream that has a place."""
        return tuple(self.by_stream)

    def holders(self, stream: Stream) -> list[C]:
        """The connections that are up and on which the exchange has acknowledged a stream."""
        shard = self.by_stream.get(stream)
        return [] if shard is None else [each for each in shard.connections() if each.tracker(stream) is not None]

    def _add(self, number: int, new: list[Shard[C]]) -> Shard[C]:
        shard = self._shards[number] = Shard(number)
        new.append(shard)
        return shard
