"""Those who have nothing to do with an attack, in a process of their own: what becomes of them while it goes on.

A prober asks ``/healthz``, each time over a new connection. A good reader reads the trades of one pair, each of which
carries the moment at which it was due. Others ask what the attack must not keep from them. Every one of them has an
address of its own (127.0.1.x, Linux).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import trio

from tests.hostile.exchange import PAIR, symbol

READER, PROBER, ASKER, BAITED = "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"
PROBE_EVERY_S: Final = 0.04
PROBE_S: Final = 20.0  # that a probe may take at most, and counts with when it takes longer
READ_BYTES: Final = 2**16
FIRST_S: Final = 15.0  # to the first trade
SETTLE_S: Final = 1.0
NS: Final = 10**9
ONCE_S: Final = 1e6  # for ``every_s``
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
TRADE: Final = re.compile(rb'"trade_id":(\d+),"price":[^,]+,"quantity":(\d+)\.(\d{9})')
NOTICE: Final = re.compile(rb"^event: (gap|lagged|busy)\r?\ndata: ([^\n]*)", re.MULTILINE)
FRESH: Final = 3_999  # symbols that nobody wanted before are counted down from this one


class Ask(msgspec.Struct, frozen=True):
    """What somebody else must get, while the attack goes on: again each ``every_s``, within ``within_s``.

    ``{fresh}`` in path or body is another symbol each time.
    """

    path: str
    method: str = "GET"
    body: str = ""
    token: str = ""
    every_s: float = 1.0
    within_s: float = 2.0


class Watch(msgspec.Struct, frozen=True):
    """What the bystanders of one row do; ``baits`` are paths that are read and forgotten.

    As a rule the good reader reads already when the attack begins; where it begins with the first reader, that one is
    he (``is_read_before`` false).
    """

    port: int
    baits: tuple[str, ...] = ()
    asks: tuple[Ask, ...] = ()
    is_read_before: bool = True


class Seen(msgspec.Struct):
    """What became of them: latencies in ms, in no order; what the reader lost, and what others did not get.

    ``timer_ms`` is how late this process was itself: what the machine, and not the server, adds to the latencies.
    """

    healthz_ms: list[float] = []
    reader_ms: list[float] = []
    timer_ms: list[float] = []
    lost: int = 0
    cut: int = 0
    notices: list[str] = []
    asked: int = 0
    denied: list[str] = []


def watch(pipe: Connection) -> None:
    """Take a ``Watch``; say when the reader reads; take the seconds to measure; answer with what was ``Seen``."""
    pipe.send("up")
    trio.run(_watch, pipe, pipe.recv())


async def _watch(pipe: Connection, orders: Watch) -> None:
    bystanders = _Bystanders(orders)
    async with trio.open_nursery() as nursery:
        if orders.is_read_before:
            await nursery.start(bystanders.read)
        await trio.sleep(SETTLE_S)
        pipe.send("ready")
        seconds = await trio.to_thread.run_sync(pipe.recv)
        bystanders.seen = Seen()
        nursery.start_soon(bystanders.probe)
        if not orders.is_read_before:
            nursery.start_soon(bystanders.read)
        for bait in orders.baits:
            nursery.start_soon(bystanders.bite, bait)
        for ask in orders.asks:
            nursery.start_soon(bystanders.ask_on, ask, seconds)
        await trio.sleep(seconds)
        bystanders.count_late_probes()
        nursery.cancel_scope.cancel()
    pipe.send(bystanders.seen)
    await trio.to_thread.run_sync(pipe.poll, None, abandon_on_cancel=True)


class _Bystanders:
    def __init__(self, orders: Watch) -> None:
        self._orders = orders
        self._under_way: dict[float, None] = {}  # since when each probe that is not answered waits
        self._fresh = FRESH
        self.seen = Seen()

    @asynccontextmanager
    async def _dial(self, source: str) -> AsyncIterator[trio.SocketStream]:
        connection = trio.socket.socket()
        with connection:
            if sys.platform == "linux":
                await connection.bind((source, 0))
            await connection.connect(("127.0.0.1", self._orders.port))
            yield trio.SocketStream(connection)

    # The prober

    async def probe(self) -> None:
        """Ask on time, whether the last one was answered or not."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._probe_once)
                due = time.perf_counter() + PROBE_EVERY_S
                await trio.sleep(PROBE_EVERY_S)
                self.seen.timer_ms.append(1000 * (time.perf_counter() - due))

    async def _probe_once(self) -> None:
        began = time.perf_counter()
        self._under_way[began] = None
        is_well = False
        with suppress(*GONE), trio.move_on_after(PROBE_S):
            async with self._dial(PROBER) as stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
                answer = b""
                while more := await stream.receive_some(READ_BYTES):
                    answer += more
                is_well = answer.startswith(b"HTTP/1.1 200 ")
        del self._under_way[began]
        self.seen.healthz_ms.append(1000 * (time.perf_counter() - began) if is_well else 1000 * PROBE_S)

    def count_late_probes(self) -> None:
        """Those that still wait have waited so long already."""
        now = time.perf_counter()
        self.seen.healthz_ms += [1000 * (now - began) for began in self._under_way]

    # The good reader

    async def read(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read trades; one that is cut off comes again."""
        with trio.fail_after(FIRST_S) as patience:
            while True:
                with suppress(*GONE):
                    async with self._dial(READER) as stream:
                        await stream.send_all(_get(f"/api/ws/sse/trades?symbol={PAIR}"))
                        await self._read_on(stream, patience, task_status)
                self.seen.cut += 1
                await trio.sleep(0.2)

    async def _read_on(
        self, stream: trio.SocketStream, patience: trio.CancelScope, task_status: trio.TaskStatus[None]
    ) -> None:
        tail, expected = b"", 0
        while data := await stream.receive_some(READ_BYTES):
            now_ns = time.monotonic_ns()
            whole, mark, tail = (tail + data).rpartition(b"\n\n")
            for number, seconds, part in TRADE.findall(whole):
                if patience.deadline != float("inf"):
                    patience.deadline = float("inf")
                    task_status.started()
                expected = expected or int(number)
                self.seen.lost += abs(int(number) - expected)
                expected = int(number) + 1
                self.seen.reader_ms.append((now_ns - int(seconds) * NS - int(part)) / 1e6)
            self.seen.notices += [f"{name.decode()} {text.decode()}" for name, text in NOTICE.findall(whole + mark)]

    async def bite(self, bait: str) -> None:
        """Read something, and forget it."""
        while True:
            with suppress(*GONE):
                async with self._dial(BAITED) as stream:
                    await stream.send_all(_get(bait))
                    while await stream.receive_some(2**20):
                        pass
            await trio.sleep(0.5)

    # The others

    async def ask_on(self, ask: Ask, seconds: float) -> None:
        """Ask the same again and again, as long as there is time to be answered."""
        until = trio.current_time() + seconds - ask.within_s
        async with trio.open_nursery() as nursery:
            while trio.current_time() < until:
                nursery.start_soon(self._ask_once, ask)
                await trio.sleep(ask.every_s)

    async def _ask_once(self, ask: Ask) -> None:
        self._fresh -= 1
        began, answer = time.perf_counter(), b""
        with suppress(*GONE), trio.move_on_after(ask.within_s):
            async with self._dial(ASKER) as stream:
                await stream.send_all(_request(ask, symbol(self._fresh)))
                while not _is_answered(answer) and (more := await stream.receive_some(READ_BYTES)):
                    answer += more
        self.seen.asked += 1
        if (why := _why_denied(answer)) is not None:
            took_s = time.perf_counter() - began
            self.seen.denied.append(f"{ask.method} {ask.path.partition('?')[0]}: {why} after {took_s:.1f} s")


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def _request(ask: Ask, fresh: str) -> bytes:
    body = ask.body.replace("{fresh}", fresh)
    given = f"authorization: Bearer {ask.token}\r\n" if ask.token else ""
    return (
        f"{ask.method} {ask.path.replace('{fresh}', fresh)} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        f"{given}content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _is_answered(answer: bytes) -> bool:
    """Whether enough has come: of a stream of events the first one, of anything else the head."""
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and (b"text/event-stream" not in head.lower() or b"data: " in body)


def _why_denied(answer: bytes) -> str | None:
    if not _is_answered(answer):
        return "nothing"
    status = answer.split(b" ", 2)[1].decode("latin-1")
    if status != "200":
        return status
    return "busy" if b"event: busy" in answer else None
