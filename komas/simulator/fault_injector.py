"""Carries faults out: those of the script at their times, those of ``POST /sim/faults`` as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import trio

from komas.errors import CallerError
from komas.simulator.connection import Connection
from komas.simulator.fault_script import (
    Abort,
    AnyFault,
    Clock,
    Close,
    Garbage,
    HalfOpen,
    OnConnection,
    Outage,
    Shutdown,
    Stall,
    SymbolStatus,
    Tampering,
    Unknown,
)
from komas.simulator.frame_faults import Countdown, Tamperer, garbage, strange
from komas.simulator.market import Event, Market
from komas.simulator.pending_faults import PendingFaults

GOING_AWAY = 1001


class Stage(Protocol):
    """What a saboteur can lay hands on."""

    market: Market
    connections: dict[Connection, None]

    @property
    def now_ms(self) -> int:
        """The exchange's clock."""

    def shift_clock(self, offset_ms: int) -> None:
        """Set the exchange's clock against ours."""

    def go_out(self, seconds: float) -> None:
        """Cut everything, and do not listen for so long."""


class FaultInjector:
    """Knows which faults are still to come; ``run`` must be running."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.troubles = PendingFaults()
        self._nursery: trio.Nursery | None = None
        self._plans: list[trio.CancelScope] = []
        self._by_dial: dict[int, list[OnConnection]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the plans; ``started`` once plans can be made."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def plan(self, faults: Iterable[AnyFault]) -> None:
        """Carry out what is due, and remember the rest. ``CallerError`` before anything happens if one cannot be."""
        faults = tuple(faults)
        for fault in faults:
            if isinstance(fault, SymbolStatus) and fault.symbol not in self.stage.market.pairs:
                raise CallerError(f"faults: symbol {fault.symbol!r} is not traded here", field="symbol")
        for fault in faults:
            self._plan(fault)

    def _plan(self, fault: AnyFault) -> None:
        if isinstance(fault, OnConnection) and fault.dial is not None:
            self._by_dial.setdefault(fault.dial, []).append(fault)
            for connection in self._open(fault.dial):
                self.connected(connection)
        elif fault.at:
            self._postpone(fault, fault.at)
        else:
            self._strike(fault)

    def connected(self, connection: Connection) -> None:
        """A dial has become a connection: the faults that waited for it begin."""
        for fault in self._by_dial.pop(connection.dial, ()):
            if fault.at:
                self._postpone(fault, fault.at)
            else:
                self._strike(fault)

    def forget(self) -> None:
        """Drop every plan, and mend what can be mended."""
        for scope in self._plans:
            scope.cancel()
        self._plans.clear()
        self._by_dial.clear()
        self.troubles.clear()
        self.stage.shift_clock(0)
        for pair in self.stage.market.pairs.values():
            pair.status = "TRADING"
        for connection in self.stage.connections:
            connection.tamperers.clear()

    def later(self, delay_s: float, act: Callable[[], None]) -> trio.CancelScope:
        """Do something a little later, unless the scope is cancelled."""
        assert self._nursery is not None, "plans are made while the saboteur runs"
        scope = trio.CancelScope()
        self._nursery.start_soon(_wait, scope, delay_s, act)
        return scope

    def _postpone(self, fault: AnyFault, delay_s: float) -> None:
        self._plans.append(self.later(delay_s, partial(self._strike, fault)))

    def _strike(self, fault: AnyFault) -> None:
        match fault:
            case Outage():
                self.stage.go_out(fault.seconds)
            case Clock():
                self.stage.shift_clock(fault.offset_ms)
            case SymbolStatus():
                self.stage.market.pairs[fault.symbol].status = fault.status
            case Stall():
                self.troubles.stall(fault, trio.current_time())
            case Abort() | Close() | HalfOpen() | Shutdown() | Tampering() | Garbage():
                for connection in self._open(fault.dial):
                    self._hit(connection, fault)
            case _:
                self.troubles.add(fault)

    def _hit(self, connection: Connection, fault: OnConnection) -> None:
        match fault:
            case Abort():
                self._end(connection, fault.after_frames, connection.cut if fault.after_frames else connection.abort)
            case Close():
                self._end(connection, fault.after_frames, partial(connection.close, fault.code, fault.reason))
            case HalfOpen():
                connection.frozen = True
            case Shutdown():
                self._shut_down(connection, fault)
            case Garbage():
                connection.push(garbage(fault, combined=connection.session.combined))
            case Unknown(kind="event" | "stream"):
                stream = next(iter(connection.session.names), "btcusdt@trade")
                connection.push(connection.encoded(strange(fault, stream)))
            case Tampering():
                connection.tamperers.append(Tamperer(fault, connection.encoded))

    def _end(self, connection: Connection, after_frames: int, act: Callable[[], None]) -> None:
        if after_frames:
            connection.tamperers.append(Countdown(after_frames, act))
        else:
            act()

    def _shut_down(self, connection: Connection, fault: Shutdown) -> None:
        notice = Event("!serverShutdown", b'{"e":"serverShutdown","E":%d}' % self.stage.now_ms)
        connection.push(connection.encoded(notice))
        end = partial(connection.close, GOING_AWAY, "server shutdown") if fault.clean else connection.cut
        self.later(fault.delay, end)

    def _open(self, dial: int | None) -> list[Connection]:
        return [each for each in self.stage.connections if dial in (None, each.dial)]


async def _wait(scope: trio.CancelScope, delay_s: float, act: Callable[[], None]) -> None:
    with scope:
        await trio.sleep(delay_s)
        act()
