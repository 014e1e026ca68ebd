"""One subscription. Its task drains the buffer; while it is idle, the broadcaster may write to its connection.

A subscriber that does nothing but write needs no task while it is idle (``rest()``): one is begun for it when its
connection would block, and ends once nothing waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

import trio

from komas.hub.broadcast import BroadcastGroup, Encoder, Writer
from komas.hub.buffer import Buffer

T = TypeVar("T")
B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)

Target: TypeAlias = Buffer[T, B] | BroadcastGroup[T, B]  # what receives published items


class Missed(Protocol[B_co]):
    """What a subscriber missed, in slices."""

    def __len__(self) -> int:
        """How many items are left."""

    def take(self) -> B_co | None:
        """The next slice; ``None`` once the buffer has what follows."""


class Subscription(Generic[T, B]):
    """What a subscriber holds; made by ``Hub.subscribe()`` and ``SignalChannel.subscribe()``.

    ``initial`` is the state at the moment of registration: a gap notice, the first of the events that are recovered,
    the latest event of each stream. It comes before everything else. ``missed`` is what ``receive()`` recovers first,
    at the subscriber's own pace: the history holds it, and nothing of it waits in the buffer.
    """

    __slots__ = ("_buffer", "_missed", "initial", "written_at")

    def __init__(self, buffer: Buffer[T, B], initial: list[T], missed: Missed[B] | None = None) -> None:
        self._buffer = buffer
        self._missed = missed
        self.initial = initial
        self.written_at = math.inf  # on trio's clock, where its task says so, and is nudged after a silence

    def nudge(self) -> None:
        """Have ``receive()`` return a batch, if an empty one."""
        self._buffer.nudge()

    @property
    def behind(self) -> int:
        """How many items are still to be recovered."""
        return 0 if self._missed is None else len(self._missed)

    @property
    def waiting(self) -> int:
        """How many items wait in its own buffer."""
        return self._buffer.waiting

    @property
    def is_owed(self) -> bool:
        """Whether something that was published has not been handed to its task, or to its connection."""
        return bool(self.behind or self.waiting or self.is_disconnected)

    @property
    def is_disconnected(self) -> bool:
        """Whether ``receive()`` would raise ``SlowConsumer``."""
        return self._buffer.is_disconnected

    async def receive(self) -> B:
        """Wait for events and return all that wait; raises what ``Buffer.drain()`` raises."""
        if self._missed is not None and (batch := await self._recovered(self._missed)) is not None:
            return batch
        return await self._buffer.receive()

    async def _recovered(self, missed: Missed[B]) -> B | None:
        """What comes next of what was missed; ``None`` once it is over."""
        await trio.lowlevel.checkpoint()  # before anything is taken: what a cancelled task has taken is lost
        if (batch := missed.take()) is None:
            self._missed = None
        return batch


class DirectSubscription(Subscription[T, B]):
    """A subscription whose connection the broadcaster writes to while its task waits in ``receive()``.

    ``replace_target`` lets one target receive published items in place of another: the group, or the buffer.
    """

    __slots__ = ("_encoder", "_group", "_replace_target", "writer")

    def __init__(
        self,
        buffer: Buffer[T, B],
        initial: list[T],
        missed: Missed[B] | None = None,
        *,
        group: BroadcastGroup[T, B],
        writer: Writer,
        encoder: Encoder[B],
        replace_target: Callable[[Target[T, B] | None, Target[T, B] | None], None],
    ) -> None:
        super().__init__(buffer, initial, missed)
        self._group = group
        self._replace_target = replace_target
        self._encoder = encoder
        self.writer = writer

    async def receive(self) -> B:
        """Wait until the connection would block; return the batch that was not written (empty if all was).

        The connection may keep the rest of what it was writing, which then goes first. Raises ``trio.EndOfChannel`` at
        the end.
        """
        if self._missed is not None and (batch := await self._recovered(self._missed)) is not None:
            return batch
        if (batch := self.drain_nowait()) is not None:
            return batch
        self._group.join(self)
        try:
            await self._buffer.woken()
        finally:
            self._group.leave(self)
        return self._buffer.drain()

    def rest(self, woken: Callable[[], None]) -> bool:
        """Let the broadcaster write to the connection while no task waits; ``woken`` is called once when one must.

        ``False`` where ``take()`` may have something; then it is to be asked, and ``rest()`` again.
        """
        # A replay that has nothing is not over either, before it was asked: until then its streams are not live.
        if self._missed is not None or self.is_owed or not self._buffer.call_when_woken(woken):
            return False
        self._group.join(self)
        return True

    def take(self) -> B | None:
        """What its own task has to write, ``None`` for nothing; raises what ``receive()`` raises."""
        self._group.leave(self)
        if self._missed is not None:
            if (batch := self._missed.take()) is not None:
                return batch
            self._missed = None
        return self.drain_nowait()

    @property
    def is_owed(self) -> bool:
        """The same, of what its group receives for it, too."""
        return self._group.owes(self) or super().is_owed

    # As a member of its group

    @property
    def is_finished(self) -> bool:
        """Whether ``receive()`` would raise."""
        return self._buffer.is_finished

    def drain_nowait(self) -> B | None:
        """Return what waits in the buffer; ``None`` for nothing."""
        return self._buffer.drain_nowait()

    def put_back(self, batch: B) -> None:
        """Leave what was not written in the buffer."""
        self._buffer.put_back(batch)

    def encode(self, batch: B) -> bytes:
        """Encode what only this subscriber has not received."""
        return self._encoder.new_encoding()(batch)

    def joined(self) -> None:
        """The group receives events for it."""
        self._replace_target(self._buffer, self._group if len(self._group) == 1 else None)

    def left(self) -> None:
        """The buffer receives events again."""
        self._replace_target(None if len(self._group) else self._group, self._buffer)

    def wake(self) -> None:
        """Wake the subscriber's task."""
        self._buffer.wake()
