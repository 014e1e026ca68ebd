"""A connection for programs that have no nursery to offer: it lives in a system task of Trio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from komas.client.callback_registry import CallbackRegistry
from komas.client.dispatchers import Dispatchers
from komas.client.streams import Components
from komas.errors import CallerError
from komas.model.market import FeedState
from komas.model.streams import Stream

NOT_CONNECTED: Final = "not connected; await connect() first"
GOODBYE_S: Final = 2.0  # for the Close frame and the tasks' ends


class BackgroundConnection:
    """One life of a program's connection, from ``start()`` to ``stop()`` or until the allowed attempts are used up.

    ``failure`` is why it ended, unless it was stopped.
    """

    def __init__(
        self, open_components: Callable[[], AbstractAsyncContextManager[Components]], registry: CallbackRegistry
    ) -> None:
        self._open_components = open_components
        self._registry = registry
        self._components: Components | None = None  # until it is being left
        self._dispatchers: Dispatchers | None = None
        self._nursery: trio.Nursery | None = None
        self._ended = trio.Event()
        self.failure: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether something can be asked for."""
        return self._components is not None

    @property
    def is_running(self) -> bool:
        """Whether its task runs; a connection that is being left runs a little longer than it is open."""
        return self._nursery is not None

    @property
    def components(self) -> Components:
        """The feed and its hub; raises ``CallerError`` unless open."""
        if self._components is None:
            raise CallerError(NOT_CONNECTED)
        return self._components

    @property
    def dispatchers(self) -> Dispatchers:
        """What dispatches its streams; raises ``CallerError`` unless open."""
        if self._components is None or self._dispatchers is None:
            raise CallerError(NOT_CONNECTED)
        return self._dispatchers

    def unsubscribe(self, wanted: Stream) -> bool:
        """End a stream with all its callbacks, also while being left; returns whether it was subscribed."""
        return self._dispatchers is not None and self._dispatchers.end(wanted)

    async def start(self) -> None:
        """Begin; the exchange has not been dialled yet. Raises what kept it from beginning."""
        started = trio.Event()
        # A system task, because this interface has no nursery to offer; _run() lets nothing escape into Trio.
        trio.lowlevel.spawn_system_task(self._run, started, name="BinanceWebSocket")
        with trio.CancelScope(shield=True):  # a few scheduler passes, and no wait on the outside
            await started.wait()
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        """End, and wait for the end, at most ``GOODBYE_S``; nothing happens when it does not run."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel("let go")
            if _is_in(self._nursery):
                return  # a callback asks for it, and is waited for itself
            with trio.move_on_after(GOODBYE_S, shield=True):
                await self._ended.wait()

    async def ended(self) -> None:
        """Wait for the end."""
        await self._ended.wait()

    async def _run(self, started: trio.Event) -> None:
        try:
            async with self._open_components() as components, trio.open_nursery() as nursery:
                self._components, self._nursery = components, nursery
                self._dispatchers = Dispatchers(components, self._registry, nursery)
                components.start_in(nursery)
                nursery.start_soon(self._tell_states, components)
                started.set()
                try:
                    self.failure = await components.feed.given_up()
                finally:
                    self._components = None  # while the block is being left, nothing more can be asked for,
                    components.feed.disconnect()  # every task that waits for the feed gets the reason
                nursery.cancel_scope.cancel("the allowed attempts are used up")
        except trio.Cancelled:
            raise  # trio.run() is ending
        except BaseException as error:  # noqa: BLE001 - a bug; run_forever() raises it again
            self.failure = self.failure or error
        finally:
            self._nursery = self._dispatchers = None
            started.set()
            self._ended.set()

    async def _tell_states(self, components: Components) -> None:
        registry = self._registry
        async for status, failure in components.hub.states:
            is_connected = status.state is FeedState.CONNECTED
            if is_connected and not components.was_connected:
                components.was_connected = True
                await registry.call(registry.on_connect)
            elif components.was_connected and not is_connected:
                components.was_connected = False
                await registry.call(registry.on_disconnect)
            if status.state is FeedState.RECONNECTING and failure is not None:
                await registry.call(registry.on_error, failure)


def _is_in(nursery: trio.Nursery) -> bool:
    """Whether this is a task of a nursery, or of one inside it."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task.parent_nursery is not nursery:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is not None
