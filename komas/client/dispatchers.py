"""The subscribed streams of one connection: a task for each, which calls the stream's callbacks in order.

A task ends between two callbacks, never within one: a callback may unsubscribe its own stream, or disconnect, and goes
on to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from komas.client.callback_registry import CallbackRegistry, EventCallback
from komas.client.streams import BACKLOG, Components, check_listed, check_refused
from komas.errors import Cause, SlowConsumer, VenueError
from komas.hub.history import TOO_SLOW
from komas.hub.hub import MarketSubscription
from komas.hub.overflow import Item, Overflow
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition
from komas.model.kinds import Venue
from komas.model.market import Gap, Health, HealthNotice
from komas.model.streams import Stream

log = logging.getLogger(__name__)

SLOW: Final = "a callback was slower than the stream"


class Ending:
    """Ends a task while it waits; a callback that it is calling comes to its end."""

    def __init__(self) -> None:
        self.is_set = False
        self._wait: trio.CancelScope | None = None

    def set(self) -> None:
        """End the wait there is, and every later one."""
        self.is_set = True
        if self._wait is not None:
            self._wait.cancel("ended by the program")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block is given up when the task is to end."""
        with trio.CancelScope() as self._wait:
            if self.is_set:
                self._wait.cancel("ended by the program")
            yield
        self._wait = None


class _Dispatcher:
    """One stream's callbacks, how many calls of ``add()`` rely on it, and the end of its task."""

    def __init__(self) -> None:
        self.callbacks: list[EventCallback] = []
        self.callers = 0  # more than callbacks: a program may have on_message alone
        self.ending = Ending()
        self.position: StreamPosition | None = None  # of the last event that must not be lost


class Dispatchers:
    """What one connection's subscribed streams are dispatched by; the tasks live in ``nursery``.

    ``news`` is unparked when a task or a call of ``add()`` has ended.
    """

    def __init__(
        self,
        components: Components,
        registry: CallbackRegistry,
        nursery: trio.Nursery,
        news: trio.lowlevel.ParkingLot,
    ) -> None:
        self._components = components
        self._registry = registry
        self._nursery = nursery
        self._news = news
        self._dispatchers: dict[Stream, _Dispatcher] = {}
        self._under_way = 0  # tasks, and calls of add()
        self._had_any = False
        self._is_over = False

    @property
    def is_idle(self) -> bool:
        """Whether every stream that was subscribed to has been ended, and its last callback, too."""
        return self._had_any and not self._under_way

    async def add(self, wanted: Stream, callback: Callable[..., object] | None) -> None:
        """Subscribe to a stream and wait until the exchange says yes; callers of one stream share its task.

        Cancelled or refused, it leaves no callback behind.
        """
        with self._counted():
            market = self._components.market(wanted.venue)
            await check_listed(market.listings, wanted)
            if self._is_over:
                raise VenueError("the connection was let go", cause=Cause.CLOSED)
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
                await market.feed.acknowledged([wanted])
            except BaseException:
                dispatcher.callers -= 1
                if callback is not None and callback in dispatcher.callbacks:
                    dispatcher.callbacks.remove(callback)
                if not dispatcher.callers and self._dispatchers.get(wanted) is dispatcher:
                    self.end(wanted)
                raise
            self._had_any = True

    def end(self, wanted: Stream) -> bool:
        """End one stream with all its callbacks; returns whether it was subscribed."""
        dispatcher = self._dispatchers.get(wanted)
        if dispatcher is None:
            return False
        self._forget(wanted, dispatcher)
        dispatcher.ending.set()
        return True

    def end_all(self) -> None:
        """End every stream, for good."""
        self._is_over = True
        for wanted in tuple(self._dispatchers):
            self.end(wanted)
            self._components.hub.interest.abandon(wanted)  # although a callback that runs holds its subscription

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._news.unpark_all()

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
        with self._counted():
            try:
                await self._run(wanted, dispatcher, task_status)
            except VenueError as error:
                # Not by end(): nothing is to be waited for any more.
                self._forget(wanted, dispatcher)
                await self._registry.call(self._registry.on_error, error)

    async def _run(self, wanted: Stream, dispatcher: _Dispatcher, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe, and again whenever the callbacks have fallen behind: the history has the newest of what waited."""
        fell_behind = False
        while True:
            with self._components.hub.subscribe(
                [wanted], since=dispatcher.position, capacity=BACKLOG, overflow=Overflow.DISCONNECT
            ) as subscription:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                items = subscription.initial
                if fell_behind:
                    items = await self._caught_up(wanted, dispatcher.position, items, subscription.behind)
                fell_behind = await self._deliver(wanted, dispatcher, subscription, items)
            if not fell_behind or dispatcher.ending.is_set:
                return

    async def _caught_up(
        self, wanted: Stream, position: StreamPosition | None, items: list[Item], behind: int
    ) -> list[Item]:
        """Tell what was lost between a position and the first of these items; returns those to be delivered."""
        lost, left = _lost(wanted, position, items)
        if lost is None:
            log.warning("callbacks are slower than %s: they are %d events behind", wanted, len(items) + behind)
        else:
            await self._tell_lost(wanted, lost)
        return left

    async def _tell_lost(self, wanted: Stream, lost: Gap) -> None:
        missing = "events" if lost.first is None else f"{lost.first} to {lost.last}"
        error = SlowConsumer(f"callbacks are slower than {wanted}: {missing} are lost")
        log.warning("%s", error)
        await self._registry.call(self._registry.on_error, error)
        await self._registry.call(self._registry.on_gap, msgspec.structs.replace(lost, reason=SLOW), name=wanted.name)

    async def _deliver(
        self, wanted: Stream, dispatcher: _Dispatcher, subscription: MarketSubscription, items: list[Item]
    ) -> bool:
        """Call back with each item until the stream is ended; returns whether the callbacks fell behind instead."""
        while not dispatcher.ending.is_set:
            for item in items:
                await self._call_back(wanted, dispatcher, item)
                if dispatcher.ending.is_set:
                    return False
            items = []
            with dispatcher.ending.waiting():
                try:
                    items = (await subscription.receive()).items
                except SlowConsumer:
                    return True
        return False

    async def _call_back(self, wanted: Stream, dispatcher: _Dispatcher, item: Item) -> None:
        registry = self._registry
        if isinstance(item, Envelope):
            if item.sequence is not None:
                dispatcher.position = StreamPosition(item.epoch, item.sequence)
            callbacks = [*registry.on_message, *dispatcher.callbacks]
            await registry.call(callbacks, item.event, name=wanted.name)
        elif isinstance(item.notice, Gap) and item.notice.reason == TOO_SLOW:
            await self._tell_lost(wanted, item.notice)
        elif isinstance(item.notice, Gap):
            await registry.call(registry.on_gap, item.notice, name=wanted.name)
        elif isinstance(item.notice, HealthNotice):
            # Of the first market's connection everybody hears; of another's only who has a stream there.
            if wanted.venue is not Venue.BINANCE and item.notice.health is Health.RECOVERING:
                error = VenueError(f"{wanted}: {item.notice.reason}", cause=Cause.NETWORK)
                await registry.call(registry.on_error, error)
        else:
            check_refused(item.notice)


def _lost(wanted: Stream, position: StreamPosition | None, items: list[Item]) -> tuple[Gap | None, list[Item]]:
    """What is missing after a position, and what is left of the items of a subscription that resumed there."""
    if position is None:
        return Gap(stream=wanted.name, first=None, last=None), items
    match items:
        case [NoticeEnvelope(notice=Gap() as gap), *left]:
            return gap, left
        case _:
            return None, items
