"""Clients that come and go for an hour, and what the server keeps of them.

    python -m benchmarks.churn --seconds 3600 --seed 1

``komas simulate`` and ``komas serve`` beside it; each place is taken by one client after another: a reader of trades,
candles, prices or an order book, a VIP, or somebody who asks once. They stay for seconds or for minutes, and leave in
every way there is: they say goodbye, hang up, reset the connection, or stop reading first. Now and then nobody is
there for a while; the server's memory and tasks are looked at then, so that what is told is what is left of those who
left.
"""

from __future__ import annotations

import argparse
import random
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx
import msgspec
import trio

from benchmarks import machine
from benchmarks.processes import komas
from benchmarks.report import Row, table
from komas.signals.tokens import Issuer, Rules

PLACES: Final = 150
STAY_S: Final = 15.0  # on average
PAUSE_S: Final = 0.5
BREAKS: Final = 12  # in which the server is looked at
SETTLE_S: Final = 35.0  # a stream lingers for 30 s after its last reader, a stalled write is given up after 10 s
READ_BYTES: Final = 2**16
GROWTH: Final = 0.02  # of the memory after the first break; more is a leak
MANY: Final = "1000000"
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")
READERS: Final = (
    "/api/ws/sse/trades?symbol={0}",
    "/api/ws/sse/klines?symbol={0}&interval=1m",
    "/api/ws/sse/prices?symbols={0},{1}",
    "/api/ws/sse/depth?symbol={0}",
    "/api/ws/sse/prices?symbols={0}&max_rate=2",
)
ASKERS: Final = ("/healthz", "/readyz", "/metrics", "/", "/nowhere", "/api/ws/sse/trades?symbol=")
RESET: Final = struct.pack("ii", 1, 0)


class Look(msgspec.Struct, frozen=True):
    """The server while nobody is there."""

    at_s: float
    resident_mb: float
    tasks: int
    visits: int


class Crowd:
    """The clients; ``token`` is a VIP's."""

    def __init__(self, port: int, token: str, chance: random.Random) -> None:
        self._port = port
        self._token = token
        self._chance = chance
        self.visits = 0
        self.told = 0  # visits that were answered

    async def stay(self, seconds: float) -> None:
        """Fill every place for so long, then leave."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(PLACES):
                    nursery.start_soon(self._take_place)

    async def _take_place(self) -> None:
        while True:
            await trio.sleep(self._chance.expovariate(1 / PAUSE_S))
            self.visits += 1
            with suppress(OSError, trio.BrokenResourceError):
                async with self._visit() as stream:
                    with trio.move_on_after(self._chance.expovariate(1 / STAY_S)):
                        await self._read(stream)

    async def _read(self, stream: trio.SocketStream) -> None:
        stops_after = self._chance.choice((1, 10, sys.maxsize, sys.maxsize))
        for count in range(stops_after):
            if not await stream.receive_some(READ_BYTES):
                return
            self.told += count == 0
        await trio.sleep_forever()

    @asynccontextmanager
    async def _visit(self) -> AsyncIterator[trio.SocketStream]:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            await stream.send_all(self._request())
            yield stream
        finally:
            if self._chance.random() < 1 / 3:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif self._chance.random() < 1 / 2:
                with suppress(trio.BrokenResourceError), trio.CancelScope(shield=True):
                    await stream.send_eof()
            await trio.aclose_forcefully(stream)

    def _request(self) -> bytes:
        kind = self._chance.random()
        if kind < 0.2:
            path, more = f"/ws/signals?token={self._token}", "connection: upgrade\r\nupgrade: websocket\r\n"
            more += "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        else:
            symbols = self._chance.sample(SYMBOLS, 2)
            path, more = self._chance.choice(READERS if kind < 0.9 else ASKERS).format(*symbols), ""
        return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{more}\r\n".encode()


async def run(seconds: float, seed: int) -> bool:
    """Come and go for so long; whether the server is what it was after the first break."""
    secret, now_s = secrets.token_urlsafe(48), int(time.time())
    token = Issuer(secret.encode(), Rules()).issue("1", now_s=now_s, ttl_s=int(seconds) + 3600, vip_days=1)
    limits = ("--max-sse-per-address", MANY, "--max-sockets-per-address", MANY, "--max-sockets-per-user", MANY)
    looks: list[Look] = []
    with (
        komas(None, "simulate", "--seed", str(seed), "--symbols", ",".join(SYMBOLS)) as sim,
        komas(None, "serve", "--upstream", f"ws://127.0.0.1:{sim.port}", "--jwt-secret", secret, *limits) as server,
    ):
        crowd, begun = Crowd(server.port, token, random.Random(seed)), time.monotonic()
        for _ in range(BREAKS + 1):
            await crowd.stay(seconds / (BREAKS + 1) - SETTLE_S)
            await trio.sleep(SETTLE_S)
            looks.append(_look(server.port, server.pid, time.monotonic() - begun, crowd.visits))
            print(looks[-1], flush=True)
    rows: list[Row] = [msgspec.structs.asdict(look) for look in looks]
    print(table(f"{crowd.visits} visits, {crowd.told} of them were told something", rows))
    first, last = looks[1], looks[-1]
    grown = last.resident_mb / first.resident_mb - 1
    print(f"after the first break: memory {grown:+.2%}, tasks {last.tasks - first.tasks:+}")
    return grown <= GROWTH and last.tasks <= first.tasks


def _look(port: int, pid: int, at_s: float, visits: int) -> Look:
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    found = re.search(r"^komas_tasks (\d+)", metrics, re.MULTILINE)
    assert found is not None
    return Look(round(at_s), machine.resident_kb(pid) / 1024, int(found[1]), visits)


def main() -> None:
    """Run it; exit status 1 when the server grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    machine.allow_many_sockets()
    sys.exit(not trio.run(run, options.seconds, options.seed))


if __name__ == "__main__":
    main()
