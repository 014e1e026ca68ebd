"""The attackers of ``tests/hostile`` run; ``python -m benchmarks abuse`` measures what becomes of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.e2e.processes import PATIENCE_S, ROOT, events, running, serving

HOSTILE = [sys.executable, "-m", "tests.hostile"]
ATTACKS = ("lingering-streams", "books-of-one-address", "unread-prices")


def test_every_attack_is_listed_with_what_it_does() -> None:
    """A name and a sentence each."""
    done = subprocess.run(
        [*HOSTILE, "--list"], capture_output=True, text=True, check=True, cwd=ROOT, timeout=PATIENCE_S
    )
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert {*ATTACKS, "gzip-bomb"} <= {row[0] for row in rows}
    assert all(len(row) == 2 for row in rows)


def test_a_good_reader_loses_nothing_while_others_attack(tmp_path: Path) -> None:
    """Three attackers at once; every trade comes once and in order, and no notice of a loss."""
    with ExitStack() as stack:
        exchange = stack.enter_context(running([*HOSTILE, "honest", "--bind", "127.0.0.1:0"]))
        upstream = exchange.line(r"listens on (ws://\S+)")[1]
        server = stack.enter_context(serving(tmp_path, "--upstream", upstream))
        answer = stack.enter_context(server.http.stream("GET", "/api/ws/sse/trades?symbol=BTCUSDT"))
        heard = ((name, data) for name, data, _ in events(answer))
        begun = next(json.loads(data) for name, data in heard if name == "message")
        attacks = [
            stack.enter_context(running([*HOSTILE, name, "--url", server.url, "--seconds", "1"])) for name in ATTACKS
        ]
        numbers = [begun["data"]["trade_id"]]
        while any(attack.is_alive() for attack in attacks):
            name, data = next(heard)
            assert name in {"message", "status", "health"}, data
            if name == "message":
                numbers.append(json.loads(data)["data"]["trade_id"])
        assert [attack.ended() for attack in attacks] == [0, 0, 0]
        assert all(isinstance(json.loads(attack.output[-1]), dict) for attack in attacks)  # what each found
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 1
        assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_S).json() == {"status": "ok"}
