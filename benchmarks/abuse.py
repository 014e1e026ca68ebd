"""What becomes of everybody else, and of the server's memory, while somebody attacks: a row for each attack.

``komas serve`` has one core (Linux); the exchange, the attacker (``tests/hostile``) and the bystanders are a process
each and share the other. The attacker comes from 127.0.0.2 and up, or, where it is spread, from a hundred addresses.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import trio

from benchmarks import machine
from benchmarks.abuse_cases import ADMIN, CASES, Case
from benchmarks.bystanders import Ask, Seen, Watch, watch
from benchmarks.gauges import Costs, Memory, stopwatch, watched
from benchmarks.processes import Child, Komas, child, komas
from benchmarks.report import Row
from komas.settings import Settings
from komas.signals.database import SignalDatabase
from komas.signals.tokens import Issuer, Rules
from tests.hostile.catalogue import CLIENTS, EXCHANGES
from tests.hostile.exchange import Plan, symbol
from tests.hostile.target import Found, Target

TITLE: Final = "attacks: p99 of /healthz and of a good reader asked ≤ 50 ms, nothing lost, memory and log bounded"
SECONDS: Final = 8.0
P99_MS: Final = 50.0
ARRIVED: Final = 0.85  # of the good reader's trades; he may have had to come first
STOP_S: Final = 6.0  # five seconds of grace, and one
GRACE_S: Final = 60.0
NICE: Final = 10  # an attacker that wants its whole core leaves it to those who measure
SECRET: Final = secrets.token_urlsafe(48)
MINUTES_S: Final = 3600


def measure(names: Sequence[str], seconds: float = SECONDS, *, first: bool = False) -> Iterator[Row]:
    """A row for each attack that is named; without a name, of all of them, and of none for comparison.

    ``first`` lets what is measured go before what else the machine does.
    """
    machine.allow_many_sockets()
    for name in names or CASES:
        sys.stderr.write(f"{name}\n")
        yield _Measurement(name, CASES[name], seconds, first=first).row()


class _Measurement:
    """One attack on one server."""

    def __init__(self, name: str, case: Case, seconds: float, *, first: bool) -> None:
        self._name = name
        self._case = case
        self._seconds = seconds
        self._first = first
        self._token = Issuer(SECRET.encode(), Rules()).issue("7", now_s=int(time.time()), ttl_s=MINUTES_S, vip_days=1)
        self._found: Found = Counter()

    def row(self) -> Row:
        """Attack, and judge."""
        with TemporaryDirectory(prefix="komas-abuse-") as folder, ExitStack() as stack:
            core = machine.cores()[1]
            exchange = stack.enter_context(child(core, play, self._case.attack, self._case.plan))
            bystanders, attacker = stack.enter_context(child(core, watch)), stack.enter_context(child(core, strike))
            for each in (bystanders, attacker):
                each.hear()
            stopped = stack.enter_context(stopwatch())
            server = stack.enter_context(self._server(exchange, Path(folder)))
            memory = stack.enter_context(watched(server.pid))
            seen, costs = self._attack(server, memory, bystanders, attacker, exchange)
            exchange.tell("what was found?")
            self._found += Counter(_counts(exchange.hear()))
            log_kb = server.log.stat().st_size / 1024
            stack.callback(stopped.start)  # called first of all that is to be left
        return {
            "attack": self._name,
            "healthz p99 ms": percentile(seen.healthz_ms, 99),
            "max": max(seen.healthz_ms, default=math.nan),
            "reader p99 ms": percentile(seen.reader_ms, 99),
            "max ": max(seen.reader_ms, default=math.nan),
            "timer p99": percentile(seen.timer_ms, 99),
            "got %": 100 * len(seen.reader_ms) / (self._case.plan.pace * self._seconds),
            "lost": seen.lost,
            "denied": f"{len(seen.denied)}/{seen.asked}",
            "MB idle": memory.idle_mb,
            "peak": memory.peak_mb,
            "allowed": memory.idle_mb + self._case.more_mb,
            "log KB": log_kb,
            "stop s": stopped.took_s,
            **costs,
            "verdict": "; ".join(self._faults(seen, memory, log_kb, stopped.took_s)) or "ok",
            "found": " ".join(f"{name}: {count}" for name, count in sorted(self._found.items())),
        }

    @contextmanager
    def _server(self, exchange: Child, folder: Path) -> Iterator[Komas]:
        case = self._case
        given = {
            "upstream": f"ws://127.0.0.1:{exchange.hear()}",
            "admin_token": ADMIN,
            "jwt_secret": SECRET,
            # An older komas that is measured for comparison has not all of them.
            **{name: text for name, text in case.options.items() if name in Settings.__struct_fields__},
        }
        if case.stored[0]:
            given["database_url"] = f"sqlite:///{_stored(folder / 'signals.db', *case.stored)}"
        options = [word for name, text in given.items() for word in (f"--{name.replace('_', '-')}", text)]
        with komas(machine.cores()[0], "serve", *options, open_files=case.open_files) as server:
            if case.pinned is not None:
                _pin(server.port, case.pinned)
            yield server

    def _attack(
        self, server: Komas, memory: Memory, bystanders: Child, attacker: Child, exchange: Child
    ) -> tuple[Seen, Row]:
        case = self._case
        sources = [f"127.0.0.{2 + number}" for number in range(case.addresses)]
        symbols = [symbol(number) for number in range(case.plan.symbols - 100)]  # the rest is for newcomers
        if self._first:
            for pid, priority in ((server.pid, 1), (exchange.pid, 1), (bystanders.pid, 2)):
                machine.go_first(pid, priority)
        bystanders.tell(Watch(server.port, case.baits, case.asks, case.is_read_before))
        bystanders.hear()
        memory.begin()
        costs = Costs(server.pid, exchange.pid, bystanders.pid, attacker.pid, os.getpid())
        target = Target("127.0.0.1", server.port, sources, self._token, symbols)
        attacker.tell((case.attack, target, self._seconds))
        bystanders.tell(self._seconds)
        seen = bystanders.hear(self._seconds + GRACE_S)
        self._found += Counter(_counts(attacker.hear(GRACE_S)))
        assert isinstance(seen, Seen)
        return seen, costs.row()

    def _faults(self, seen: Seen, memory: Memory, log_kb: float, stop_s: float) -> Iterator[str]:
        case = self._case
        yield from _late(seen)
        if len(seen.reader_ms) < ARRIVED * case.plan.pace * self._seconds:
            yield "reader waits"
        if memory.peak_mb > memory.idle_mb + case.more_mb:
            yield "memory"
        if log_kb > case.log_kb:
            yield "log"
        if stop_s > STOP_S:
            yield "stop"
        for name, most in case.at_most.items():
            if self._found[name] > most:
                yield f"{name}: {self._found[name]}, not {most}"


def _late(seen: Seen) -> Iterator[str]:
    """What went wrong for the bystanders."""
    for name, values in (("healthz", seen.healthz_ms), ("reader", seen.reader_ms)):
        if not percentile(values, 99) <= P99_MS:  # of nothing it is NaN
            yield f"{name} late"
    if seen.lost or seen.cut or seen.notices:
        yield f"reader lost {seen.lost}, was cut {seen.cut} times, was told {seen.notices[:1]}"
    if seen.denied:
        yield f"denied: {seen.denied[0]}"


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else math.nan


def _counts(told: object) -> dict[str, int]:
    assert isinstance(told, dict)
    return told


# Processes


def play(pipe: Connection, attack: str, plan: Plan) -> None:
    """The exchange: says its port, and, asked, what it found."""
    exchange = EXCHANGES[attack]() if attack in EXCHANGES else EXCHANGES["honest"](plan)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            pipe.send(await nursery.start(exchange.serve, "127.0.0.1:0"))
            await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            pipe.send(dict(exchange.found))
            await trio.sleep_forever()

    trio.run(run)


def strike(pipe: Connection) -> None:
    """The attacker: goes on for as long as it is told, and says what it found."""
    found: Found = Counter()

    async def run(attack: str, target: Target, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await CLIENTS[attack](target, found)

    if hasattr(os, "nice"):
        os.nice(NICE)
    pipe.send("up")
    orders = pipe.recv()
    if orders[0] in CLIENTS:
        trio.run(run, *orders)
    pipe.send(dict(found))
    pipe.poll(None)


# The server


def _pin(port: int, ask: Ask) -> None:
    """Let the administrator subscribe, and wait until everything has a price."""
    headers = {"Authorization": f"Bearer {ask.token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=GRACE_S, headers=headers) as client:
        answer = client.post(ask.path, content=ask.body)
        answer.raise_for_status()
        wanted, deadline = len(answer.json()["subscribed"]), time.monotonic() + GRACE_S
        while client.get("/api/ws/prices").json()["count"] < wanted and time.monotonic() < deadline:
            time.sleep(0.2)


def _stored(file: Path, count: int, size: int) -> Path:
    """A database of so many signals, written past the service, which would sync each to the disk."""
    database = SignalDatabase(file)
    database.open()
    database.close()
    now_ms, data = int(time.time() * 1000), json.dumps({"coin_name": "NB", "position": "L" * size})
    numbers = range(1, count + 1)
    with sqlite3.connect(file) as connection:
        connection.executemany(
            "insert into signals (id, signal_type, data, created_ms, updated_ms, published_by, draft_digest) "
            "values (?, 'mexc_dex', ?, ?, ?, '2', '')",
            ((number, data, now_ms, now_ms) for number in numbers),
        )
        connection.executemany(
            "insert into events (position, signal_id, is_new, data, at_ms) values (?, ?, 1, ?, ?)",
            ((number, number, data, now_ms) for number in numbers),
        )
        connection.execute("update counters set value = ? where name in ('signal', 'position')", (count,))
    connection.close()
    return file
