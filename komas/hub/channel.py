"""A channel without loss: a slow consumer is disconnected and resumes from its position.

The counterpart of ``hub.Hub`` for signals: one stream, nothing conflated, nothing remembered. The database remembers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import msgspec

from komas.hub.broadcast import Broadcaster, Encoder, Writer
from komas.hub.buffer import Buffer
from komas.hub.overflow import BoundedQueue
from komas.hub.subscription import DirectSubscription, Subscription, Target
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import SignalEnvelope

SignalSubscription: TypeAlias = Subscription[SignalEnvelope, list[SignalEnvelope]]
_SignalBuffer: TypeAlias = Buffer[SignalEnvelope, list[SignalEnvelope]]
_SignalTarget: TypeAlias = Target[SignalEnvelope, list[SignalEnvelope]]


class ChannelStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and subscribers now."""

    published: int
    subscribers: int
    disconnected: int


class SignalChannel:
    """Publishes to every subscriber and never waits. ``position`` is that of the envelope published last."""

    def __init__(self) -> None:
        self.position = 0
        self._targets: dict[_SignalTarget, SignalFilter] = {}
        self._buffers: dict[_SignalBuffer, None] = {}
        self._broadcaster: Broadcaster[SignalEnvelope, list[SignalEnvelope]] = Broadcaster()
        self._published = 0
        self._disconnected = 0

    def publish(self, envelope: SignalEnvelope) -> None:
        """Publish one envelope; positions rise by one."""
        self.position = envelope.event.position
        self._published += 1
        for target, wanted in self._targets.items():
            if not wanted or wanted.passes(envelope.event):
                target.put(envelope)

    def reset(self, position: int) -> None:
        """Go on from another position; every subscriber is disconnected, because what it received is not valid."""
        self.position = position
        self._broadcaster.clear()
        for buffer in self._buffers:
            buffer.disconnect()

    @contextmanager
    def subscribe(self, capacity: int, wanted: SignalFilter = EVERYTHING) -> Iterator[SignalSubscription]:
        """Subscribe to what is wanted until the block is left."""
        buffer = self._add(capacity, wanted)
        try:
            yield Subscription(buffer, [])
        finally:
            self._remove(buffer, wanted)

    @contextmanager
    def subscribe_writer(
        self,
        capacity: int,
        writer: Writer,
        encoder: Encoder[list[SignalEnvelope]],
        wanted: SignalFilter = EVERYTHING,
    ) -> Iterator[SignalSubscription]:
        """Subscribe with a connection that ``run()`` writes to while the subscriber's task waits."""
        key = encoder, wanted
        group = self._broadcaster.open_group(key, lambda: BoundedQueue(sys.maxsize), encoder)
        buffer = self._add(capacity, wanted)
        try:
            yield DirectSubscription(
                buffer,
                [],
                group=group,
                writer=writer,
                encoder=encoder,
                replace_target=partial(self._replace_target, wanted),
            )
        finally:
            self._remove(buffer, wanted)
            self._broadcaster.close_group(key)

    async def run(self) -> None:
        """Write to the connections of subscribers until cancelled."""
        await self._broadcaster.run()

    def _add(self, capacity: int, wanted: SignalFilter) -> _SignalBuffer:
        buffer: _SignalBuffer = Buffer(BoundedQueue(capacity))
        self._replace_target(wanted, None, buffer)
        self._buffers[buffer] = None
        return buffer

    def _remove(self, buffer: _SignalBuffer, wanted: SignalFilter) -> None:
        self._replace_target(wanted, buffer, None)
        del self._buffers[buffer]
        self._disconnected += buffer.is_disconnected
        buffer.close()

    def _replace_target(self, wanted: SignalFilter, old: _SignalTarget | None, new: _SignalTarget | None) -> None:
        if new is not None:
            self._targets[new] = wanted
        if old is not None:
            self._targets.pop(old, None)

    def statistics(self) -> ChannelStatistics:
        """Counts, for metrics."""
        return ChannelStatistics(self._published, len(self._buffers), self._disconnected)
