"""``kill -9`` in mid-publish, round after round: what was committed and answered is there, once, under one id.

    python -m benchmarks kills --rounds 10000

Each round forks a process that publishes through the signal service, as a server does, and kills it at a random
moment. Nothing here is a speed: it prints what was lost, what came twice and what a retry doubled, and the exit status
is 1 if anything did. Not on Windows, which cannot fork.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from komas.cli.progress import counted
from komas.model.signals import Principal, SignalInsert
from komas.settings import Settings
from komas.signals.database import SignalDatabase
from komas.signals.services import open_signals
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import NewSignal

PRODUCER: Final = Principal("producer", 0, scopes=frozenset({SCOPE_PUBLISH}))
LIVES_S: Final = (0.001, 0.06)
AT_ONCE: Final = 4
TYPE: Final = "mexc_dex"


def run(rounds: int, seed: int) -> bool:
    """Kill so often; whether everything was as it must be."""
    chance = random.Random(seed)
    answered: dict[str, int] = {}
    with TemporaryDirectory(prefix="komas-kills-") as name:
        folder = Path(name)
        ledger = SignalDatabase(folder / "komas.db")
        ledger.open()
        ledger.close()
        for life in counted(range(rounds), "kill"):
            said = _live(folder, life, chance.uniform(*LIVES_S))
            for line in said.split(b"\n")[:-1]:
                key, number = line.decode().split()
                answered[key] = int(number)
        return _judge(folder, answered, rounds)


def _live(folder: Path, life: int, seconds: float) -> bytes:
    """One process from its fork to its death; returns what it said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            trio.run(_publish, folder, life, writer)
        finally:
            os._exit(3)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        first = pipe.read1(1)  # it has begun to answer: death may come at any moment from here on
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return first + pipe.read()


async def _publish(folder: Path, life: int, writer: int) -> None:
    settings = Settings(data_dir=folder, jwt_secret="x" * 32)
    async with open_signals(settings, lambda: 0) as rooms, trio.open_nursery() as nursery:
        nursery.start_soon(rooms.service.run)

        async def produce(line: int) -> None:
            number = 0
            while True:
                key = f"{life}-{line}-{number}"
                event = await rooms.service.publish(PRODUCER, NewSignal(TYPE, {"key": key}), key)
                os.write(writer, f"{key} {event.signal_id}\n".encode())
                number += 1

        for line in range(AT_ONCE):
            nursery.start_soon(produce, line)


def _judge(folder: Path, answered: dict[str, int], rounds: int) -> bool:
    ledger = SignalDatabase(folder / "komas.db")
    ledger.open()
    known: dict[int, str] = {}
    while page := ledger.signals_after(max(known, default=0), 1000):
        for signal_ in page:
            known[signal_.id] = bytes(signal_.data).decode()
    lost = [key for key, number in answered.items() if f'"key":"{key}"' not in known.get(number, "")]
    ids = sorted(known)
    positions = ledger.counters().position
    doubled = 0
    for key, number in list(answered.items())[-500:]:
        event, _ = ledger.publish(SignalInsert(TYPE, {"key": key}, PRODUCER.subject, key), 0)
        doubled += event.signal_id != number
    doubled += ledger.counters().position - positions
    repeated = len(answered) - len(set(answered.values()))
    ledger.close()
    print(
        f"{rounds} kills: {len(answered)} signals answered, {len(ids)} in the store, {len(lost)} lost, "
        f"{repeated} ids given twice, {doubled} doubled by a retry, "
        f"{'dense' if ids == list(range(1, len(ids) + 1)) == list(range(1, positions + 1)) else 'NOT dense'}"
    )
    sys.stdout.flush()
    return not lost and not repeated and not doubled and ids == list(range(1, positions + 1)) and len(answered) > rounds
