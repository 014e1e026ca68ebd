"""A connection for programs that have no nursery to offer: it lives in a system task of Trio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from komas.client.callback_registry import CallbackRegistry
from komas.client.dispatchers import Dispatchers, Ending
from komas.client.streams import Components
from komas.errors import CallerError, alone
from komas.model.market import FeedState
from komas.model.streams import Stream

NOT_CONNECTED: Final = "not connected; await connect() first"
CALLBACKS_END_S: Final = 2.0  # for callbacks that run when the program ends the connection from outside of them
GOODBYE_S: Final = 2.0  # for the Close frame and the tasks' ends


class BackgroundConnection:
    """One life of a program's connection, from ``start()`` to ``stop()`` or until the allowed attempts are used up.

    ``failure`` is why it ended, unless it was stopped; ``failed`` is called when there is one. Callbacks run beside the
    network, in a nursery around it, so that the one in which the connection is let go comes to its end.
    """

    def __init__(
        self,
        open_components: Callable[[], AbstractAsyncContextManager[Components]],
        registry: CallbackRegistry,
        failed: Callable[[], None],
    ) -> None:
        self._open_components = open_components
        self._registry = registry
        self._failed = failed
        self._components: Components | None = None  # until it is being left
        self._dispatchers: Dispatchers | None = None
        self._callers: trio.Nursery | None = None
        self._network: trio.CancelScope | None = None
        self._states = Ending()
        self._is_telling = False
        self._news = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self.failure: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether something can be asked for."""
        return self._components is not None

    @property
    def is_running(self) -> bool:
        """Whether its tasks run; a connection that is being left runs a little longer than it is open."""
        return self._callers is not None

    @property
    def components(self) -> Components:
        """The feeds and their hub; raises ``CallerError`` unless open."""
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
        """End a stream with all its callbacks; returns whether it was subscribed."""
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

    def leave(self) -> None:
        """Let the network go; nothing more can be asked for, and callbacks that run come to their end."""
        components, self._components = self._components, None
        if components is None:
            return
        # First, so that nobody is told of the end that the program itself has asked for.
        self._states.set()
        if self._dispatchers is not None:
            self._dispatchers.end_all()
        components.disconnect()  # every task that waits for a feed gets the reason
        if self._network is not None:
            self._network.cancel("let go")

    async def stop(self) -> None:
        """Leave, and wait for the end, at most ``CALLBACKS_END_S`` and ``GOODBYE_S``; when it is over, do nothing."""
        self.leave()
        if self._callers is None or _is_in(self._callers):
            return  # a callback asks for it, and is waited for itself
        self._callers.cancel_scope.deadline = trio.current_time() + CALLBACKS_END_S
        with trio.move_on_after(CALLBACKS_END_S + GOODBYE_S, shield=True):
            await self._ended.wait()

    async def finished(self) -> None:
        """Wait for the end, or until every subscribed stream has been ended and no callback runs."""
        while not (self._ended.is_set() or self._is_idle):
            await self._news.park()

    @property
    def _is_idle(self) -> bool:
        return self._dispatchers is not None and self._dispatchers.is_idle and not self._is_telling

    async def _run(self, started: trio.Event) -> None:
        try:
            async with trio.open_nursery() as callers:
                self._callers = callers
                await self._serve(callers, started)
        except trio.Cancelled:
            raise  # trio.run() is ending
        except BaseException as error:  # noqa: BLE001 - a bug, or sys.exit() in a callback; run_forever() raises it again
            self.failure = alone(error)
        finally:
            self._callers = self._dispatchers = None
            started.set()
            self._ended.set()
            self._news.unpark_all()
        if self.failure is not None:
            self._failed()

    async def _serve(self, callers: trio.Nursery, started: trio.Event) -> None:
        async with self._open_components() as components, trio.open_nursery() as network:
            self._components, self._network = components, network.cancel_scope
            self._dispatchers = Dispatchers(components, self._registry, callers, self._news)
            components.start_in(network)
            callers.start_soon(self._tell_states, components)
            started.set()
            try:
                self.failure = await components.given_up()
                callers.cancel_scope.deadline = trio.current_time() + CALLBACKS_END_S
            finally:
                self.leave()

    async def _tell_states(self, components: Components) -> None:
        while not self._states.is_set:
            with self._states.waiting():
                status, failure = await components.hub.states.receive()
                self._is_telling = True
            if self._is_telling:
                await self._tell(components, status.state is FeedState.CONNECTED)
                if status.state is FeedState.RECONNECTING and failure is not None:
                    await self._registry.call(self._registry.on_error, failure)
                self._is_telling = False
                self._news.unpark_all()

    async def _tell(self, components: Components, is_connected: bool) -> None:  # noqa: FBT001 - a state, not a switch
        registry = self._registry
        if is_connected and not components.was_connected:
            components.was_connected = True
            await registry.call(registry.on_connect)
        elif components.was_connected and not is_connected:
            components.was_connected = False
            await registry.call(registry.on_disconnect)


def _is_in(nursery: trio.Nursery) -> bool:
    """Whether this is a task of a nursery, or of one inside it."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task.parent_nursery is not nursery:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is not None
