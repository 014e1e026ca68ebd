"""One VIP's signals: listen first, replay from the store, then live, without a gap and without a repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from komas.hub.broadcast import Encoder, Writer
from komas.hub.channel import SignalChannel, SignalSubscription
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.signals import SignalEnvelope
from komas.signals.database_threads import DatabaseThreads


class Delivery:
    """Sends every wanted commit after a position, once and in order; once it is live, directly where that is possible.

    ``send`` takes one envelope and waits while the client does not read; ``caught_up`` is called once the replay is
    over. Raises ``SlowConsumer`` when the client reads more slowly than signals are published, and more than
    ``capacity`` wait for it.
    """

    def __init__(
        self,
        store: DatabaseThreads,
        channel: SignalChannel,
        *,
        capacity: int,
        send: Callable[[SignalEnvelope], Awaitable[None]],
        caught_up: Callable[[], None],
        writer: Writer | None = None,
        encoder: Encoder[list[SignalEnvelope]] | None = None,
        wanted: SignalFilter = EVERYTHING,
    ) -> None:
        self._store = store
        self._channel = channel
        self._capacity = capacity
        self._send = send
        self._caught_up = caught_up
        self._writer = writer
        self._encoder = encoder
        self._wanted = wanted
        self._position = 0  # of what it sent last, or began after
        self._is_waiting = False  # for what is published
        self._replayed: int | None = None  # the position of what was replayed last, while there is more
        self._subscription: SignalSubscription | None = None

    @property
    def behind(self) -> int:
        """How many signals and updates were published, or are to be replayed, and not sent yet."""
        if self._replayed is not None:
            return max(0, self._channel.position - self._replayed)
        return 0 if self._subscription is None else self._subscription.waiting

    @property
    def position(self) -> int | None:
        """Up to where the client has all that it wants; ``None`` while something is on its way."""
        subscription = self._subscription
        if subscription is None or not self._is_waiting or subscription.is_owed:
            return None
        return max(self._position, self._channel.position)

    async def run(self, position: int | None) -> None:
        """Send what comes after a position (``None``: from now on) until cancelled."""
        is_live = False
        while not is_live:
            with self._subscribe(position) as self._subscription:
                subscription = self._subscription
                # No await since the subscription began: what comes after this position waits in its buffer.
                upto = self._channel.position
                position = upto if position is None else await self._replay(position, upto)
                if subscription.is_disconnected:
                    continue  # more came during the replay than waits here: the store has it
                is_live = True
                self._position = position
                self._caught_up()
                while True:
                    self._is_waiting = True
                    envelopes = await subscription.receive()
                    self._is_waiting = False  # no await since something was taken, which is on its way now
                    await self._send_all(envelopes)

    async def _send_all(self, envelopes: list[SignalEnvelope]) -> None:
        for envelope in envelopes:
            if envelope.event.position > self._position:
                await self._send(envelope)
                self._position = envelope.event.position
        if self._writer is not None:
            await self._writer.flush()

    def _subscribe(self, position: int | None) -> AbstractContextManager[SignalSubscription]:
        # Another process may have told the client more than is told here yet: each envelope's position is compared.
        is_ahead = position is not None and position > self._channel.position
        if self._writer is None or self._encoder is None or is_ahead:
            return self._channel.subscribe(self._capacity, self._wanted)
        return self._channel.subscribe_writer(self._capacity, self._writer, self._encoder, self._wanted)

    async def _replay(self, position: int, upto: int) -> int:
        """Send what was committed and published in between; what is not yet published is not sent."""
        while position < upto and (page := await self._store.events_after(position, upto, self._wanted)):
            for event in page:
                self._replayed = position
                await self._send(SignalEnvelope(event))
                position = event.position
        self._replayed = None
        return max(position, upto)
