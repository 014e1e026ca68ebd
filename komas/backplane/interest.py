"""What all nodes want together, and what this one tells the others that it wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from komas.backplane.known import Known
from komas.backplane.ports import Backplane, BackplaneError
from komas.backplane.wire import Malformed, Pinned, Record, Want, key_of, read_key, write_wish
from komas.event_log import event_logger
from komas.hub.interest import Interest
from komas.model.kinds import Venue
from komas.model.streams import Stream
from komas.venues.core.complaints import Complaints

log = event_logger(__name__)

WANT: Final = "want"  # the name of the facts that say what each node wants
KEPT_S: Final = 30.0  # after which a node that is gone wants nothing
AGAIN_EVERY_S: Final = 10.0
GONE_S: Final = 15.0  # beyond that: what a store forgot is told again by then
AT_ONCE: Final = 256  # streams in one wish

_encoder: Final = msgspec.msgpack.Encoder()


class _Wanted(msgspec.Struct, frozen=True, array_like=True):
    """All that a node wants, as of one of its numbered wishes."""

    number: int
    streams: tuple[str, ...]


_wanted: Final = msgspec.msgpack.Decoder(_Wanted)


class ClusterInterest(Interest):
    """The union of what nodes want, at the leader: a reader is a node; pins are told to all of them.

    Where a node stands by, it first follows what is open: ``follow()``. ``lead()`` is when it tells what it opens.
    """

    def __init__(self) -> None:
        super().__init__(opened=lambda _stream: None, closed=lambda _stream: None, linger_s=0.0)
        self._numbers: dict[str, int] = {}
        self._gone_at: dict[str, float] = {}  # nodes that were not there at the last look, and since when
        self._followed: dict[Stream, str] = {}  # the epochs of streams that another process has open
        self._tell: Callable[[Record], None] = lambda _record: None
        self._complaints = Complaints(log)

    def follow(self, epochs: Mapping[Stream, str]) -> None:
        """Want the streams that another process has open, and no others."""
        for stream in [stream for stream, epoch in self._followed.items() if epochs.get(stream) != epoch]:
            del self._followed[stream]
            self.leave([stream])
            if stream not in epochs:
                self.abandon(stream)  # at once: who wants it from now on opens it
        fresh = [stream for stream in epochs if stream not in self._followed]
        self._followed.update((stream, epochs[stream]) for stream in fresh)
        self.join(fresh)

    def lead(
        self,
        *,
        opened: Callable[[Stream], None],
        closed: Callable[[Stream], None],
        tell: Callable[[Record], None],
        known: Known,
    ) -> Callable[[], None]:
        """Go on from what is known, and tell changes; the open streams stay until what is returned is called.

        By then nodes have said who wants them.
        """
        if self._followed:
            self.follow(known.epochs)
        self._opened, self._closed = opened, closed
        self.pin(known.pins)
        self._tell = tell
        let_go = self._hold(known.epochs)
        self.leave(self._followed)
        self._followed = {}
        return let_go

    def pin(self, streams: Iterable[Stream]) -> None:
        """Keep streams open until they are unpinned."""
        fresh = [stream for stream in streams if not self.pinned(stream)]
        super().pin(fresh)
        if fresh:
            self._tell(Pinned(tuple(map(key_of, fresh)), on=True))

    def unpin(self, streams: Iterable[Stream]) -> None:
        """Let pinned streams go."""
        gone = [stream for stream in streams if self.pinned(stream)]
        super().unpin(gone)
        if gone:
            self._tell(Pinned(tuple(map(key_of, gone)), on=False))

    def _hold(self, streams: Iterable[Stream]) -> Callable[[], None]:
        held = list(streams)
        self.join(held)
        return lambda: self.leave(held)

    def take(self, want: Want) -> None:
        """A node wants streams, and others no more."""
        self._numbers[want.node] = want.number
        held = self.held(want.node)
        for stream in self._read(want.node, want.added):
            if stream in held:
                self.leave([stream], want.node)  # it was refused, say, and is wanted anew
            self.join([stream], want.node)
        removed = self._read(want.node, want.removed)
        self.leave([stream for stream in removed if stream in self.held(want.node)], want.node)

    def take_all(self, kept: dict[str, bytes]) -> None:
        """What every node wants; a node that is not there for a while wants nothing any more.

        What a node kept before a wish that was heard since is old. A store that forgot everything is told again.
        """
        self._forget_gone([node for node in self.holders() if node and node not in kept])
        for node, value in kept.items():
            try:
                wanted = _wanted.decode(value)
            except msgspec.MsgspecError as error:
                self._complaints.warning("what a node wants cannot be read", node=node, reason=str(error))
                continue
            if wanted.number < self._numbers.get(node, -1):
                continue
            held, streams = self.held(node), self._read(node, wanted.streams)
            more = [stream for stream in streams if stream not in held]
            less = set(held).difference(streams)
            self.join(more, node)
            self.leave(less, node)

    def _read(self, node: str, keys: Iterable[str]) -> list[Stream]:
        """The streams of these keys; a newer release may want some that this one does not have, beside others."""
        streams: list[Stream] = []
        for key in keys:
            try:
                streams.append(read_key(key))
            except Malformed as error:
                self._complaints.warning("what a node wants cannot be read", node=node, reason=str(error))
        return streams

    def _forget_gone(self, gone: Sequence[str]) -> None:
        now = trio.current_time()
        self._gone_at = {node: self._gone_at.get(node, now) for node in gone}
        for node in [node for node, at in self._gone_at.items() if now >= at + GONE_S]:
            self._numbers.pop(node, None)
            self.leave(list(self.held(node)), node)


class WantedTeller:
    """Tells what this node's readers want; ``run()`` it as long as there are any."""

    def __init__(self, store: Backplane, node: str, interest: Interest, venues: Sequence[Venue]) -> None:
        self._store = store
        self._node = node
        self._interest = interest
        self._changes = [interest.changes(venue) for venue in venues]
        self._number = 0
        self._keep_at = -math.inf
        self._pause = trio.CancelScope()

    def tell_again(self) -> None:
        """Tell all of it once more, soon: the store may have forgotten it."""
        self._keep_at = -math.inf
        self._pause.deadline = self._keep_at

    async def run(self) -> None:
        """Tell each change at once, and all of it again and again: until cancelled."""
        while True:
            try:
                if trio.current_time() >= self._keep_at:
                    self._keep_at = trio.current_time() + AGAIN_EVERY_S
                    await self._keep()
                seen = self._interest.version
                if not await self._tell():
                    with trio.move_on_at(self._keep_at) as self._pause:
                        await self._interest.changed(seen)
            except BackplaneError as error:
                log.warning("what is wanted here cannot be told", extra={"reason": str(error)})
                self._keep_at = -math.inf
                await trio.sleep(1.0)

    async def _tell(self) -> bool:
        """Tell some changes; whether there were any."""
        taken = [stream for changes in self._changes for stream in changes.take(AT_ONCE)]
        if not taken:
            return False
        self._number += 1
        added = tuple(key_of(stream) for stream in taken if stream in self._interest)
        removed = tuple(key_of(stream) for stream in taken if stream not in self._interest)
        await self._store.wish(write_wish(Want(self._node, self._number, added, removed)))
        return True

    async def _keep(self) -> None:
        streams = tuple(map(key_of, self._interest.streams()))
        await self._store.keep(WANT, self._node, _encoder.encode(_Wanted(self._number, streams)), KEPT_S)

    async def leave(self) -> None:
        """Want nothing any more: the node ends."""
        await self._store.drop(WANT, self._node)
