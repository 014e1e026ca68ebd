"""The streams that are wanted: who receives each one's events, and its history in this epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from komas.hub.history import History
from komas.hub.overflow import Batch, Item
from komas.hub.subscription import Target
from komas.model.streams import Stream

MarketTarget: TypeAlias = Target[Item, Batch]


class OpenStream:
    """One epoch of one stream: what receives its events, and its history."""

    __slots__ = ("epoch", "history", "targets")

    def __init__(self, stream: Stream, epoch: str, history_length: int, targets: dict[MarketTarget, None]) -> None:
        self.epoch = epoch
        self.targets = targets
        self.history = History(stream, epoch, history_length)


class OpenStreams:
    """``by_stream`` has them. Targets of streams that are not wanted any more stay, in case they are wanted again."""

    def __init__(self, history_length: int, new_epoch: Callable[[], str]) -> None:
        self._history_length = history_length
        self._new_epoch = new_epoch
        self.by_stream: dict[Stream, OpenStream] = {}
        self._detached: dict[Stream, dict[MarketTarget, None]] = {}  # targets of streams that are not wanted
        self._targets: dict[MarketTarget, None] = {}

    def __len__(self) -> int:
        return len(self.by_stream)

    def open(self, stream: Stream) -> None:
        """A stream is wanted."""
        targets = self._detached.pop(stream, {})
        self.by_stream[stream] = OpenStream(stream, self._new_epoch(), self._history_length, targets)

    def close(self, stream: Stream) -> None:
        """A stream is not wanted any more."""
        closed = self.by_stream.pop(stream)
        if closed.targets:
            self._detached[stream] = closed.targets

    def renew(self, stream: Stream) -> None:
        """Begin a new epoch of a stream: positions of the old one are void."""
        targets = self.by_stream[stream].targets
        self.by_stream[stream] = OpenStream(stream, self._new_epoch(), self._history_length, targets)

    def put(self, stream: Stream, item: Item) -> None:
        """Give an item to the targets of a stream."""
        open_stream = self.by_stream.get(stream)
        if open_stream is not None:
            for target in open_stream.targets:
                target.put(item)

    def put_to_all(self, item: Item) -> None:
        """Give an item to every target."""
        for target in self._targets:
            target.put(item)

    def replace(self, streams: Sequence[Stream], old: MarketTarget | None, new: MarketTarget | None) -> None:
        """Let one target receive the events of streams in place of another; ``None`` for nobody."""
        if new is not None:
            self._targets[new] = None
            for stream in streams:
                open_stream = self.by_stream.get(stream)
                targets = self._detached.setdefault(stream, {}) if open_stream is None else open_stream.targets
                targets[new] = None
        if old is not None:
            self._targets.pop(old, None)
            for stream in streams:
                if (open_stream := self.by_stream.get(stream)) is not None:
                    open_stream.targets.pop(old, None)
                if (detached := self._detached.get(stream)) is not None:
                    detached.pop(old, None)
                    if not detached:
                        del self._detached[stream]

    @property
    def history_events(self) -> int:
        """How many events all histories hold."""
        return sum(len(open_stream.history) for open_stream in self.by_stream.values())
