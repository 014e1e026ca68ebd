"""A rolling restart of a cluster under load: nobody loses or doubles anything, and they do not come back all at once.

    python -m benchmarks.cluster_restart --clients 2000 --vips 500 [--nginx]

Three ``komas serve`` over one Redis or Valkey, one after another asked to stop (SIGTERM) and started again, each when
the last one is ready. Clients read trades and come back as browsers do: at another node, after what ``retry:`` said.
VIPs come back with the position that they had, while signals are published at whichever node takes them. With nginx,
clients come through one of the settings of ``deploy/``, which sends each to the node with fewest connections. Exit
status 1 if a client or a VIP lost or doubled anything.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final

import h11
import trio

from benchmarks import machine
from benchmarks.cluster.balancer import Balancer
from benchmarks.cluster.ledger import Ledger
from benchmarks.cluster.programs import wait_until
from benchmarks.cluster.readers import BusyError, EventReader
from benchmarks.cluster.servers import Server, World, open_world
from benchmarks.cluster.vips import JOIN_AT_ONCE, RETRY_S, Habits, Signals
from benchmarks.report import Row, table

TITLE: Final = "a rolling restart of three nodes: what clients and VIPs received"
STREAM: Final = "solusdt@trade"
MANY: Final = "1000000"
LEASE_S: Final = 3.0
SETTLE_S: Final = 10.0
SLOT_S: Final = 0.1


class Client(EventReader):
    """A browser: it comes back after a while that differs from client to client, through a balancer if there is one."""

    returned_at: list[float]
    balancer: Balancer | None = None

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            node = self._dice.choice(self._world.nodes)
            self.at = "nginx" if self.balancer else node.name
            for account in self.accounts.values():
                account.where = self.at
            with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError, BusyError):
                await self._read(self.balancer.port if self.balancer else node.port)
            await trio.sleep(self._dice.uniform(*RETRY_S))
            self.returned_at.append(trio.current_time())


async def restart(clients: int, vips: int, *, with_nginx: bool = False) -> Row:
    """The row of one rolling restart."""
    secret = secrets.token_urlsafe(48)
    limits = (
        "--max-sockets-per-address",
        MANY,
        "--max-sse-per-address",
        MANY,
        "--request-rate",
        "0",
        "--max-sse",
        MANY,
    )
    more = ("--jwt-secret", secret, "--database-url", "sqlite:///{folder}/signals.db", *limits)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_world(LEASE_S, 1.0, ("BTCUSDT", "SOLUSDT"), more=more))
        balancer = Balancer(world.folder, [node.port for node in world.nodes]) if with_nginx else None
        if balancer is not None:
            balancer.start()
            stack.callback(balancer.kill)
        ledger = Ledger()
        returned_at: list[float] = []
        crowd = [Client(world, ledger, f"c{number}", [STREAM], seed=number) for number in range(clients)]
        for client in crowd:
            client.returned_at, client.balancer = returned_at, balancer
        signals = Signals(world, secret, vips, Habits(), seed=0)
        async with trio.open_nursery() as readers:
            await _let_in(readers, crowd)
            await signals.start(readers)
            await trio.sleep(2.0)
            spread = await _spread(world)
            began = trio.current_time()
            for node in world.nodes:
                await _restart(world, node)
            took_s = trio.current_time() - began
            await trio.sleep(SETTLE_S)
            await signals.publisher.finish()
            await trio.sleep(SETTLE_S)
            spread_after = await _spread(world)
            readers.cancel_scope.cancel()
    verdict = signals.judge()
    slots = Counter(int(at / SLOT_S) for at in returned_at)
    return {
        "clients": clients,
        "VIPs": vips,
        "restart s": took_s,
        "returns": len(returned_at),
        "most in 0.1 s": max(slots.values(), default=0),
        "fullest/mean": spread,
        "afterwards": spread_after,
        "events": ledger.counts.events,
        "lost": ledger.counts.lost,
        "doubled": ledger.counts.doubled,
        "out of order": ledger.counts.out_of_order,
        "gaps": sum(ledger.counts.declared.values()) + sum(ledger.counts.needless.values()),
        "signals": len(signals.publisher.ids),
        "missing": verdict.missing,
        "signals doubled": verdict.doubled,
        "wrong order": verdict.out_of_order,
        "refused": verdict.refused,
        "findings": "; ".join([*ledger.findings, *verdict.findings][:3]) or "none",
    }


async def _let_in(nursery: trio.Nursery, crowd: list[Client]) -> None:
    """Start all, some at a time, and wait until each has heard something."""
    for number, client in enumerate(crowd):
        nursery.start_soon(client.run)
        if number % JOIN_AT_ONCE == 0:
            await trio.sleep(SLOT_S)

    async def have_heard() -> bool:
        return all(client.heard_at for client in crowd)

    await wait_until(have_heard)


async def _spread(world: World) -> float:
    """How many subscribers the fullest node has, beside the mean."""
    status = (await world.client.get(f"http://127.0.0.1:{world.nodes[0].port}/api/ws/status")).json()
    counts = [node["subscribers"] for node in status["cluster"]["nodes"]]
    return float(max(counts) * len(counts) / max(1, sum(counts)))


async def _restart(world: World, node: Server) -> None:
    node.terminate()
    await wait_until(node.ended)
    node.begin()
    await wait_until(lambda: node.is_ready(world.client))


def main() -> None:
    """Measure once, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--vips", type=int, default=500)
    parser.add_argument("--nginx", action="store_true", help="clients come through nginx")
    options = parser.parse_args()
    machine.allow_many_sockets()
    print(machine.describe(), end="\n\n", flush=True)
    row = trio.run(partial(restart, options.clients, options.vips, with_nginx=options.nginx))
    print(table(TITLE, [row]), flush=True)
    wrong = ("lost", "doubled", "out of order", "gaps", "missing", "signals doubled", "wrong order", "refused")
    sys.exit(any(row[name] for name in wrong))


if __name__ == "__main__":
    main()
