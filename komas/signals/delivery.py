"""One VIP's signals: listen first, replay from the store, then live, without a seam and without a repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from komas.hub.broadcast import Direct
from komas.hub.channel import SignalListener, Topic
from komas.hub.subscription import View
from komas.model.signals import SignalEnvelope
from komas.signals.database_threads import Store


class Framed(Direct, Protocol):
    """Where frames can be written without waiting."""

    @property
    def view(self) -> View[list[SignalEnvelope]]:
        """What makes them."""


class Frames(msgspec.Struct, frozen=True):
    """A view of signals as WebSocket frames."""

    positions: bool

    @property
    def heartbeat(self) -> bytes:
        """Nothing: a conversation has pings of its own."""
        return b""

    def renderer(self) -> Callable[[list[SignalEnvelope]], bytes]:
        """What renders several as one piece."""
        return lambda envelopes: b"".join([envelope.frame(positions=self.positions) for envelope in envelopes])


class Delivery:
    """Sends every commit after a position, once and in order; once it is live, directly where that is possible.

    ``send`` takes one envelope and waits while the client does not read; ``caught_up`` is called once the replay is
    over. Raises ``Dismissed`` when the client reads more slowly than signals are published, and more than ``capacity``
    wait for it.
    """

    def __init__(
        self,
        store: Store,
        topic: Topic,
        *,
        capacity: int,
        send: Callable[[SignalEnvelope], Awaitable[None]],
        caught_up: Callable[[], None],
        direct: Framed | None = None,
    ) -> None:
        self._store = store
        self._topic = topic
        self._capacity = capacity
        self._send = send
        self._caught_up = caught_up
        self._direct = direct

    async def run(self, position: int | None) -> None:
        """Send what comes after a position (``None``: from now on) until cancelled."""
        is_live = False
        while not is_live:
            with self._place(position) as place:
                # No await since the place was taken: what comes after this position waits there.
                upto = self._topic.position
                position = upto if position is None else await self._replay(position, upto)
                if place.is_dismissed:
                    continue  # more came during the replay than waits here: the store has it
                is_live = True
                self._caught_up()
                while True:
                    for envelope in await place.take():
                        if envelope.event.position > position:
                            await self._send(envelope)
                            position = envelope.event.position
                    if self._direct is not None:
                        await self._direct.flush()

    def _place(self, position: int | None) -> AbstractContextManager[SignalListener]:
        # Another process may have told the client more than is told here yet: what comes is held against its position.
        is_ahead = position is not None and position > self._topic.position
        if self._direct is None or is_ahead:
            return self._topic.listen(self._capacity)
        return self._topic.listen_directly(self._capacity, self._direct, self._direct.view)

    async def _replay(self, position: int, upto: int) -> int:
        """Send what was committed, and told, in between; what is not yet told is nobody's to see."""
        while position < upto and (page := await self._store.events_after(position, upto)):
            for event in page:
                await self._send(SignalEnvelope(event))
                position = event.position
        return max(position, upto)
