"""What many processes cost beside one: delay, processor time, fan-out; and beside what a user would pick instead.

The same exchange feeds one ``komas serve``, or a leader with edges around a real redis-server; arrangements alternate
within a round. Nothing is pinned: on two cores the kernel does better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import msgspec
import trio

from benchmarks import machine
from benchmarks.cluster import exchange, rivals
from benchmarks.cluster.nodes import Arrangement, Nodes, can_slice, running
from benchmarks.cluster.resumers import Resumers
from benchmarks.cluster.servers import store_command
from benchmarks.crowd import Heard, crowd
from benchmarks.feeder import NS, Order, Sent
from benchmarks.report import Row, medians, table
from komas.cli.progress import counted

GRACE_S: Final = 10.0
SETTLE_S: Final = 0.5
ALONE: Final = Arrangement()
PAIR: Final = Arrangement(edges=1)
AT_ONCE: Final = Arrangement(edges=1, window_ms=0)


class Load(msgspec.Struct, frozen=True):
    """So many trades each second of so many symbols together, for so long, to clients of the first one."""

    rate: float
    seconds: float
    symbols: int = 1
    clients: int = 1

    @property
    def order(self) -> Order:
        """What the exchange is told."""
        return Order(self.rate, round(self.rate * self.seconds))


IDLE: Final = Load(20, 8)
FULL: Final = Load(20_000, 8, symbols=50)
CROWDED: Final = Load(100, 8, clients=1000)
SATURATED: Final = Load(1500, 6, clients=300)
SHARE: Final = 0.2
COMPARED: Final = (Load(20, 6), Load(50, 8, clients=1000))
RESTART: Final = Load(100, 12)
RESTART_S: Final = (4.0, 1.5)  # after so long Redis is killed, for so long
EACH: Final = 10

PARTS: Final = ("delay", "edges", "fanout", "slices", "peers", "restart")


def run(parts: Sequence[str], rounds: int) -> None:
    """Measure, and print a table for each part."""
    if store_command() is None:
        raise SystemExit("redis-server or valkey-server is needed: install one of them")
    machine.allow_many_sockets()
    for part in parts or PARTS:
        for title, rows in _PARTS[part](rounds):
            print(table(title, rows), flush=True)


def _delay(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    for load in (IDLE, FULL):
        title = f"{load.rate:g} trades a second of {load.symbols} symbols, one client: what a cluster adds"
        yield title, _rounds(rounds, {each.name: partial(_paced, each, load) for each in (ALONE, PAIR, AT_ONCE)})


def _edges(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    found = {each.name: partial(_paced, each, FULL) for each in (Arrangement(edges=count) for count in (1, 2, 3))}
    yield f"{FULL.rate:g} trades a second of {FULL.symbols} symbols: what each edge costs", _rounds(rounds, found)


def _fanout(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    title = f"fan-out of {CROWDED.rate:g} trades a second to {CROWDED.clients} clients in all"
    yield title, _rounds(rounds, {each.name: partial(_paced, each, CROWDED) for each in (ALONE, Arrangement(edges=2))})


def _slices(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    title = f"fan-out, more than they can, {SATURATED.clients} clients each; each server has {SHARE:.0%} of a core"
    if not can_slice():
        print(f"{title}: left out, control groups of the first version are needed", flush=True)
        return
    found: dict[str, Callable[[], Row]] = {}
    for arrangement in (Arrangement(share=SHARE), *(Arrangement(edges=count, share=SHARE) for count in (1, 2))):
        load = msgspec.structs.replace(SATURATED, clients=SATURATED.clients * max(1, arrangement.edges))
        found[arrangement.name] = partial(_paced, arrangement, load)
    yield title, _rounds(rounds, found)


def _peers(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    for load in COMPARED:
        title = f"two nodes on one Redis: {load.rate:g} trades a second to {load.clients} clients in all"
        found = {name: partial(_rival, name, serving, load) for name, serving in rivals.installed().items()}
        yield title, _rounds(rounds, found)


def _restart(rounds: int) -> Iterator[tuple[str, list[Row]]]:
    after_s, for_s = RESTART_S
    title = (
        f"two nodes, {EACH} clients each, {RESTART.rate:g} trades a second for {RESTART.seconds:g} s: "
        f"Redis is killed after {after_s:g} s and starts {for_s:g} s later, empty"
    )
    found = {name: partial(_restarted, name, serving) for name, serving in rivals.installed().items()}
    yield title, _rounds(rounds, found)


_PARTS: Final = {
    "delay": _delay,
    "edges": _edges,
    "fanout": _fanout,
    "slices": _slices,
    "peers": _peers,
    "restart": _restart,
}


def _rounds(rounds: int, measures: Mapping[str, Callable[[], Row]]) -> list[Row]:
    """Medians of alternating rounds; what is a difference or a ratio is one to the first of the same round."""
    results: dict[str, list[Row]] = {name: [] for name in measures}
    for _ in counted(range(rounds), "round"):
        first: Row = {}
        for name, measure in measures.items():
            row = measure()
            first = first or row
            results[name].append(_beside(row, first))
    return [medians(rows) for rows in results.values()]


def _beside(row: Row, first: Row) -> Row:
    added: Row = {}
    for key, value in row.items():
        if isinstance(value, str):
            continue
        if key in ("p50 ms", "p99 ms"):
            added[f"added, {key}"] = value - float(first[key])
        elif key in ("first CPU %", "deliveries/s", "served/core s") and first[key]:
            added[f"÷ first, {key}"] = value / float(first[key])
    return row | added


def _paced(arrangement: Arrangement, load: Load) -> Row:
    with running(arrangement, load.symbols) as nodes:
        return {"arrangement": arrangement.name} | _measured(nodes, nodes.serving, load)


def _rival(name: str, serving: Callable[[], AbstractContextManager[Nodes]], load: Load) -> Row:
    with serving() as nodes:
        return {"server": name} | _measured(nodes, nodes.ports, load)


def _measured(nodes: Nodes, ports: Sequence[int], load: Load) -> Row:
    with crowd() as clients:
        for place, port in enumerate(ports[: load.clients]):
            clients.join(port, (load.clients + len(ports) - 1 - place) // len(ports), nodes.greeted)
        time.sleep(SETTLE_S)
        pids = [*nodes.pids, *([nodes.store.pid] if nodes.store else []), nodes.source.pid]
        began_ns = time.monotonic_ns()
        before = [machine.cpu_s(pid) for pid in pids], time.process_time(), machine.busy_s()
        nodes.source.tell(load.order)
        sent_ns = began_ns + int(load.seconds * NS)
        events = exchange.of_the_first(load.order, load.symbols)
        heard = clients.listen(events, sent_ns, sent_ns + int(GRACE_S * NS))
        used_s = [machine.cpu_s(pid) - was for pid, was in zip(pids, before[0], strict=True)]
        own_s, busy_s = time.process_time() - before[1], machine.busy_s() - before[2]
        took_s = (time.monotonic_ns() - began_ns) / NS
        sent = nodes.source.hear(2 * GRACE_S)
    assert isinstance(sent, Sent)
    return (
        _heard(heard, sent, load, events)
        | _costs(nodes, used_s, load, heard, took_s)
        | {
            "crowd CPU %": 100 * own_s / took_s,
            "foreign CPU %": 100 * max(0.0, busy_s - own_s - sum(used_s)) / took_s,
        }
    )


def _heard(heard: Heard, sent: Sent, load: Load, events: int) -> Row:
    return {
        "events/s": (sent.events - 1) * NS / (sent.last_ns - sent.first_ns),
        "deliveries/s": heard.delivered / max(load.seconds, (heard.last_ns - sent.first_ns) / NS),
        "delivered %": 100 * heard.delivered / (events * load.clients),
        "doubled": heard.doubled + heard.disordered,
        "p50 ms": heard.percentile_ms(50),
        "p99 ms": heard.percentile_ms(99),
    }


def _costs(nodes: Nodes, used_s: list[float], load: Load, heard: Heard, took_s: float) -> Row:
    """Of the first process, of one of the others, of the store; and how much a second of a serving core delivers."""
    count, events = len(nodes.pids), load.order.events
    edges_s, serving_s = used_s[1:count], used_s[1:count] or used_s[:1]
    return {
        "first CPU %": 100 * used_s[0] / took_s,
        "first µs/event": 1e6 * used_s[0] / events,
        "edge µs/event": 1e6 * sum(edges_s) / len(edges_s) / events if edges_s else float("nan"),
        "Redis µs/event": 1e6 * used_s[count] / events if nodes.store else float("nan"),
        "served/core s": heard.delivered / sum(serving_s) if sum(serving_s) else float("nan"),
    }


def _restarted(name: str, serving: Callable[[], AbstractContextManager[Nodes]]) -> Row:
    with serving() as nodes:
        return {"server": name} | trio.run(_losses, nodes)


async def _losses(nodes: Nodes) -> Row:
    assert nodes.store is not None
    after_s, for_s = RESTART_S
    events = RESTART.order.events
    resumers = Resumers(nodes.ports, EACH)
    async with trio.open_nursery() as nursery:
        await nursery.start(resumers.run)
        nodes.source.tell(RESTART.order)
        await trio.sleep(after_s)
        nodes.store.kill()
        await trio.sleep(for_s)
        await trio.to_thread.run_sync(nodes.store.start)
        sent = await trio.to_thread.run_sync(nodes.source.hear, 60.0)
        with trio.move_on_after(GRACE_S):
            await resumers.have_all(events)
        nursery.cancel_scope.cancel("over")
    assert isinstance(sent, Sent)
    tallies = resumers.tallies
    return {
        "trades": events,
        "clients that miss some": sum(tally.missing(events) > 0 for tally in tallies),
        "missed, worst client": max(tally.missing(events) for tally in tallies),
        "missed, all": sum(tally.missing(events) for tally in tallies),
        "doubled": sum(tally.doubled for tally in tallies),
        "disordered": sum(tally.disordered for tally in tallies),
        "gaps declared": sum(tally.gaps for tally in tallies),
        "reconnects": sum(tally.visits - 1 for tally in tallies),
        "latest trade, s": max(tally.latest_s for tally in tallies),
    }
