"""Chaos on real sockets: ``komas simulate`` misbehaves, ``komas serve`` must deliver, and must not grow.

    python -m benchmarks.soak --seconds 600 --seed 1

Two processes, loopback, SSE clients as a browser would be. Each few seconds a fault strikes the double by its own
control call. At the end every trade that a client read is compared with the double's REST, and the memory and the
tasks of the server at the beginning with those at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import msgspec

from benchmarks import machine
from benchmarks.chaos import MEAN_PAUSE_S, SYMBOLS, Mischief
from komas.simulator import fault_script

START_S: Final = 20.0
WARM_S: Final = 30.0  # in which nothing goes wrong, at the beginning and at the end
OUTAGE_S: Final = 60.0  # longer than any outage
SAMPLE_S: Final = 5.0
SHOWN: Final = 10  # of trades that are not the double's
PAGE: Final = 1000


class Reader(threading.Thread):
    """One SSE client of one symbol's trades."""

    def __init__(self, url: str, symbol: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/api/ws/sse/trades?symbol={symbol}"
        self.symbol = symbol
        self.trades: list[tuple[int, str, str]] = []
        self.declared: list[tuple[int, int]] = []
        self.backfilled = 0
        self.others: dict[str, int] = {}

    def run(self) -> None:
        """Read until the server ends."""
        name = "message"
        try:
            with httpx.stream("GET", self._url, timeout=60) as response:
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        self._take(name, line.removeprefix("data: "))
                        name = "message"
        except httpx.TransportError:
            return  # the server was stopped

    def _take(self, name: str, text: str) -> None:
        if name == "message":
            found = json.loads(text, parse_float=str, parse_int=str)
            data = found["data"]
            self.trades.append((int(data["trade_id"]), data["price"], data["quantity"]))
            self.backfilled += "backfilled" in found
        elif name == "gap":
            gap = json.loads(text)
            self.declared.append((gap["from"], gap["to"]))
        else:
            self.others[name] = self.others.get(name, 0) + 1


class Sample(msgspec.Struct):
    """The server at one moment."""

    at_s: float
    rss_mb: float
    tasks: int


def run(seconds: float, seed: int) -> bool:
    """Soak for so long; whether everything was as it must be."""
    with (
        TemporaryDirectory(prefix="komas-soak-") as folder,
        _simulate(seed) as sim,
        _serve(sim, Path(folder)) as server,
    ):
        url, pid = server
        readers = [Reader(url, symbol) for symbol in SYMBOLS]
        for reader in readers:
            reader.start()
        samples = _misbehave(sim, url, pid, seconds, seed)
        time.sleep(WARM_S)
        return _judge(sim, readers, samples)


def _misbehave(sim: str, url: str, pid: int, seconds: float, seed: int) -> list[Sample]:
    """Let faults strike, and look at the server now and then."""
    mischief = Mischief(seed, MEAN_PAUSE_S)
    samples: list[Sample] = []
    begun, faults = time.monotonic(), 0
    strike_at, sample_at = begun + WARM_S, begun + WARM_S / 2
    while (now := time.monotonic()) < begun + seconds:
        if now >= sample_at:
            samples.append(_sample(url, pid, now - begun))
            sample_at = now + SAMPLE_S
        if now >= strike_at:
            strike_at = now + mischief.pause_s()
            faults += 1
            dials = len(_control("GET", f"{sim}/sim/state").json()["dials"])
            _strike(sim, url, mischief.fault(range(max(1, dials - 3), dials + 1)))
        time.sleep(0.05)
    _control("DELETE", f"{sim}/sim/faults")
    time.sleep(WARM_S)
    samples.append(_sample(url, pid, time.monotonic() - begun))
    print(f"{faults} faults in {seconds:g} s")
    return samples


def _strike(sim: str, url: str, fault: fault_script.AnyFault | None) -> None:
    if fault is None:
        httpx.post(f"{url}/api/ws/rotate", timeout=30).raise_for_status()
    else:
        _control("POST", f"{sim}/sim/faults", msgspec.json.encode(fault))


def _control(method: str, url: str, body: bytes = b"") -> httpx.Response:
    """Call the double; in an outage there is nobody to call, and it will be over."""
    deadline = time.monotonic() + OUTAGE_S
    while True:
        try:
            return httpx.request(method, url, content=body, timeout=30).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _sample(url: str, pid: int, at_s: float) -> Sample:
    found = re.search(r"^komas_tasks (\d+)", httpx.get(f"{url}/metrics", timeout=30).text, re.MULTILINE)
    assert found is not None
    return Sample(at_s, machine.resident_kb(pid) / 1024, int(found[1]))


def _judge(sim: str, readers: list[Reader], samples: list[Sample]) -> bool:
    """Compare, and print what was found."""
    lost = doubled = out_of_order = changed = 0
    for reader in readers:
        numbers = [number for number, _, _ in reader.trades]
        truth = _truth(sim, reader.symbol, numbers[0], numbers[-1]) if numbers else {}
        declared = {number for low, high in reader.declared for number in range(low, high + 1)}
        seen = set(numbers)
        lost += sum(number not in seen and number not in declared for number in truth)
        doubled += len(numbers) - len(seen)
        out_of_order += sum(later < earlier for earlier, later in itertools.pairwise(numbers))
        differing = [trade for trade in reader.trades if truth.get(trade[0]) != trade[1:]]
        changed += len(differing)
        for number, price, size in differing[:SHOWN]:
            print(f"{reader.symbol} trade {number}: read {price}, {size}; the double has {truth.get(number)}")
        print(
            f"{reader.symbol}: {len(numbers)} trades, {reader.backfilled} backfilled, "
            f"{len(declared)} declared missing, notices {reader.others}"
        )
    first, last = samples[0], samples[-1]
    print(f"lost {lost}, doubled {doubled}, out of order {out_of_order}, changed {changed}")
    peak = max(samples, key=lambda sample: sample.rss_mb)
    print(f"memory {first.rss_mb:.1f} MiB → {last.rss_mb:.1f} MiB (peak {peak.rss_mb:.1f})")
    print(f"tasks {first.tasks} → {last.tasks}")
    return not any((lost, doubled, out_of_order, changed)) and last.tasks <= first.tasks + 2


def _truth(sim: str, symbol: str, first: int, last: int) -> dict[int, tuple[str, str]]:
    """Every trade between two ids, by the double's REST."""
    rows: dict[int, tuple[str, str]] = {}
    while first <= last:
        query = {"symbol": symbol, "fromId": str(first), "limit": str(PAGE)}
        answer = httpx.get(f"{sim}/api/v3/historicalTrades", params=query, timeout=30)
        if answer.status_code != httpx.codes.OK:
            time.sleep(float(answer.headers.get("retry-after", "5")))
            continue
        page = answer.json()
        rows |= {row["id"]: (row["price"], row["qty"]) for row in page if row["id"] <= last}
        first += max(1, len(page))
    return rows


@contextmanager
def _simulate(seed: int) -> Iterator[str]:
    symbols = ",".join(SYMBOLS)
    command = ("simulate", "--bind", "127.0.0.1:0", "--seed", str(seed), "--symbols", symbols)
    with _process(*command) as process:
        yield _address(process, r"(http://[\d.]+:\d+)")


@contextmanager
def _serve(sim: str, folder: Path) -> Iterator[tuple[str, int]]:
    upstream = sim.replace("http://", "ws://")
    command = ("serve", "--bind", "127.0.0.1:0", "--upstream", upstream, "--data-dir", str(folder))
    with _process(*command) as process:
        yield _address(process, r"komas listens on (http://[\d.]+:\d+)"), process.pid


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "komas", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen[str], pattern: str) -> str:
    """Where it says that it listens."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := re.search(pattern, process.stdout.readline()):
            return found[1]
    raise TimeoutError(f"no {pattern} within {START_S:g} s")


def main() -> None:
    """Run it; exit status 1 when anything was lost, or when the server grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(not run(options.seconds, options.seed))


if __name__ == "__main__":
    main()
