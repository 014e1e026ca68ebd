"""A rolling restart of a cluster under load: nobody loses or doubles anything, and they do not come back all at once.

    python -m benchmarks.cluster_restart --clients 2000 --vips 500

Three ``komas serve`` over one Redis or Valkey, one after another asked to stop (SIGTERM) and started again, each when
the last one is ready. Clients read trades and come back as browsers do: at another node, after what ``retry:`` said.
VIPs come back with the position that they had, while signals are published at whichever node takes them. Exit status 1
if a client or a VIP lost or doubled anything.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import h11
import httpx
import trio
import trio_websocket

from benchmarks import machine
from benchmarks.cluster.ledger import Ledger
from benchmarks.cluster.readers import BusyError, EventReader
from benchmarks.cluster.servers import Server, World, open_world, wait_until
from benchmarks.report import Row, table
from komas.signals.tokens import SCOPE_PUBLISH, Issuer, Rules

TITLE: Final = "a rolling restart of three nodes: what clients and VIPs received"
STREAM: Final = "solusdt@trade"
MANY: Final = "1000000"
LEASE_S: Final = 3.0
RETRY_S: Final = (1.0, 4.0)  # what komas says to browsers (``retry:``)
PACE_S: Final = 0.5  # between signals
JOIN_AT_ONCE: Final = 20
SETTLE_S: Final = 10.0
CONNECT_S: Final = 10.0
SLOT_S: Final = 0.1
_ENDED: Final = (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError)


class Client(EventReader):
    """A browser: it comes back after a while that differs from client to client."""

    returned_at: list[float]

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            node = self._dice.choice(self._world.nodes)
            self.at = node.name
            for account in self.accounts.values():
                account.where = node.name
            with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError, BusyError):
                await self._read(node.port)
            await trio.sleep(self._dice.uniform(*RETRY_S))
            self.returned_at.append(trio.current_time())


class Vip:
    """One VIP's socket, which comes back with its position."""

    def __init__(self, world: World, token: str, seed: int) -> None:
        self._world = world
        self._token = token
        self._dice = random.Random(seed)
        self._place = ""
        self.ids: list[int] = []
        self.is_in = trio.Event()

    async def run(self) -> None:
        """Read until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                with suppress(OSError, trio.TooSlowError, *_ENDED):
                    await self._read(nursery, self._dice.choice(self._world.nodes))
                await trio.sleep(self._dice.uniform(*RETRY_S))

    async def _read(self, nursery: trio.Nursery, node: Server) -> None:
        place = f"&since={self._place}" if self._place else "&positions=1"
        url = f"ws://127.0.0.1:{node.port}/ws/signals?token={self._token}{place}"
        with trio.fail_after(CONNECT_S):
            socket = await trio_websocket.connect_websocket_url(nursery, url)
        try:
            while True:
                message = json.loads(await socket.get_message())
                self._place = str(message.get("position", self._place))
                if message["type"] == "connected":
                    self.is_in.set()
                elif message["type"] == "new_signal":
                    self.ids.append(message["data"]["id"])
        finally:
            with trio.move_on_after(SLOT_S, shield=True):
                await socket.aclose()


class Publisher:
    """Publishes signals one after another, each until some node has taken it; ``ids`` are those that were answered."""

    def __init__(self, world: World, token: str) -> None:
        self._world = world
        self._token = token
        self.scope = trio.CancelScope()
        self.ids: list[int] = []

    async def run(self) -> None:
        """Publish until its scope is cancelled."""
        with self.scope:
            while True:
                await self._publish(secrets.token_hex(8))
                await trio.sleep(PACE_S)

    async def _publish(self, key: str) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": key}
        draft = {"signal_type": "mexc_dex", "data": {"coin_name": "SOL"}}
        while True:
            node = random.choice(self._world.nodes)
            url = f"http://127.0.0.1:{node.port}/api/signals"
            try:
                answer = await self._world.client.post(url, json=draft, headers=headers)
            except httpx.HTTPError:
                await trio.sleep(SLOT_S)
                continue
            if answer.status_code in (httpx.codes.OK, httpx.codes.CREATED):
                self.ids.append(answer.json()["id"])
                return
            await trio.sleep(SLOT_S)


async def restart(clients: int, vips: int) -> Row:
    """The row of one rolling restart."""
    secret = secrets.token_urlsafe(48)
    issuer, now_s = Issuer(secret.encode(), Rules()), int(time.time())
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
    async with open_world(LEASE_S, 1.0, ("BTCUSDT", "SOLUSDT"), more=more) as world:
        ledger = Ledger()
        returned_at: list[float] = []
        crowd = [Client(world, ledger, f"c{number}", [STREAM], seed=number) for number in range(clients)]
        for client in crowd:
            client.returned_at = returned_at
        members = [
            Vip(world, issuer.issue(str(number), now_s=now_s, ttl_s=3600, vip_days=1), number) for number in range(vips)
        ]
        scopes = frozenset({SCOPE_PUBLISH})
        publisher = Publisher(world, issuer.issue("publisher", now_s=now_s, ttl_s=3600, scopes=scopes))
        async with trio.open_nursery() as readers:
            await _let_in(readers, crowd, members)
            readers.start_soon(publisher.run)
            await trio.sleep(2.0)
            began = trio.current_time()
            for node in world.nodes:
                await _restart(world, node)
            took_s = trio.current_time() - began
            await trio.sleep(SETTLE_S)
            publisher.scope.cancel()
            await trio.sleep(SETTLE_S)
            places = Counter(client.at for client in crowd)
            readers.cancel_scope.cancel()
    wanted = Counter(publisher.ids)
    missing = sum((wanted - Counter(member.ids)).total() for member in members)
    doubled = sum((Counter(member.ids) - wanted).total() for member in members)
    wrong_order = sum(member.ids != sorted(member.ids) for member in members)
    slots = Counter(int(at / SLOT_S) for at in returned_at)
    return {
        "clients": clients,
        "VIPs": vips,
        "restart s": took_s,
        "returns": len(returned_at),
        "most in 0.1 s": max(slots.values(), default=0),
        "fullest/mean": max(places.values()) * len(world.nodes) / clients,
        "events": ledger.counts.events,
        "lost": ledger.counts.lost,
        "doubled": ledger.counts.doubled,
        "out of order": ledger.counts.out_of_order,
        "gaps": sum(ledger.counts.declared.values()) + sum(ledger.counts.needless.values()),
        "signals": len(publisher.ids),
        "missing": missing,
        "signals doubled": doubled,
        "wrong order": wrong_order,
        "findings": "; ".join(ledger.findings[:3]) or "none",
    }


async def _let_in(nursery: trio.Nursery, crowd: list[Client], members: list[Vip]) -> None:
    """Start all, some at a time, and wait until each has heard something."""
    for number, client in enumerate(crowd):
        nursery.start_soon(client.run)
        if number % JOIN_AT_ONCE == 0:
            await trio.sleep(SLOT_S)
    for number, member in enumerate(members):
        nursery.start_soon(member.run)
        if number % JOIN_AT_ONCE == 0:
            await trio.sleep(SLOT_S)
    for member in members:
        await member.is_in.wait()

    async def have_heard() -> bool:
        return all(client.heard_at for client in crowd)

    await wait_until(have_heard)


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
    options = parser.parse_args()
    machine.allow_many_sockets()
    print(machine.describe(), end="\n\n", flush=True)
    row = trio.run(restart, options.clients, options.vips)
    print(table(TITLE, [row]), flush=True)
    wrong = ("lost", "doubled", "out of order", "gaps", "missing", "signals doubled", "wrong order")
    sys.exit(any(row[name] for name in wrong))


if __name__ == "__main__":
    main()
