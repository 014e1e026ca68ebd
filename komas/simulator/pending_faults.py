"""The faults that wait for something to happen: a dial, a reply, a REST call, or data that is due.

Each is used up by what it meets; the first that fits is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from komas.simulator.fault_script import (
    DelayAcks,
    Fault,
    Hang,
    LoseAcks,
    Refuse,
    RefuseSubscriptions,
    RestFailure,
    Stall,
)

Waiting = Refuse | Hang | DelayAcks | LoseAcks | RefuseSubscriptions | RestFailure
F = TypeVar("F", bound=Fault)


def times(fault: Waiting) -> float:
    """How often a fault strikes."""
    match fault:
        case Refuse() | Hang():
            count = fault.dials
        case DelayAcks() | LoseAcks():
            count = fault.acks
        case _:
            count = fault.requests
    return math.inf if count is None else count


class PendingFaults:
    """What is waiting to go wrong."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Waiting, float]] = []
        self._stalls: list[tuple[Stall, float]] = []

    def add(self, fault: Waiting) -> None:
        """Let it wait, behind those that already do."""
        self._waiting.append((fault, times(fault)))

    def stall(self, fault: Stall, now_s: float) -> None:
        """Silence streams from now on."""
        self._stalls.append((fault, math.inf if fault.seconds is None else now_s + fault.seconds))

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
        self._stalls.clear()

    def dialled(self, dial: int) -> Refuse | Hang | None:
        """What happens to this dial."""
        found = self._take(lambda fault: isinstance(fault, Refuse | Hang) and fault.dial in (None, dial))
        return found if isinstance(found, Refuse | Hang) else None

    def asked(self, dial: int) -> RefuseSubscriptions | None:
        """What happens to a SUBSCRIBE on this dial's connection."""
        found = self._take(lambda fault: isinstance(fault, RefuseSubscriptions) and fault.dial in (None, dial))
        return found if isinstance(found, RefuseSubscriptions) else None

    def replying(self, dial: int) -> DelayAcks | LoseAcks | None:
        """What happens to a reply on this dial's connection."""
        found = self._take(lambda fault: isinstance(fault, DelayAcks | LoseAcks) and fault.dial in (None, dial))
        return found if isinstance(found, DelayAcks | LoseAcks) else None

    def called(self, endpoint: str) -> RestFailure | None:
        """What happens to a REST call."""
        found = self._take(lambda fault: isinstance(fault, RestFailure) and fault.path in ("", endpoint))
        return found if isinstance(found, RestFailure) else None

    def _take(self, fits: Callable[[Waiting], bool]) -> Waiting | None:
        for place, (fault, left) in enumerate(self._waiting):
            if fits(fault):
                if left > 1:
                    self._waiting[place] = fault, left - 1
                else:
                    del self._waiting[place]
                return fault
        return None

    @property
    def stalling(self) -> bool:
        """Whether any stall may be in force: the quick question, asked for every event."""
        return bool(self._stalls)

    def silent(self, stream: str, dial: int, now_s: float) -> bool:
        """Whether this stream's data is held back from this dial's connection."""
        self._stalls = [(stall, until_s) for stall, until_s in self._stalls if until_s > now_s]
        return any(
            stall.dial in (None, dial) and (not stall.streams or stream in stall.streams) for stall, _ in self._stalls
        )
