"""``python -m benchmarks``: everything, or one part of it, as a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import (
    abuse,
    chart,
    cluster_cost,
    fanout,
    ingest,
    kills,
    machine,
    page,
    signals,
    starts,
    streams,
    waiting,
)
from benchmarks.abuse_cases import CASES
from benchmarks.report import Row, table

FANOUT = "fan-out: exchange socket → komas serve → N SSE clients"
PEERS = "fan-out of the same trades: komas, both ways out, and other servers, alternating"
TLS = "fan-out over TLS of the same trades: komas, both ways out, and other servers, alternating"
CHECK = "the crowd's own check: the same clients, fed by bare writes (not komas)"
DELAYS = "idle machine: one SSE client, twenty trades a second, each written by the exchange after a silence"
SIGNALS = "signals: one producer's POST → N VIP sockets"
INGEST = "ingest: exchange socket → decoded message (komas: → hub listener)"


def main() -> None:
    """Run what is asked for."""
    options = _options()
    print(machine.describe(), end="\n\n", flush=True)
    match options.part:
        case "fanout" | "crowd" | "peers" | "tls":
            load = fanout.Load(options.clients, options.rate, options.seconds)
            print(table(*_of_a_crowd(options.part, load, options.rounds)), flush=True)
        case "delays":
            print(table(DELAYS, fanout.delays(options.rounds)), flush=True)
        case "waiting":
            for title, rows in waiting.measure():
                print(table(title, rows), flush=True)
        case "cluster":
            cluster_cost.run(options.parts, options.rounds)
        case "chart":
            chart.draw(options.rounds)
        case "ingest":
            _ingest(options.rounds)
        case "signals" | "page" | "start":
            print(table(*_one_row(options)), flush=True)
        case "kills" | "abuse":
            sys.exit(not _is_held_up(options))
        case _:
            _everything(options.rounds)


def _of_a_crowd(part: str, load: fanout.Load, rounds: int) -> tuple[str, list[Row]]:
    match part:
        case "fanout":
            return FANOUT, [fanout.measure(load, rounds)]
        case "crowd":
            return CHECK, [fanout.check_crowd(load)]
        case "peers":
            return PEERS, fanout.compare(load, rounds)
        case _:
            return TLS, fanout.compare_tls(load, rounds)


def _one_row(options: argparse.Namespace) -> tuple[str, list[Row]]:
    match options.part:
        case "signals":
            crowd = signals.Load(options.sockets, options.rate, options.signals)
            return SIGNALS, [signals.measure(crowd, options.rounds)]
        case "page":
            shown = page.Load(options.symbols, options.seconds)
            return page.TITLE, [page.measure(shown, options.rounds, options.picture)]
        case _:
            return starts.TITLE, starts.measure(options.rounds)


def _is_held_up(options: argparse.Namespace) -> bool:
    """Whether what must not happen did not."""
    if options.part == "kills":
        return kills.run(options.rounds, options.seed)
    rows = list(abuse.measure(options.rows, options.seconds, first=options.first))
    print(table(abuse.TITLE, rows), flush=True)
    return all(row["verdict"] == "ok" for row in rows)


def _everything(rounds: int) -> None:
    for load in fanout.POINTS:
        print(
            table(f"{PEERS}: {load.clients} clients, {load.rate:g} trades a second", fanout.compare(load, rounds)),
            flush=True,
        )
    print(table(CHECK, [fanout.check_crowd(load) for load in fanout.CHECKS]), flush=True)
    print(table(DELAYS, fanout.delays(rounds)), flush=True)
    _ingest(rounds)
    print(table(SIGNALS, [signals.measure(load, rounds) for load in signals.POINTS]), flush=True)
    print(table(streams.TITLE, [streams.measure(count, rounds) for count in streams.POINTS]), flush=True)
    print(table(starts.TITLE, starts.measure(rounds)), flush=True)


def _ingest(rounds: int) -> None:
    for what in ingest.CONTENTS:
        source, rows = ingest.measure(rounds, what)
        print(table(f"{INGEST}; {source}", rows), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure komas; everything by default.")
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians of so many rounds (3)")
    parser.set_defaults(part="")
    parts = parser.add_subparsers(metavar="PART")
    for name, meaning in (
        ("fanout", "SSE clients of one stream of trades"),
        ("peers", "the same load for komas and for other servers"),
        ("tls", "the same over TLS, which each server speaks by itself"),
        ("delays", "what each server adds to a trade's way to one client of an idle machine"),
        ("cluster", "a leader and edges around Redis beside one process, and beside nchan and sse-starlette on Redis"),
        ("waiting", "ten thousand readers and two thousand VIPs that only wait, and five thousand that come back"),
        ("chart", "throughput, p99 and cost over clients and streams, drawn"),
        ("crowd", "the same clients, fed by bare writes"),
        ("ingest", "the replayed exchange, read by komas and by two peers"),
        ("signals", "VIP sockets of one producer"),
        ("page", "a tab of Chromium whose symbols all change a hundred times a second"),
        ("start", "how long it takes until komas serve listens"),
        ("abuse", "attacks: what becomes of everybody else, and of the memory"),
        ("kills", "kill -9 in mid-publish, --rounds times: what was lost, what came twice"),
    ):
        part = parts.add_parser(name, help=meaning)
        part.set_defaults(part=name)
        # No default: a part's own would hide one that was given before its name.
        part.add_argument("--rounds", type=int, default=argparse.SUPPRESS, help="as above")
        if name == "cluster":
            choices = [[], *cluster_cost.PARTS]
            part.add_argument("parts", nargs="*", metavar="PART", choices=choices, help="all by default")
        if name == "signals":
            part.add_argument("--sockets", type=int, default=1000, help="VIP sockets (1000)")
            part.add_argument("--rate", type=float, default=2.0, help="signals each second (2)")
            part.add_argument("--signals", type=int, default=20, help="so many (20)")
        if name == "page":
            part.add_argument("--symbols", type=int, default=50, help="of the watchlist (50, at most)")
            part.add_argument("--seconds", type=float, default=20.0, help="for so long (20)")
            part.add_argument("--picture", type=Path, help="a PNG of how it looked")
        if name == "kills":
            part.add_argument("--seed", type=int, default=1, help="of the moments of death (1)")
        if name == "abuse":
            part.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *CASES], help="all by default")
            part.add_argument("--seconds", type=float, default=abuse.SECONDS, help="each for so long (8)")
            part.add_argument("--first", action="store_true", help="before what else the machine does (Linux, root)")
        if name in ("fanout", "peers", "tls", "crowd"):
            part.add_argument("--clients", type=int, default=100, help="SSE clients (100)")
            part.add_argument("--rate", type=float, default=100.0, help="events each second (100)")
            part.add_argument("--seconds", type=float, default=10.0, help="for so long (10)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
