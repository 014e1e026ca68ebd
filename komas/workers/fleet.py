"""Which worker is to be started, asked to go, or killed, and when. Sans-I/O: what happened comes in, orders go out.

::

    waiting ──due──▶ starting ──it listens──▶ serving
       ▲                │                        │
       └──── it ended ──┴────────────────────────┘
    starting, serving ──asked to go──▶ leaving ──it ended──▶ gone (stop), or starting (restart)

* Until all have listened once, a worker that ends with an exit status ends all: the settings, or an address, are wrong.
* Afterwards a worker that ended is replaced: at once, or, where several in a row did not live ``STABLE_S``, later and
  later.
* Whoever was asked to go and does not is killed after ``stop_s``; so is a worker that says nothing for ``watchdog_s``.
* A restart takes one worker after another, the leader last, each only while all others are ready. Where the new
  one is not ready in ``RESTART_S``, the restart is given up, and the rest go on as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from komas.shutdown import INTERRUPTED
from komas.systemd import LEADING, SERVING

STABLE_S: Final = 10.0  # who lived so long is no part of a series of deaths
AGAIN_S: Final = (0.5, 30.0)  # the wait after the second of a series, and the longest
SERIES: Final = 3  # deaths in a row that are called one
START_S: Final = 90.0  # systemd's own limit of a start
RESTART_S: Final = 60.0
LATE_S: Final = 2.0  # the whole machine was held up: nobody could have said a word meanwhile
# How a process ends that was asked to: also before it could listen to that, and by a Ctrl-C that reached it, too.
WELL: Final = frozenset({0, INTERRUPTED, -2, -15})


class State(Enum):
    """Where a worker stands."""

    WAITING = "waiting"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    GONE = "gone"


class Start(msgspec.Struct, frozen=True):
    """Start a worker."""

    number: int


class Stop(msgspec.Struct, frozen=True):
    """Ask a worker to go, or kill it."""

    number: int
    at_once: bool = False


class Told(msgspec.Struct, frozen=True):
    """Something for the log."""

    level: str
    words: str
    keys: dict[str, object]


class Served(msgspec.Struct, frozen=True):
    """All of them listen, for the first time."""


Order: TypeAlias = Start | Stop | Told | Served


class Worker:
    """One worker: what is known of the process that has its number now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = State.WAITING
        self.due_at = 0.0  # waiting: to be started; leaving: to be killed
        self.started_at = 0.0
        self.heard_at = 0.0
        self.is_ready = False  # it may have readers: what it listens for is there
        self.leads = False
        self.reason = "it does not listen yet"
        self.short_lives = 0
        self.was_killed = False

    @property
    def is_up(self) -> bool:
        """Whether readers are well served there."""
        return self.state is State.SERVING and self.is_ready


class Fleet:
    """Call ``orders()`` after whatever happened, and now and then; times are of one monotonic clock, in seconds."""

    def __init__(self, count: int, *, stop_s: float, watchdog_s: float) -> None:
        self.workers = [Worker(number) for number in range(count)]
        self._stop_s = stop_s
        self._watchdog_s = watchdog_s
        self._orders: list[Order] = []
        self._looked_at: float | None = None
        self._has_served = False
        self._is_stopping = False
        self._status = 0
        self._to_restart: list[Worker] = []
        self._restarting: Worker | None = None
        self._restart_until = 0.0
        self._restart_asked_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether all are gone and none is to come."""
        return self._is_stopping and all(worker.state is State.GONE for worker in self.workers)

    @property
    def status(self) -> int:
        """The exit status: that of a start which failed, 1 if a worker did not end well, or 0."""
        return self._status

    # What happened

    def heard(self, number: int, message: str, now: float) -> None:
        """A worker said something, in the words of sd_notify(3)."""
        worker = self.workers[number]
        worker.heard_at = now
        for line in message.split("\n"):
            key, _, value = line.partition("=")
            if key == "READY" and worker.state is State.STARTING:
                worker.state = State.SERVING
            elif key == "STATUS":
                worker.is_ready, worker.reason = value in (SERVING, LEADING), value
                worker.leads = value == LEADING
        if not self._has_served and all(each.state is State.SERVING for each in self.workers):
            self._has_served = True
            self._orders.append(Served())

    def ended(self, number: int, status: int, now: float) -> None:
        """A worker's process is no more; ``status`` is below zero for the signal that ended it."""
        worker = self.workers[number]
        was_asked, worker.is_ready = worker.state is State.LEAVING, False
        if was_asked and (worker.was_killed or status not in WELL):
            self._tell("warning", f"worker {number} did not end well", worker, status=status)
            self._status = self._status or int(self._is_stopping)
        if self._is_stopping:
            worker.state = State.GONE
        elif was_asked:
            self._start(worker, now)
        elif not self._has_served and status >= 0:
            self._tell("error", f"worker {number} cannot start, so none does", worker, status=status)
            self._status, worker.state = status or 1, State.GONE
            self.stop(now)
        else:
            self._replace(worker, status, now)

    def stop(self, now: float) -> None:
        """All are to go."""
        self._is_stopping = True
        self._to_restart.clear()
        self._restarting = None
        for worker in self.workers:
            if worker.state is State.WAITING:
                worker.state = State.GONE
            elif worker.state in (State.STARTING, State.SERVING):
                self._ask_to_go(worker, now)

    def restart(self, now: float) -> None:
        """Take one after another; who waits to be started waits no longer."""
        if self._is_stopping or not self._has_served:
            return
        for worker in self.workers:
            if worker.state is State.WAITING:
                worker.due_at = now
        self._restart_asked_at = now
        self._to_restart = list(self.workers)
        if self._restarting is None:
            self._restart_until = now + RESTART_S
        self._tell("info", "restarting the workers, one after another")

    # What is to be done

    def orders(self, now: float) -> list[Order]:
        """What is to be done now."""
        self._forgive_a_pause(now)
        for worker in self.workers:
            if worker.state is State.WAITING and worker.due_at <= now:
                self._start(worker, now)
            elif (words := self._overdue(worker, now)) is not None:
                worker.was_killed = True
                self._tell("error", f"worker {worker.number} {words}: it is killed", worker)
                self._orders.append(Stop(worker.number, at_once=True))
        self._go_on_restarting(now)
        orders, self._orders = self._orders, []
        return orders

    def _forgive_a_pause(self, now: float) -> None:
        """A machine that slept, or a process that was stopped, heard nothing of anybody."""
        if self._looked_at is not None and (paused_s := now - self._looked_at) > LATE_S:
            for worker in self.workers:
                worker.heard_at += paused_s
        self._looked_at = now

    def _overdue(self, worker: Worker, now: float) -> str | None:
        """Why a worker must be killed; ``None`` if there is no reason, or it was."""
        if worker.was_killed:
            return None
        match worker.state:
            case State.STARTING if worker.started_at + START_S <= now:
                return f"does not listen after {START_S:.0f} s"
            case State.SERVING if worker.heard_at + self._watchdog_s <= now:
                return f"has said nothing for {self._watchdog_s:.0f} s"
            case State.LEAVING if worker.due_at <= now:
                return f"was asked to go {self._stop_s:g} s ago, and has not"
        return None

    def _go_on_restarting(self, now: float) -> None:
        if self._restarting is None and not self._to_restart:
            return
        if self._restarting is not None:
            if not self._restarting.is_up:
                if self._restart_until <= now and self._restarting.state is not State.LEAVING:
                    self._give_up(self._restarting)
                return
            self._restarting = None
            self._restart_until = now + RESTART_S
        if not self._to_restart:
            self._tell("info", "all workers are restarted")
            return
        # The leader comes last: whoever takes over is one that stays.
        following = min(self._to_restart, key=lambda worker: worker.leads)
        if (missing := next(self._not_up(following), None)) is not None:
            if self._restart_until <= now:
                self._give_up(missing)
            return
        self._to_restart.remove(following)
        self._restarting = following
        self._restart_until = now + self._stop_s + RESTART_S
        if self._restarting.state is not State.WAITING and self._restarting.started_at < self._restart_asked_at:
            self._ask_to_go(self._restarting, now)

    def _not_up(self, but: Worker) -> Iterator[Worker]:
        return (worker for worker in self.workers if worker is not but and not worker.is_up)

    def _give_up(self, worker: Worker) -> None:
        self._tell(
            "error",
            f"the restart is given up: worker {worker.number} is not ready: {worker.reason}",
            not_restarted=[each.number for each in self._to_restart],
        )
        self._to_restart.clear()
        self._restarting = None

    def _replace(self, worker: Worker, status: int, now: float) -> None:
        lived_s = now - worker.started_at
        worker.short_lives = 0 if lived_s >= STABLE_S else worker.short_lives + 1
        first_s, longest_s = AGAIN_S
        again_s = 0.0 if worker.short_lives <= 1 else min(first_s * 2.0 ** (worker.short_lives - 2), longest_s)
        worker.state, worker.due_at = State.WAITING, now + again_s
        is_series = worker.short_lives >= SERIES
        words = f"worker {worker.number} ended{' again and again' if is_series else ''}: it is replaced"
        keys: dict[str, object] = {"status": status, "lived_s": round(lived_s, 1), "again_in_s": again_s}
        if is_series:
            keys["times"] = worker.short_lives
        self._tell("error" if is_series else "warning", words, worker, **keys)

    def _start(self, worker: Worker, now: float) -> None:
        worker.state = State.STARTING
        worker.was_killed = worker.is_ready = worker.leads = False
        worker.started_at = worker.heard_at = now
        worker.reason = "it does not listen yet"
        self._orders.append(Start(worker.number))

    def _ask_to_go(self, worker: Worker, now: float) -> None:
        worker.state, worker.due_at = State.LEAVING, now + self._stop_s
        self._orders.append(Stop(worker.number))

    def _tell(self, level: str, words: str, worker: Worker | None = None, **keys: object) -> None:
        named = {} if worker is None else {"worker": worker.number}
        self._orders.append(Told(level, words, {**named, **keys}))
