"""Which stream goes over which connection.

A shard is one connection's worth of streams. A stream keeps its shard, because a move costs messages and a gap to
fill; new ones go to the first shard with room. So the moves are as few as possible: one for each stream added or
removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Generic

import trio

from komas.model.streams import Stream
from komas.venues.core.connection import C
from komas.venues.core.link import Link


class Shard(Generic[C]):
    """Streams that share connections, and the links that hold them: one, or two of the same."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.streams: dict[str, Stream] = {}  # by name
        self.links: list[Link[C]] = []
        self.scope = trio.CancelScope()

    @property
    def is_up(self) -> bool:
        """Whether one of its links has a connection."""
        return any(link.connections for link in self.links)

    def assigned(self) -> Mapping[str, Stream]:
        """The streams that each of its connections is to hold now, by name."""
        return self.streams

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

    def place(
        self, wanted: Iterable[Stream], unwanted: Iterable[Stream] = (), *, keeps_idle: bool = False
    ) -> list[Shard[C]]:
        """Give each wanted stream a place, where it has none, and take it from the others; returns the new shards.

        A shard without any is closed; with ``keeps_idle`` one stays although no stream is wanted.
        """
        for stream in unwanted:
            if (shard := self.by_stream.pop(stream, None)) is not None:
                del shard.streams[stream.name]
        new: list[Shard[C]] = []
        room = self._room(new)
        for stream in wanted:
            if stream not in self.by_stream:
                shard = self.by_stream[stream] = next(room)
                shard.streams[stream.name] = stream
        if not self._shards and keeps_idle:
            new.append(self._add(0))
        for shard in self:
            if not shard.streams and (len(self._shards) > 1 or not keeps_idle):
                del self._shards[shard.number]
                shard.scope.cancel("its streams are not wanted any more")
        return new

    def _room(self, new: list[Shard[C]]) -> Iterator[Shard[C]]:
        """A shard for each stream that asks, the lowest with room; numbers that are free make new ones."""
        for number in sorted(self._shards):
            while len(self._shards[number].streams) < self._most:
                yield self._shards[number]
        for number in count():
            if number not in self._shards:
                shard = self._add(number)
                new.append(shard)
                while len(shard.streams) < self._most:
                    yield shard

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

    def _add(self, number: int) -> Shard[C]:
        shard = self._shards[number] = Shard(number)
        return shard
