"""Signals: one producer over REST, one signal to N VIP sockets.

``komas serve`` has one core to itself, with a real SQLite file; the producer and the VIPs share the other. The VIPs are
raw sockets over one selector. Every signal's id is checked at every socket. A latency is *before the producer's POST →
a VIP's ``recv``*: authorisation, commit to disk and fan-out are in it.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import selectors
import socket
import time
from multiprocessing.connection import Connection
from typing import Final

import msgspec

from benchmarks import machine
from benchmarks.processes import child, komas
from benchmarks.report import Row, medians
from komas.cli.progress import counted
from komas.signals.tokens import SCOPE_PUBLISH, Issuer, Rules

NS: Final = 10**9
CONNECT_S: Final = 30.0
GRACE_S: Final = 15.0
SETTLE_S: Final = 0.5
READ_BYTES: Final = 2**18
MANY: Final = "1000000"
NOBODY: Final = "ws://127.0.0.1:9"  # nobody asks for prices
SIGNAL: Final = re.compile(rb'\{"type":"new_signal","signal_type":"mexc_dex","data":\{"id":(\d+),"sent_ns":(\d+),')


class Load(msgspec.Struct, frozen=True):
    """So many sockets; so many signals, so many a second."""

    sockets: int = 1000
    rate: float = 2.0
    signals: int = 20


POINTS: Final = (Load(1, 5, 50), Load(100, 5, 50), Load(1000, 2, 20))


def measure(load: Load, rounds: int) -> Row:
    """The row of one load."""
    return medians([_round(load) for _ in counted(range(rounds), "round")])


def _round(load: Load) -> Row:
    machine.allow_many_sockets()
    mine, other = machine.cores()
    secret = secrets.token_urlsafe(48)
    issuer = Issuer(secret.encode(), Rules())
    now_s = int(time.time())
    options = ("--upstream", NOBODY, "--jwt-secret", secret, "--max-sockets", MANY)
    limits = ("--max-sockets-per-address", MANY, "--max-sockets-per-user", MANY)
    with (
        komas(mine, "serve", *options, *limits) as server,
        child(other, publish) as producer,
        selectors.DefaultSelector() as selector,
    ):
        token = issuer.issue("1", now_s=now_s, ttl_s=3600, vip_days=1)
        clients = [_join(server.port, token, selector)]
        time.sleep(SETTLE_S)
        one_kb = machine.resident_kb(server.pid)
        clients += [_join(server.port, token, selector) for _ in range(load.sockets - 1)]
        time.sleep(SETTLE_S)
        idle_kb = (machine.resident_kb(server.pid) - one_kb) / max(1, load.sockets - 1)
        cpu_s, began = machine.cpu_s(server.pid), time.monotonic()
        scopes = frozenset({SCOPE_PUBLISH})
        publisher = issuer.issue("2", now_s=now_s, ttl_s=3600, scopes=scopes)
        producer.tell((server.port, publisher, load.rate, load.signals))
        latencies, exact = _listen(selector, clients, load)
        cpu_s, took_s = machine.cpu_s(server.pid) - cpu_s, time.monotonic() - began
        post_ms = producer.hear()
        for client in clients:
            client.socket.close()
    wanted = load.sockets * load.signals
    return {
        "sockets": load.sockets,
        "signals/s": load.rate,
        "delivered %": 100 * len(latencies) / wanted,
        "exact order": f"{exact}/{load.sockets}",
        "p50 ms": _percentile(latencies, 50),
        "p99 ms": _percentile(latencies, 99),
        "POST p50 ms": float(str(post_ms)),
        "server CPU %": 100 * cpu_s / took_s,
        "CPU µs/delivery": 1e6 * cpu_s / max(1, len(latencies)),
        "KB/idle socket": idle_kb if load.sockets > 1 else float("nan"),
    }


class _Client:
    __slots__ = ("seen", "socket", "tail")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.tail = b""
        self.seen: list[int] = []


def _join(port: int, token: str, selector: selectors.BaseSelector) -> _Client:
    client = _Client(socket.create_connection(("127.0.0.1", port), CONNECT_S))
    client.socket.sendall(
        f"GET /ws/signals?token={token} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    while b'"type":"connected"' not in client.tail:
        data = client.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError(f"the server turned a socket away: {client.tail[-300:]!r}")
        client.tail += data
    client.tail = b""
    client.socket.setblocking(False)
    selector.register(client.socket, selectors.EVENT_READ, client)
    return client


def _listen(selector: selectors.BaseSelector, clients: list[_Client], load: Load) -> tuple[list[int], int]:
    """Latencies in ascending order (ns), and how many sockets saw every id once and in order."""
    latencies: list[int] = []
    waiting = len(clients)
    deadline = time.monotonic() + load.signals / load.rate + GRACE_S
    while waiting and time.monotonic() < deadline:
        for key, _ in selector.select(0.2):
            client: _Client = key.data
            client.tail += client.socket.recv(READ_BYTES)
            now_ns = time.monotonic_ns()
            end = 0
            for found in SIGNAL.finditer(client.tail):
                client.seen.append(int(found[1]))
                latencies.append(now_ns - int(found[2]))
                end = found.end()
                waiting -= len(client.seen) == load.signals
            client.tail = client.tail[end:]
    expected = list(range(1, load.signals + 1))
    return sorted(latencies), sum(client.seen == expected for client in clients)


def publish(pipe: Connection) -> None:
    """The producer: publishes what it is told to, and says how long a POST took, the median."""
    port, token, rate, count = pipe.recv()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CONNECT_S)
    took: list[float] = []
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        sent_ns = time.monotonic_ns()
        body = json.dumps({"signal_type": "mexc_dex", "data": {"sent_ns": sent_ns, "coin_name": "NB", "spread": 8.84}})
        connection.request("POST", "/api/signals", body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.CREATED:
            raise RuntimeError(f"HTTP {answer.status}")
        took.append((time.monotonic_ns() - sent_ns) / 1e6)
    pipe.send(sorted(took)[len(took) // 2])
    pipe.recv()  # until the parent is done


def _percentile(latencies: list[int], percent: float) -> float:
    if not latencies:
        return float("nan")
    return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] / 1e6
