"""Chaos in a cluster: whether every event reaches every reader once and in order, whatever happens to its processes.

    python -m benchmarks.cluster_chaos --faults 1000 --seed 1

Real processes: three times ``komas serve``, one ``komas simulate``, Redis or Valkey with a replica, PostgreSQL; TCP
ports between nodes and store that can be cut. Readers of trades, of candles, of many streams and of the WebSocket go
from node to node and come back with their last place. What they received is compared with the exchange's tape, and at
the end every node with every other: each is asked for the same past. VIPs go from node to node, too, while signals are
published at any: each that was answered must reach each VIP once, and in order. Where PostgreSQL or psycopg is not
installed, there are no signals. Exit status 1 if anything was lost, doubled, out of order, changed or needlessly
declared missing. A run cannot be played again exactly: a seed decides what is struck, not the machine's pace. Linux,
and whatever else has SIGSTOP.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import sys
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

import trio

from benchmarks.cluster.database import database_command
from benchmarks.cluster.faults import LOSING, TRIMMED, Faults, beside
from benchmarks.cluster.ledger import Ledger
from benchmarks.cluster.namespaces import can_separate
from benchmarks.cluster.programs import wait_until
from benchmarks.cluster.readers import (
    EventReader,
    Reader,
    SocketReader,
    path_of,
    read_event,
    read_tape,
    server_sent_events,
)
from benchmarks.cluster.servers import Server, World, open_world
from benchmarks.cluster.vips import Habits, Signals, Verdict
from benchmarks.report import Row, table

TITLE: Final = "a cluster of three nodes: what its readers received"
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
TRADES: Final = tuple(f"{symbol.lower()}@trade" for symbol in SYMBOLS)
CANDLES: Final = tuple(f"{symbol.lower()}@kline_1s" for symbol in SYMBOLS[:2])
SINGLE: Final = 2  # readers of each stream by itself
MANY: Final = 3  # readers of all of them
PAUSE_S: Final = (0.3, 2.0)
BEGIN_S: Final = 3.0
CALM_S: Final = 1.0  # in which a node that has just started reads the log
READY_S: Final = 40.0
QUIET_S: Final = 5.0
CAUGHT_UP_S: Final = 30.0
FRESH_S: Final = 0.5  # before a fault, within which a reader must have heard something to be asked about it
LOOK_S: Final = 10.0  # after a fault, in which a silence is its
SHOWN: Final = 40  # findings
DECLARED: Final = "gap:"  # what a node says of its past that it has not got, and need not be like that of others
TWO_AT_ONCE: Final = 0.25  # so often a process fails beside something else
ASK_S: Final = 2.0
PAST_S: Final = 30.0  # before the end, from which on every node is asked for everything
VIPS: Final = 6
OF_VIPS: Final = Habits(stays_s=(1.0, 8.0), away_s=(0.1, 1.0), pace_s=0.3, hasty=0.2)


class Run:
    """One run, in an open world."""

    def __init__(
        self, world: World, ledger: Ledger, seed: int, lease_s: float, *, secret: str = "", verbose: bool = False
    ) -> None:
        self._world = world
        self.ledger = ledger
        self.dice = random.Random(seed)
        self._faults = Faults(world, self.dice, lease_s)
        self._verbose = verbose
        self.struck = 0
        self.silences: dict[str, list[float]] = {}
        self.stuck = 0
        self.behind = 0
        self.unlike = 0
        self.readers = list(self._make_readers(seed))
        self.signals = Signals(world, secret, VIPS, OF_VIPS, seed=seed) if world.database is not None else None
        self.verdict = Verdict()

    def _make_readers(self, seed: int) -> Sequence[Reader]:
        world, ledger = self._world, self.ledger
        every = (*TRADES, *CANDLES)
        readers: list[Reader] = [
            EventReader(world, ledger, f"single{number}", [stream], seed=hash((seed, stream, number)))
            for stream in every
            for number in range(SINGLE)
        ]
        readers += [EventReader(world, ledger, f"many{number}", every, seed=seed + number) for number in range(MANY)]
        readers.append(SocketReader(world, ledger, "socket", every, seed=seed))
        readers += [
            EventReader(world, ledger, f"bound to {node.name}", every, bound=node, seed=seed) for node in world.nodes
        ]
        return readers

    async def go(self, faults: int, names: Sequence[str]) -> None:
        """Strike so often, then wait for quiet and compare."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_tape, self._world, self.ledger, (*TRADES, *CANDLES))
            for reader in self.readers:
                nursery.start_soon(reader.run)
            if self.signals is not None:
                await self.signals.start(nursery)
            await trio.sleep(BEGIN_S)
            if await self._world.leader() is None:
                raise RuntimeError("nobody leads, or it is not known who does")
            for number in range(faults):
                name = self.dice.choice(names)
                others = beside(name, names)
                another = self.dice.choice(others) if others and self.dice.random() < TWO_AT_ONCE else None
                await self._strike(name, another, f"{number + 1:4}")
            await self._settle()
            nursery.cancel_scope.cancel("over")
        await self._compare()

    async def _strike(self, name: str, another: str | None, number: str) -> None:
        if name in LOSING:  # somebody must be left who knows what it knew
            await self._world.ready(len(self._world.nodes), READY_S)
            await trio.sleep(CALM_S)
        at = trio.current_time()
        leader = await self._world.leader()
        seen = len(self.ledger.findings)
        self.ledger.excuses_gaps |= TRIMMED in (name, another)
        said = await self._faults.strike(name, another)
        name = _named(name, said, leader) if another is None else f"{name} and {another}"
        self.struck += 1
        await trio.sleep(self.dice.uniform(*PAUSE_S))
        if not await self._world.ready(len(self._world.nodes) - 1, READY_S):
            self.stuck += 1
            self._say(f"{number} {name}: the cluster is not ready after {READY_S:g} s")
        silent_s = self._longest_silence(at, said)
        if silent_s is not None:
            self.silences.setdefault(name if another is None else "two at once", []).append(silent_s)
        if self._verbose:
            began = at - self._world.began
            led = leader.name if leader is not None else "nobody"
            silence = "nobody stayed" if silent_s is None else f"silent for {silent_s:.2f} s"
            print(f"{began:8.2f} s  {number} {name}: {said}; {led} led; {silence}", flush=True)
            for finding in self.ledger.findings[seen:]:
                print("   ", finding, flush=True)

    def _longest_silence(self, at: float, said: str) -> float | None:
        """Of readers that stayed at nodes that were not struck; ``None`` where there was none."""
        now = trio.current_time()
        longest: float | None = None
        for reader in self.readers:
            if reader.bound is None or reader.at in said or any(cut >= at for cut in reader.cut_at):
                continue
            since = [(began, length) for began, length in reader.silences if began + length > at]
            if any(began < at - FRESH_S for began, _ in since) or reader.heard_at < at - FRESH_S:
                continue  # it was silent before
            own = max([length for began, length in since if began < at + LOOK_S], default=0.0)
            longest = max(longest or 0.0, own, now - reader.heard_at)
        return longest

    def _say(self, words: str) -> None:
        self.ledger.find(words)

    async def _settle(self) -> None:
        """Nothing goes wrong any more: everybody must have everything that the exchange said by now."""
        await self._world.ready(len(self._world.nodes), READY_S)
        if self.signals is not None:
            await self.signals.publisher.finish()
        await trio.sleep(QUIET_S)
        newest = {stream: max(said) for stream, said in self.ledger.tape.said.items()}
        accounts = [(account, reader) for reader in self.readers for account in reader.accounts.values()]

        async def have_all() -> bool:
            return all((account.last or 0) >= newest[account.stream] for account, _ in accounts)

        with suppress(trio.TooSlowError):
            await wait_until(have_all, CAUGHT_UP_S)
        for account, reader in accounts:
            if (account.last or 0) < newest[account.stream]:
                self.behind += 1
                self._say(f"{reader.name} at {reader.at}: {account.stream} ends at {account.last}")
        if self.signals is not None:
            await self.signals.all_have_all(CAUGHT_UP_S)
            self.verdict = self.signals.judge()
            for finding in self.verdict.findings:
                self._say(finding)

    async def _compare(self) -> None:
        """Ask every node for the same past."""
        for stream, number in self.ledger.tape.compare():
            self.ledger.counts.changed += 1
            self._say(f"{stream} {number} is not what the exchange said")
        singles = {reader.streams[0]: reader for reader in self.readers if len(reader.streams) == 1}
        many = next(reader for reader in self.readers if len(reader.streams) > 1)
        for reader in (*singles.values(), many):
            places = reader.places[reader.streams[0]]
            place = next(place for place in places if place.at_s >= places[-1].at_s - PAST_S)
            asked = await self._pasts(reader.streams, place.text)
            pasts = [past for past in asked if not any(DECLARED in said for _, said in past)] or asked
            length = min(map(len, pasts))
            if not length or any(past[:length] != pasts[0][:length] for past in pasts):
                self.unlike += 1
                self._say(f"{reader.streams}: nodes differ after {place.text}: {_difference(pasts)}")

    async def _pasts(self, streams: Sequence[str], place: str) -> list[list[tuple[str, str]]]:
        """What each node tells."""
        pasts: list[list[tuple[str, str]]] = [[] for _ in self._world.nodes]
        async with trio.open_nursery() as nursery:
            for node, past in zip(self._world.nodes, pasts, strict=True):
                nursery.start_soon(self._ask, node, streams, place, past)
        return pasts

    @staticmethod
    async def _ask(node: Server, streams: Sequence[str], place: str, found: list[tuple[str, str]]) -> None:
        """What a node tells one who comes back with an old place, within a moment."""
        with trio.move_on_after(ASK_S):
            async with aclosing(server_sent_events(node.port, path_of(streams), place)) as events:
                async for event in events:
                    if event.name == "gap":
                        found.append((event.id, f"{DECLARED} {event.data.decode()}"))
                    elif not event.name and event.id != (found[-1][0] if found else place):
                        found.append((event.id, str(read_event(event.data))))

    def report(self) -> list[Row]:
        """One row of everything."""
        counts = self.ledger.counts
        return [
            {
                "faults": float(self.struck),
                "events": float(counts.events),
                "resumes": float(counts.resumes),
                "lost": float(counts.lost),
                "doubled": float(counts.doubled),
                "out of order": float(counts.out_of_order),
                "changed": float(counts.changed),
                "declared missing": float(sum(counts.declared.values())),
                "needless gaps": float(sum(counts.needless.values())),
                "of a trimmed log": float(counts.excused),
                "readers behind": float(self.behind),
                "pasts that differ": float(self.unlike),
                "never ready": float(self.stuck),
            }
        ]

    def signal_rows(self) -> list[Row]:
        """One row of all signals, where there are any."""
        if self.signals is None:
            return []
        vips, publisher, verdict = self.signals.vips, self.signals.publisher, self.verdict
        return [
            {
                "VIPs": float(len(vips)),
                "visits": float(sum(vip.visits for vip in vips)),
                "signals": float(len(publisher.ids)),
                "repeated requests": float(publisher.repeats),
                "answers lost": float(self.signals.lost_answers()),
                "refused": float(verdict.refused),
                "received": float(sum(len(vip.taken) for vip in vips)),
                "missing": float(verdict.missing),
                "doubled": float(verdict.doubled),
                "out of order": float(verdict.out_of_order),
            }
        ]

    def silence_rows(self) -> list[Row]:
        """The longest silence after each kind of fault, at nodes that were not struck."""
        return [
            {
                "fault": name,
                "times": float(len(lengths)),
                "silence p50 s": statistics.median(lengths),
                "max s": max(lengths),
            }
            for name, lengths in sorted(self.silences.items())
        ]

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong that must not."""
        return self.ledger.counts.is_clean and self.verdict.is_clean and not (self.behind or self.unlike or self.stuck)


def _named(name: str, said: str, leader: Server | None) -> str:
    """A fault's name, where any node was struck and it was the leader."""
    is_leaders = leader is not None and said.startswith(leader.name)
    return name.replace("node ", "leader ") if is_leaders else name


def _difference(pasts: Sequence[Sequence[tuple[str, str]]]) -> str:
    for rows in zip(*pasts, strict=False):
        if len(set(rows)) > 1:
            return " / ".join(f"{row[0]} {row[1][:90]}" for row in rows)
    return f"lengths {[len(past) for past in pasts]}"


async def run(
    faults: int,
    seed: int,
    *,
    lease_s: float = 1.0,
    speed: float = 2.0,
    standby: str = "cold",
    has_networks: bool = False,
    only: Collection[str] = (),
    without: Collection[str] = (),
    verbose: bool = False,
    logs: Path | None = None,
) -> Run:
    """One run, of some faults only, or without some; ``logs`` is a new folder for what all processes write.

    With ``has_networks`` each node has a network of its own, in which packets are dropped.
    """
    secret = secrets.token_urlsafe(48)
    more = ("--standby", standby, "--jwt-secret", secret)
    if not (has_database := database_command() is not None):
        print("without signals: PostgreSQL's server or psycopg is not installed", flush=True)
    opened = open_world(
        lease_s, speed, SYMBOLS, has_database=has_database, has_networks=has_networks, logs=logs, more=more
    )
    async with opened as world:
        world.began = trio.current_time()
        chaos = Run(world, Ledger(), seed, lease_s, secret=secret, verbose=verbose)
        names = only or Faults(world, chaos.dice, lease_s).all
        await chaos.go(faults, [name for name in names if name not in without])
        return chaos


def main() -> None:
    """Run it, and print what it showed; exit status 1 when anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_chaos", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease-s", type=float, default=1.0)
    parser.add_argument("--speed", type=float, default=2.0, help="of the exchange, by which its rate rises (2)")
    parser.add_argument("--standby", choices=("cold", "hot"), default="cold", help="how nodes wait to lead (cold)")
    parser.add_argument("--namespaces", action="store_true", help="each node in a network of its own (Linux, root)")
    parser.add_argument("--only", nargs="*", default=(), metavar="FAULT", help="names of faults; all by default")
    parser.add_argument("--logs", type=Path, help="a new folder for what all processes write")
    parser.add_argument("--verbose", action="store_true", help="print each fault")
    options = parser.parse_args()
    if options.namespaces and not can_separate():
        parser.error("--namespaces needs root, and the programs ip and tc")
    chaos = trio.run(
        lambda: run(
            options.faults,
            options.seed,
            lease_s=options.lease_s,
            speed=options.speed,
            standby=options.standby,
            has_networks=options.namespaces,
            only=options.only,
            verbose=options.verbose,
            logs=options.logs,
        ),
        strict_exception_groups=True,
    )
    print(table(TITLE, chaos.report()))
    if rows := chaos.signal_rows():
        print(table("signals: what VIPs received", rows))
    print(table("the longest silence of a reader at a node that was not struck", chaos.silence_rows()))
    for name, reasons in (("declared", chaos.ledger.counts.declared), ("needless", chaos.ledger.counts.needless)):
        for reason, count in reasons.items():
            print(f"{name}: {count}: {reason}")
    wrong = [finding for finding in chaos.ledger.findings if "declared missing" not in finding]
    print("\n".join(wrong[:SHOWN]))
    sys.exit(not chaos.is_clean)


if __name__ == "__main__":
    main()
