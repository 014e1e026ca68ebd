"""Fan-out: one stream of trades, from the exchange's socket to N SSE clients.

``komas serve`` has one core to itself; the feeder and the crowd share the other. Every id is checked at every client.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from benchmarks import bare, feeder, machine
from benchmarks.certificate import sign_certificate
from benchmarks.crowd import GREETED, Crowd, Heard, crowd
from benchmarks.feeder import NS, Order, Sent
from benchmarks.peers import servers
from benchmarks.processes import Child, child, komas
from benchmarks.report import Row, medians
from komas.cli.progress import counted

GRACE_S: Final = 10.0  # for a server that fell behind; what is not there by then is not delivered
SETTLE_S: Final = 0.5
MANY: Final = "1000000"


class Load(msgspec.Struct, frozen=True):
    """So many clients, so many events each second, for so long."""

    clients: int = 100
    rate: float = 100.0
    seconds: float = 10.0

    @property
    def order(self) -> Order:
        """What the feeder is told."""
        return Order(self.rate, round(self.rate * self.seconds))


# What `python -m benchmarks` runs. The last one asks for more than any of them can give: that is their saturation.
POINTS: Final = (Load(100, 50, 6), Load(1000, 100, 6), Load(1000, 1500, 4))
CHECKS: Final = (Load(100, 500), Load(1000, 100))  # fed to the crowd by bare writes, to check the crowd
IDLE: Final = Load(1, 20, 6)  # fifty milliseconds of nothing before each trade: everything is cold


class _Server(msgspec.Struct, frozen=True):
    """A server to be measured: its process and port, the process that takes the order, and its first words."""

    name: str
    pid: int
    port: int
    source: Child
    greeted: bytes = GREETED


@contextmanager
def komas_server(*, direct: bool = True) -> Iterator[_Server]:
    """``komas serve`` as a user starts it, but for its limits of clients."""
    mine, other = machine.cores()
    with child(other, feeder.feed) as source:
        options = ("--upstream", f"ws://127.0.0.1:{source.hear()}", "--direct-writes", str(direct).lower())
        with komas(mine, "serve", *options, "--max-sse", MANY, "--max-sse-per-address", MANY) as server:
            yield _Server("komas" if direct else "komas, plain ASGI", server.pid, server.port, source)


@contextmanager
def _following(
    name: str, start: Callable[[int | None, int], AbstractContextManager[tuple[int, int]]]
) -> Iterator[_Server]:
    """A peer that follows the feeder by itself."""
    mine, other = machine.cores()
    with child(other, feeder.feed) as source, start(mine, int(str(source.hear()))) as (pid, port):
        yield _Server(name, pid, port, source)


@contextmanager
def komas_tls_server(certificates: Path, *, direct: bool = True) -> Iterator[_Server]:
    """The stock ``hypercorn`` command, with a certificate."""
    mine, other = machine.cores()
    with child(other, feeder.feed) as source:
        variables = {
            "KOMAS_UPSTREAM": f"ws://127.0.0.1:{source.hear()}",
            "KOMAS_DIRECT_WRITES": str(direct).lower(),
            "KOMAS_MAX_SSE": MANY,
            "KOMAS_MAX_SSE_PER_ADDRESS": MANY,
        }
        with servers.komas_tls(mine, certificates, variables) as (pid, port):
            yield _Server("komas" if direct else "komas, plain ASGI", pid, port, source)


@contextmanager
def nchan_server(certificates: Path | None = None) -> Iterator[_Server]:
    """Nginx with nchan, published to by POST over one connection, to clients that may speak TLS."""
    mine, other = machine.cores()
    publishing = servers.free_port()
    with (
        servers.nginx(mine, certificates=certificates, publishing=publishing) as (pid, port),
        child(other, servers.publish, port if certificates is None else publishing) as source,
    ):
        source.hear()
        yield _Server("nginx + nchan", pid, port, source, b"\r\n\r\n")


def peers() -> dict[str, Callable[[], AbstractContextManager[_Server]]]:
    """Komas, both ways, and the peers that are installed."""
    found: dict[str, Callable[[], AbstractContextManager[_Server]]] = {
        "komas": komas_server,
        "komas, plain ASGI": partial(komas_server, direct=False),
        "Quart-Trio, a generator each": partial(_following, "Quart-Trio, a generator each", servers.hypercorn),
    }
    if servers.has_fastapi():
        name = "FastAPI + sse-starlette + uvicorn"
        found[name] = partial(_following, name, servers.uvicorn)
    if servers.has_nchan():
        found["nginx + nchan"] = nchan_server
    return found


@contextmanager
def bare_server() -> Iterator[_Server]:
    """Nothing but writes: the check of the crowd."""
    mine, _ = machine.cores()
    with child(mine, bare.serve) as source:
        yield _Server("bare writes", source.pid, int(str(source.hear())), source)


@contextmanager
def relay_server() -> Iterator[_Server]:
    """Nothing but reads and writes, between the feeder and one client."""
    mine, other = machine.cores()
    with child(other, feeder.feed) as source, child(mine, bare.relay, source.hear()) as relay:
        yield _Server("bare relay: read, json.loads, write", relay.pid, int(str(relay.hear())), source)


def measure(load: Load, rounds: int) -> Row:
    """Medians of some rounds against komas, each with a fresh server."""
    return medians([_round(komas_server(), load) for _ in counted(range(rounds), "round")])


def compare(load: Load, rounds: int) -> list[Row]:
    """Komas and its peers under the same load: medians of alternating rounds, and what is komas's share of each."""
    results: dict[str, list[Row]] = {name: [] for name in peers()}
    for _ in counted(range(rounds), "round"):
        for name, serving in peers().items():
            results[name].append(_round(serving(), load))
    rows = [medians(rounds_of) for rounds_of in results.values()]
    for row in rows:
        theirs = float(row["deliveries/s"])
        row["komas ÷ this, deliveries/s"] = float(rows[0]["deliveries/s"]) / theirs if theirs else float("nan")
    return rows


def delays(rounds: int) -> list[Row]:
    """One client of an idle machine: what each server adds to the way of a trade that is written to the client at once.

    Medians of alternating rounds; what is added is the difference within a round.
    """
    servers_of = {"bare writes": bare_server, "bare relay": relay_server, **peers()}
    results: dict[str, list[Row]] = {name: [] for name in servers_of}
    for _ in counted(range(rounds), "round"):
        bare_ms = float("nan")
        for name, serving in servers_of.items():
            row = _round(serving(), IDLE)
            if name == "bare writes":
                bare_ms = float(row["p50 ms"])
            columns = ("server", "delivered %", "p50 ms", "p99 ms", "foreign CPU %")
            kept = {column: row[column] for column in columns}
            results[name].append({**kept, "added, p50 ms": float(row["p50 ms"]) - bare_ms})
    return [medians(rounds_of) for rounds_of in results.values()]


def check_crowd(load: Load) -> Row:
    """One round against bare writes."""
    return _round(bare_server(), load)


def compare_tls(load: Load, rounds: int) -> list[Row]:
    """The same over TLS, which each server speaks by itself."""
    with TemporaryDirectory(prefix="komas-bench-") as name:
        folder = Path(name)
        sign_certificate(folder, "localhost")
        tls = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        servings: dict[str, Callable[[], AbstractContextManager[_Server]]] = {
            "komas": partial(komas_tls_server, folder),
            "komas, plain ASGI": partial(komas_tls_server, folder, direct=False),
        }
        if servers.has_fastapi():
            peer = "FastAPI + sse-starlette + uvicorn"
            servings[peer] = partial(_following, peer, partial(servers.uvicorn, certificates=folder))
        if servers.has_nchan():
            servings["nginx + nchan"] = partial(nchan_server, folder)
        results: dict[str, list[Row]] = {name: [] for name in servings}
        for _ in counted(range(rounds), "round"):
            for peer, serving in servings.items():
                results[peer].append(_round(serving(), load, tls))
        return [medians(rounds_of) for rounds_of in results.values()]


def _round(serving: AbstractContextManager[_Server], load: Load, tls: ssl.SSLContext | None = None) -> Row:
    machine.allow_many_sockets()
    machine.pin(0, machine.cores()[1])
    with serving as server, crowd(tls) as clients:
        idle_kb = _join(clients, server, load.clients)
        pids = (server.pid, server.source.pid)
        begun_ns = time.monotonic_ns()
        before = [machine.cpu_s(pid) for pid in pids], time.process_time(), machine.busy_s()
        server.source.tell(load.order)
        heard = clients.listen(
            load.order.events,
            begun_ns + int(load.seconds * NS),
            begun_ns + int((load.seconds + GRACE_S) * NS),
        )
        busy_s = [machine.cpu_s(pid) - was for pid, was in zip(pids, before[0], strict=True)]
        own_s = time.process_time() - before[1]
        foreign_s = machine.busy_s() - before[2] - own_s - sum(busy_s[: len(set(pids))])
        percent = 100 * NS / (time.monotonic_ns() - begun_ns)
        sent = server.source.hear(2 * GRACE_S)
    assert isinstance(sent, Sent)
    return _row(server.name, load, sent, heard) | {
        "server CPU %": busy_s[0] * percent,
        "CPU µs/delivery": busy_s[0] * 1e6 / heard.delivered if heard.delivered else float("nan"),
        "crowd CPU %": own_s * percent,
        "feeder CPU %": float("nan") if pids[0] == pids[1] else busy_s[1] * percent,
        "foreign CPU %": foreign_s * percent,
        "KB/idle client": idle_kb,
    }


def _join(clients: Crowd, server: _Server, count: int) -> float:
    """Fill the room; returns what each client costs in memory while nothing is sent.

    The first client of all is not counted: it makes the server load what every client shares.
    """
    clients.join(server.port, 1, server.greeted)
    time.sleep(SETTLE_S)
    empty_kb = machine.resident_kb(server.pid)
    clients.join(server.port, count - 1, server.greeted)
    time.sleep(SETTLE_S)
    return (machine.resident_kb(server.pid) - empty_kb) / (count - 1) if count > 1 else float("nan")


def _row(name: str, load: Load, sent: Sent, heard: Heard) -> dict[str, str | float]:
    events = load.order.events
    sending_s, hearing_s = (sent.last_ns - sent.first_ns) / NS, (heard.last_ns - sent.first_ns) / NS
    return {
        "server": name,
        "clients": load.clients,
        "events/s": (sent.events - 1) / sending_s if sending_s else float("nan"),
        "deliveries/s": heard.delivered / max(load.seconds, hearing_s),
        "delivered %": 100 * heard.delivered / (events * load.clients),
        "doubled": heard.doubled + heard.disordered,
        "gone": heard.gone,
        "p50 ms": heard.percentile_ms(50),
        "p99 ms": heard.percentile_ms(99),
        "feeder late ms": sent.latest_s * 1000,
    }
