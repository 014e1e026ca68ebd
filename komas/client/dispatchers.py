"""The subscribed streams of one connection: a task for each, which calls the stream's callbacks in order."""

from __future__ import annotations

from collections.abc import Callable

import trio

from komas.client.callback_registry import CallbackError, CallbackRegistry, EventCallback
from komas.client.streams import BACKLOG, Components, check_refused
from komas.errors import SlowConsumer, VenueError
from komas.hub.hub import MarketSubscription
from komas.hub.overflow import Overflow
from komas.model.codec import Envelope
from komas.model.market import Gap
from komas.model.streams import Stream


class _Dispatcher:
    """One stream's callbacks, how many calls of ``add()`` rely on it, and the scope of its task."""

    def __init__(self) -> None:
        self.callbacks: list[EventCallback] = []
        self.callers = 0  # more than callbacks: a program may have on_message alone
        self.scope = trio.CancelScope()


class Dispatchers:
    """What one connection's subscribed streams are dispatched by; the tasks live in the connection's nursery."""

    def __init__(self, components: Components, registry: CallbackRegistry, nursery: trio.Nursery) -> None:
        self._components = components
        self._registry = registry
        self._nursery = nursery
        self._dispatchers: dict[Stream, _Dispatcher] = {}

    async def add(self, wanted: Stream, callback: Callable[..., object] | None) -> None:
        """Subscribe to a stream and wait until the exchange says yes; callers of one stream share its task.

        Cancelled or refused, it leaves no callback behind.
        """
        # No await until the dispatcher is asked for: two callers of one stream share it.
        is_new = wanted not in self._dispatchers
        dispatcher = self._dispatchers.setdefault(wanted, _Dispatcher())
        dispatcher.callers += 1
        if callback is not None:
            dispatcher.callbacks.append(callback)
        # By the subscription itself: its dispatcher listens a little later.
        self._components.hub.interest.pin([wanted])
        try:
            if is_new:
                # A caller that was cancelled in here would take with it the task that others share by now. It is a
                # few scheduler passes, and no wait on the outside.
                with trio.CancelScope(shield=True):
                    await self._nursery.start(self._dispatch, wanted, dispatcher)
            await self._components.feed.acknowledged([wanted])
        except BaseException:
            dispatcher.callers -= 1
            if callback is not None and callback in dispatcher.callbacks:
                dispatcher.callbacks.remove(callback)
            if not dispatcher.callers and self._dispatchers.get(wanted) is dispatcher:
                self.end(wanted)
            raise

    def end(self, wanted: Stream) -> bool:
        """End one stream with all its callbacks; returns whether it was subscribed."""
        dispatcher = self._dispatchers.get(wanted)
        if dispatcher is None:
            return False
        self._forget(wanted, dispatcher)
        dispatcher.scope.cancel("unsubscribed")
        return True

    def _forget(self, wanted: Stream, dispatcher: _Dispatcher) -> None:
        if self._dispatchers.get(wanted) is dispatcher:  # the stream may have been subscribed to again
            del self._dispatchers[wanted]
            self._components.hub.interest.unpin([wanted])

    async def _dispatch(
        self,
        wanted: Stream,
        dispatcher: _Dispatcher,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        hub, registry = self._components.hub, self._registry
        with dispatcher.scope:
            try:
                while True:
                    with hub.subscribe([wanted], capacity=BACKLOG, overflow=Overflow.DISCONNECT) as subscription:
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
                        try:
                            await self._deliver(wanted, dispatcher, subscription)
                        except SlowConsumer as error:
                            await registry.call(registry.on_error, CallbackError(wanted.name, error))
            except VenueError as error:
                # Not by end(): a coroutine function of on_error would be cancelled at its first await.
                self._forget(wanted, dispatcher)
                await registry.call(registry.on_error, error)

    async def _deliver(self, wanted: Stream, dispatcher: _Dispatcher, subscription: MarketSubscription) -> None:
        registry = self._registry
        items = subscription.initial
        while True:
            for item in items:
                if isinstance(item, Envelope):
                    callbacks = [*registry.on_message, *dispatcher.callbacks]
                    await registry.call(callbacks, item.event, name=wanted.name)
                elif isinstance(item.notice, Gap):
                    await registry.call(registry.on_gap, item.notice, name=wanted.name)
                else:
                    check_refused(item.notice)
            items = (await subscription.receive()).items
