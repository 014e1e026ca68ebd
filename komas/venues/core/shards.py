"""Which stream goes over which connection (sans-I/O).

A shard is one connection's worth of streams. A stream keeps its shard, because a move costs messages and a gap to
fill; new ones go to the first shard with room. So the moves are as few as possible: one for each stream added or
removed, and one for each that no longer fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Generic, TypeVar

import msgspec

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
