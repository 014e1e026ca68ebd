"""One subscription. Its task drains the buffer; while it is idle, the broadcaster may write to its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from komas.hub.broadcast import BroadcastGroup, Encoder, Writer
from komas.hub.buffer import Buffer

T = TypeVar("T")
B = TypeVar("B")

Target: TypeAlias = Buffer[T, B] | BroadcastGroup[T, B]  # what receives published items


class Subscription(Generic[T, B]):
    """What a subscriber holds; made by ``Hub.subscribe()`` and ``SignalChannel.subscribe()``.

    ``initial`` is the state at the moment of registration: a gap notice, recovered events, the latest event of each
    stream. It comes before everything else and is not bounded by the buffer.
    """

    __slots__ = ("_buffer", "initial")

    def __init__(self, buffer: Buffer[T, B], initial: list[T]) -> None:
        self._buffer = buffer
        self.initial = initial

    @property
    def is_disconnected(self) -> bool:
        """Whether ``receive()`` would raise ``SlowConsumer``."""
        return self._buffer.is_disconnected

    async def receive(self) -> B:
        """Wait for events and return all that wait; raises what ``Buffer.drain()`` raises."""
        return await self._buffer.receive()


class DirectSubscription(Subscription[T, B]):
    """A subscription whose connection the broadcaster writes to while its task waits in ``receive()``.

    ``replace_target`` lets one target receive published items in place of another: the group, or the buffer.
    """

    __slots__ = ("_encoder", "_group", "_replace_target", "writer")

    def __init__(
        self,
        buffer: Buffer[T, B],
        initial: list[T],
        *,
        group: BroadcastGroup[T, B],
        writer: Writer,
        encoder: Encoder[B],
        replace_target: Callable[[Target[T, B] | None, Target[T, B] | None], None],
    ) -> None:
        super().__init__(buffer, initial)
        self._group = group
        self._replace_target = replace_target
        self._encoder = encoder
        self.writer = writer

    async def receive(self) -> B:
        """Wait until the connection would block; return the batch that was not written (empty if all was).

        The connection may keep the rest of what it was writing, which then goes first. Raises ``trio.EndOfChannel`` at
        the end.
        """
        if (batch := self.drain_nowait()) is not None:
            return batch
        self._group.join(self)
        try:
            await self._buffer.woken()
        finally:
            self._group.leave(self)
        return self._buffer.drain()

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
