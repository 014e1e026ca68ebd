"""Which worker is started, asked to go, or killed, and when: times are numbers."""

from __future__ import annotations

import pytest

from komas.systemd import LEADING
from komas.workers.fleet import (
    AGAIN_S,
    RESTART_S,
    SERIES,
    STABLE_S,
    START_S,
    Fleet,
    Order,
    Served,
    Start,
    State,
    Stop,
    Told,
)

STOP_S = 10.0
WATCHDOG_S = 15.0
READY = "READY=1\nSTATUS=serving"


class Run:
    """A fleet, a clock, and what was ordered; workers that live say so every second."""

    def __init__(self, count: int = 3) -> None:
        self.fleet = Fleet(count, stop_s=STOP_S, watchdog_s=WATCHDOG_S)
        self.now = 100.0
        self.silent = set[int]()
        self.told: list[Told] = []
        self.ordered: list[Order] = []

    def look(self) -> list[Order]:
        """What is ordered now, but for the log."""
        orders = self.fleet.orders(self.now)
        self.told += [order for order in orders if isinstance(order, Told)]
        new: list[Order] = [order for order in orders if not isinstance(order, Told)]
        self.ordered += new
        return new

    def wait(self, seconds: float) -> list[Order]:
        """What is ordered while time passes."""
        orders: list[Order] = []
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 1, until)
            for worker in self.fleet.workers:
                if worker.state is State.SERVING and worker.number not in self.silent:
                    self.fleet.heard(worker.number, "WATCHDOG=1", self.now)
            orders += self.look()
        return orders

    def say(self, number: int, message: str = READY) -> list[Order]:
        """A worker says something."""
        self.fleet.heard(number, message, self.now)
        return self.look()

    def end(self, number: int, status: int = 0) -> list[Order]:
        """A worker's process ends."""
        self.fleet.ended(number, status, self.now)
        return self.look()

    def words(self) -> str:
        """What the log has."""
        return "\n".join(told.words for told in self.told)


def _serving(count: int = 3) -> Run:
    run = Run(count)
    run.look()
    for number in range(count):
        run.say(number)
    run.wait(60)
    run.ordered.clear()
    return run


def test_all_are_started_and_one_word_says_that_all_listen() -> None:
    """Once: neither while one is missing nor after a replacement."""
    run = Run()
    assert run.look() == [Start(0), Start(1), Start(2)]
    assert run.say(0) == run.say(2) == []
    assert run.say(1) == [Served()]
    run.end(0, -9)
    assert run.say(0) == []


def test_a_worker_that_dies_is_replaced_at_once_and_the_log_has_its_status() -> None:
    """The others are not touched."""
    run = _serving()
    assert run.end(1, -9) == [Start(1)]
    assert run.told[-1].keys["status"] == -9
    assert run.told[-1].keys["worker"] == 1
    assert not run.fleet.is_over


@pytest.mark.parametrize("status", [0, 1, 2, -11])
def test_whatever_the_end_of_a_worker_that_served_another_comes(status: int) -> None:
    """Also one that somebody asked to go."""
    assert _serving().end(2, status) == [Start(2)]


def test_who_dies_again_and_again_is_started_later_and_later_and_that_is_an_error() -> None:
    """A loop of starts would take the machine from those who serve; who then lives is no longer part of it."""
    run = _serving()
    waits = []
    for _ in range(9):
        asked_at = run.now
        started = run.end(0, 1)
        while Start(0) not in started:
            started = run.wait(0.5)
        waits.append(run.now - asked_at)
    first_s, longest_s = AGAIN_S
    assert waits == [0, 0, first_s, 1, 2, 4, 8, 16, longest_s]
    assert [told.level for told in run.told][:SERIES] == ["warning"] * SERIES
    assert run.told[SERIES].level == "error"
    assert "again and again" in run.told[SERIES].words
    run.say(0)
    run.wait(STABLE_S)
    assert run.end(0, 1) == [Start(0)]
    assert "again and again" not in run.told[-1].words


@pytest.mark.parametrize("status", [1, 2])
def test_a_worker_that_cannot_start_ends_the_start_of_all_with_its_status(status: int) -> None:
    """As one process does: a wrong setting is nothing to try again."""
    run = Run()
    run.look()
    run.say(0)
    assert run.end(1, status) == [Stop(0), Stop(2)]
    assert run.end(0) == run.end(2, -15) == []
    assert run.fleet.is_over
    assert run.fleet.status == status


def test_a_worker_that_is_killed_while_all_start_is_replaced() -> None:
    """By the kernel, short of memory: that is no wrong setting."""
    run = Run()
    run.look()
    assert run.end(1, -9) == [Start(1)]


@pytest.mark.parametrize("status", [-15, -2, 130])
def test_a_stop_asks_all_and_is_over_when_the_last_has_gone(status: int) -> None:
    """Status 0, also where one had not begun to listen to signals, or heard the terminal's Ctrl-C itself."""
    run = _serving()
    run.end(2, -9)
    run.fleet.stop(run.now)
    assert run.look() == [Stop(0), Stop(1), Stop(2)]
    run.end(0)
    run.end(2, status)
    assert not run.fleet.is_over
    assert run.end(1) == []
    assert run.fleet.is_over
    assert run.fleet.status == 0


def test_who_does_not_go_in_time_is_killed_and_the_status_says_so() -> None:
    """A worker that hangs does not hold up the stop of all."""
    run = _serving(2)
    run.fleet.stop(run.now)
    run.look()
    run.end(0)
    assert run.wait(STOP_S - 1) == []
    assert run.wait(1) == [Stop(1, at_once=True)]
    assert run.wait(60) == []  # once
    run.end(1, -9)
    assert run.fleet.is_over
    assert run.fleet.status == 1


def test_a_stop_starts_nobody_who_waited() -> None:
    """One in a series of deaths is simply gone."""
    run = _serving(1)
    for _ in range(4):
        run.end(0, 1)
        run.look()
        if run.fleet.workers[0].state is State.WAITING:
            break
    run.fleet.stop(run.now)
    assert run.wait(60) == []
    assert run.fleet.is_over


def test_a_worker_that_says_nothing_is_killed_and_replaced() -> None:
    """Its event loop hangs, or it was stopped: newcomers wait there."""
    run = _serving()
    run.silent.add(1)
    assert run.wait(WATCHDOG_S) == [Stop(1, at_once=True)]
    assert run.end(1, -9) == [Start(1)]


def test_a_worker_that_never_listens_is_killed() -> None:
    """Its start hangs."""
    run = Run(1)
    run.look()
    assert run.wait(START_S) == [Stop(0, at_once=True)]


def test_a_machine_that_slept_kills_nobody() -> None:
    """All were silent, because nobody ran; from then on the watch goes on."""
    run = _serving()
    run.now += 3600
    assert run.look() == []
    run.silent.add(2)
    assert run.wait(WATCHDOG_S) == [Stop(2, at_once=True)]


def test_a_restart_takes_one_after_another_each_when_the_others_are_ready() -> None:
    """Listening is not enough: readers need what the backplane brings."""
    run = _serving(2)
    run.fleet.restart(run.now)
    assert run.look() == [Stop(0)]
    assert run.wait(2) == []
    assert run.end(0) == [Start(0)]
    assert run.say(0, "READY=1\nSTATUS=not ready: nothing was read of the backplane yet") == []
    assert run.wait(5) == []
    assert run.say(0, "STATUS=serving") == [Stop(1)]
    assert run.end(1) == [Start(1)]
    assert run.say(1) == []
    assert run.told[-1].words == "all workers are restarted"
    assert run.wait(600) == []


def test_a_restart_takes_the_leader_last() -> None:
    """Readers wait for a moment when somebody else leads: first of all, that was once for each worker."""
    run = _serving()
    run.say(0, f"STATUS={LEADING}")
    run.fleet.restart(run.now)
    assert run.look() == [Stop(1)]
    run.end(1)
    assert run.say(1) == [Stop(2)]
    run.end(2)
    assert run.say(2) == [Stop(0)]
    run.end(0)
    run.say(0)
    assert run.told[-1].words == "all workers are restarted"


def test_a_restart_waits_for_a_worker_that_is_being_replaced() -> None:
    """Two at a time would be missing."""
    run = _serving()
    run.end(2, -9)
    run.fleet.restart(run.now)
    assert run.look() == []
    assert run.say(2) == [Stop(0)]


def test_a_restart_that_goes_wrong_touches_nobody_else() -> None:
    """The new code does not come up: who runs the old one goes on."""
    run = _serving()
    run.fleet.restart(run.now)
    run.look()
    run.end(0)
    for _ in range(100):
        if run.fleet.workers[0].state is State.STARTING:
            run.end(0, 1)
        run.wait(1)
    assert "the restart is given up: worker 0 is not ready" in run.words()
    assert next(told for told in run.told if "given up" in told.words).keys == {"not_restarted": [1, 2]}
    assert {order.number for order in run.ordered if isinstance(order, Stop)} == {0}


def test_a_restart_is_given_up_where_others_stay_unready() -> None:
    """For as long as Redis is away, say; it does not come hours later, when nobody expects it."""
    run = _serving(2)
    run.say(1, "STATUS=not ready: backplane: connection refused")
    run.fleet.restart(run.now)
    assert run.wait(RESTART_S + 1) == []
    assert "worker 1 is not ready: not ready: backplane: connection refused" in run.words()
    run.say(1, "STATUS=serving")
    assert run.wait(600) == []


def test_a_restart_starts_who_waits_for_its_turn_at_once() -> None:
    """What kept it from starting may just have been mended."""
    run = _serving(1)
    for _ in range(6):
        while run.fleet.workers[0].state is State.WAITING:
            run.wait(1)
        run.end(0, 1)
    assert run.look() == []
    run.fleet.restart(run.now)
    assert run.look() == [Start(0)]
    assert run.say(0) == []
    assert run.told[-1].words == "all workers are restarted"


def test_a_second_restart_in_the_middle_of_one_begins_anew() -> None:
    """What was changed meanwhile reaches all of them, and no two go at once."""
    run = _serving(2)
    run.fleet.restart(run.now)
    run.look()
    run.end(0)
    run.say(0)
    run.wait(1)
    run.fleet.restart(run.now)
    assert run.look() == []
    run.end(1)
    assert run.say(1) == [Stop(0)]
    run.end(0)
    run.say(0)
    assert run.wait(60) == []
    assert {worker.state for worker in run.fleet.workers} == {State.SERVING}


def test_a_worker_that_does_not_go_for_a_restart_is_killed_and_started_anew() -> None:
    """The restart goes on."""
    run = _serving(2)
    run.fleet.restart(run.now)
    run.look()
    assert run.wait(STOP_S) == [Stop(0, at_once=True)]
    assert run.end(0, -9) == [Start(0)]
    assert run.say(0) == [Stop(1)]
    assert run.fleet.status == 0


def test_a_stop_ends_a_restart() -> None:
    """Nobody is started any more."""
    run = _serving(2)
    run.fleet.restart(run.now)
    run.look()
    run.fleet.stop(run.now)
    assert run.look() == [Stop(1)]
    assert run.end(0) == run.end(1) == []
    assert run.fleet.is_over
    run.fleet.restart(run.now)
    assert run.wait(60) == []


def test_no_restart_while_all_start() -> None:
    """They are new."""
    run = Run()
    run.look()
    run.fleet.restart(run.now)
    assert run.wait(60) == []
