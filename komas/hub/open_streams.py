"""The streams that are wanted: who receives each one's events, and its history in this epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from komas.hub.history import History
from komas.hub.history_limit import HistoryLimit
from komas.hub.overflow import Batch, Item
from komas.hub.subscription import Target
from komas.model.codec import NoticeEnvelope
from komas.model.streams import Stream

MarketTarget: TypeAlias = Target[Item, Batch]


class Interruptible(Protocol):
    """A way through a history."""

    def cut(self) -> None:
        """The history ends."""


class OpenStream:
    """One epoch of one stream: what receives its events, its history, and who is still on the way through that."""

    __slots__ = ("epoch", "history", "replays", "targets")

    def __init__(self, history: History, epoch: str, targets: dict[MarketTarget, None]) -> None:
        self.epoch = epoch
        self.targets = targets
        self.replays: dict[MarketTarget, Interruptible] = {}
        self.history = history


class OpenStreams:
    """``by_stream`` has them. Targets of streams that are not wanted any more stay, in case they are wanted again."""

    def __init__(
        self,
        history_length: int,
        history_limit: HistoryLimit,
        new_epoch: Callable[[], str],
        publication: Callable[[], int],
    ) -> None:
        """``publication`` is that of the newest event of any stream."""
        self._publication = publication
        self._history_length = history_length
        self._history_limit = history_limit
        self._new_epoch = new_epoch
        self.by_stream: dict[Stream, OpenStream] = {}
        self._detached: dict[Stream, dict[MarketTarget, None]] = {}  # targets of streams that are not wanted
        self._targets: dict[MarketTarget, None] = {}

    def __len__(self) -> int:
        return len(self.by_stream)

    def streams(self) -> tuple[Stream, ...]:
        """All of them, in the order in which they were opened."""
        return tuple(self.by_stream)

    def open(self, stream: Stream) -> None:
        """A stream is wanted."""
        self._open(stream, self._detached.pop(stream, {}))

    def close(self, stream: Stream) -> None:
        """A stream is not wanted any more."""
        if targets := self._close(stream):
            self._detached[stream] = targets

    def renew(self, stream: Stream) -> None:
        """Begin a new epoch of a stream: positions of the old one are void."""
        self._open(stream, self._close(stream))

    def _open(self, stream: Stream, targets: dict[MarketTarget, None], epoch: str = "") -> None:
        epoch = epoch or self._new_epoch()
        history = History(stream, epoch, self._history_length, self._publication())
        opened = self.by_stream[stream] = OpenStream(history, epoch, targets)
        self._history_limit.opened(opened.history, is_read=bool(targets))

    def _close(self, stream: Stream) -> dict[MarketTarget, None]:
        closed = self.by_stream.pop(stream)
        self._history_limit.closed(closed.history)
        for buffer, replay in closed.replays.items():
            replay.cut()
            closed.targets[buffer] = None
        return closed.targets

    def put(self, stream: Stream, item: Item) -> None:
        """Give an item that is in the stream's history to its targets."""
        open_stream = self.by_stream.get(stream)
        if open_stream is not None:
            for target in open_stream.targets:
                target.put(item)

    def tell(self, stream: Stream, notice: NoticeEnvelope) -> None:
        """Give a notice that is in no history to everybody who has the stream."""
        open_stream = self.by_stream.get(stream)
        if open_stream is not None:
            for target in (*open_stream.targets, *open_stream.replays):
                target.put(notice)

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

    def begin(self, stream: Stream, buffer: MarketTarget, replay: Interruptible) -> None:
        """A subscriber begins a replay: until its end, it receives only what is in no history."""
        self._targets[buffer] = None
        self.by_stream[stream].replays[buffer] = replay

    def go_live(self, stream: Stream, buffer: MarketTarget) -> None:
        """A subscriber has all that was published of a stream: its buffer receives what follows."""
        open_stream = self.by_stream[stream]
        del open_stream.replays[buffer]
        open_stream.targets[buffer] = None

    def entered(self, streams: Sequence[Stream]) -> None:
        """One subscriber more reads these streams."""
        for stream in streams:
            if (open_stream := self.by_stream.get(stream)) is not None:
                self._history_limit.read(open_stream.history)

    def left(
        self,
        streams: Sequence[Stream],
        buffer: MarketTarget,
        is_read: Callable[[Stream], bool],
        *,
        stays: bool = False,
    ) -> None:
        """A subscriber leaves streams, in whatever state it is; ``is_read`` tells of each whether others read it.

        It ``stays`` where it has other streams.
        """
        self.replace(streams, buffer, None)
        if stays:
            self._targets[buffer] = None
        for stream in streams:
            if (open_stream := self.by_stream.get(stream)) is not None:
                open_stream.replays.pop(buffer, None)
                if not is_read(stream):
                    self._history_limit.left(open_stream.history)


class SharedStreams(OpenStreams):
    """Streams of many processes: what is open, and since when, is decided elsewhere (``adopt()``, ``release()``).

    One that is wanted here, and not open there yet, has a name of its own for its epoch until it is: no reader has been
    given a position of it by then.
    """

    def __init__(
        self,
        history_length: int,
        history_limit: HistoryLimit,
        new_epoch: Callable[[], str],
        publication: Callable[[], int],
    ) -> None:
        super().__init__(history_length, history_limit, new_epoch, publication)
        self._adopted: set[Stream] = set()
        self._wanted: set[Stream] = set()

    def adopted(self, stream: Stream) -> str | None:
        """The name of the epoch that all processes share; ``None`` for a stream that is not open there."""
        return self.by_stream[stream].epoch if stream in self._adopted else None

    def open(self, stream: Stream) -> None:
        """A stream is wanted here."""
        self._wanted.add(stream)
        if stream not in self.by_stream:
            super().open(stream)

    def close(self, stream: Stream) -> None:
        """A stream is not wanted here any more."""
        self._wanted.discard(stream)
        if stream not in self._adopted:
            super().close(stream)

    def adopt(self, stream: Stream, epoch: str) -> None:
        """A stream is open for all processes, in an epoch with this name."""
        opened = self.by_stream.get(stream)
        if opened is not None and stream not in self._adopted:
            opened.epoch = epoch
            opened.history.name_epoch(epoch, self._publication())
        elif opened is None or opened.epoch != epoch:
            self._open(stream, self._detached.pop(stream, {}) if opened is None else self._close(stream), epoch)
        self._adopted.add(stream)

    def release(self, stream: Stream) -> None:
        """A stream is not open any more."""
        if stream in self._adopted:
            self._adopted.discard(stream)
            if stream in self._wanted:
                self.renew(stream)
            else:
                super().close(stream)
