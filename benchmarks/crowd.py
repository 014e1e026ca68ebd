"""A crowd of SSE clients in one light process: raw sockets, one selector, no HTTP library.

A read is searched for its last id and the number of its trades; the moment at which a trade was sent is parsed once for
each trade, not for each delivery. Nothing is assumed about the server but the trade's id and quantity in its data.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from benchmarks.feeder import FIRST_ID, NS, SYMBOL

CONNECT_S: Final = 30.0
READ_BYTES: Final = 2**18
SILENCE_NS: Final = 3 * NS
REQUEST: Final = (
    f"GET /api/ws/sse/trades?symbol={SYMBOL} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n".encode()
)
ENDS: Final = (b"\n\n", b"\r\n\r\n")  # of an event; sse-starlette ends its lines with both
GREETED: Final = b"retry: "  # the first line of a stream, sent once its client is registered
MARK: Final = b'"trade_id":'
ID: Final = re.compile(rb'"trade_id":(\d+)')
STAMP: Final = re.compile(rb'"trade_id":(\d+),"price":[^,]+,"quantity":(\d+)\.(\d{9})')


class Heard(msgspec.Struct, frozen=True):
    """What a crowd heard: unique trades, repeats, latencies in ascending order, and when the last trade came."""

    delivered: int
    doubled: int
    disordered: int
    gone: int
    latencies_ns: list[int]
    last_ns: int

    def percentile_ms(self, percent: float) -> float:
        """A percentile of all deliveries' latencies; NaN where there was none."""
        if not self.latencies_ns:
            return float("nan")
        place = min(len(self.latencies_ns) - 1, int(len(self.latencies_ns) * percent / 100))
        return self.latencies_ns[place] / 1e6


class _Client:
    __slots__ = ("disordered", "doubled", "gone", "mark", "missing", "next_id", "socket", "tail")

    def __init__(self, connection: socket.socket | ssl.SSLSocket) -> None:
        self.socket = connection
        self.mark = ENDS[0]
        self.tail = b""
        self.next_id = FIRST_ID
        self.missing: set[int] = set()
        self.doubled = 0
        self.disordered = 0
        self.gone = False

    @property
    def delivered(self) -> int:
        """How many different trades came."""
        return self.next_id - FIRST_ID - len(self.missing)

    def judge(self, trade_id: int) -> bool:
        """Note a trade that is not the next one; whether it is new."""
        if trade_id >= self.next_id:
            self.missing.update(range(self.next_id, trade_id))
            self.next_id = trade_id + 1
        elif trade_id in self.missing:
            self.missing.remove(trade_id)
            self.disordered += 1
        else:
            self.doubled += 1
            return False
        return True


class Crowd:
    """Clients that have been greeted, and what they hear."""

    def __init__(self, selector: selectors.BaseSelector, tls: ssl.SSLContext | None) -> None:
        self._selector = selector
        self._tls = tls
        self._clients: list[_Client] = []
        self._stamps: dict[int, int] = {}  # id → moment of sending
        self._latencies = array("q")
        self._last_ns = 0
        self._buffer = bytearray(READ_BYTES)

    def join(self, port: int, count: int, greeted: bytes = GREETED) -> None:
        """Connect so many clients, and wait for each one's greeting."""
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), CONNECT_S)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname="localhost")
            client = _Client(connection)
            self._clients.append(client)
            connection.sendall(REQUEST)
            self._selector.register(connection, selectors.EVENT_READ, client)
        for client in self._clients[-count:] if count else []:
            self._await_greeting(client, greeted)
            client.socket.setblocking(False)

    def _await_greeting(self, client: _Client, greeted: bytes) -> None:
        while greeted not in client.tail:
            data = client.socket.recv(READ_BYTES)
            if not data:
                raise RuntimeError(f"the server turned a client away: {client.tail[:300]!r}")
            client.tail += data
        client.mark = ENDS[b"\r\n\r\n" in client.tail.partition(b"\r\n\r\n")[2]]
        client.tail = b""

    def leave(self) -> None:
        """Close every client."""
        for client in self._clients:
            client.socket.close()

    def listen(self, events: int, sent_ns: int, deadline_ns: int) -> Heard:
        """Listen until everybody has the last of so many trades, or until nothing more comes.

        ``sent_ns`` is when all has been sent; from then on a silence of ``SILENCE_NS`` is the end.
        """
        end = FIRST_ID + events
        waiting = set(self._clients)
        while waiting and (now_ns := time.monotonic_ns()) < deadline_ns:
            if now_ns - max(sent_ns, self._last_ns) > SILENCE_NS:
                break
            for key, _ in self._selector.select(0.2):
                client: _Client = key.data
                self._hear(client)
                if client.next_id >= end or client.gone:
                    waiting.discard(client)
        return Heard(
            delivered=sum(client.delivered for client in self._clients),
            doubled=sum(client.doubled for client in self._clients),
            disordered=sum(client.disordered for client in self._clients),
            gone=sum(client.gone for client in self._clients),
            latencies_ns=sorted(self._latencies),
            last_ns=self._last_ns,
        )

    def _hear(self, client: _Client) -> None:
        data = self._read(client.socket)
        now_ns = time.monotonic_ns()
        if data is None:
            return
        if not data:
            client.gone = True
            self._selector.unregister(client.socket)
            return
        text = client.tail + data
        end = text.rfind(client.mark) + len(client.mark) if client.mark in text else 0
        client.tail = text[end:]
        if end:
            self._note(client, text[:end], now_ns)

    def _read(self, connection: socket.socket) -> bytes | None:
        """What has come; ``None`` where that is no data yet. A new buffer for each read costs more than the read."""
        if self._tls is None:
            return bytes(memoryview(self._buffer)[: connection.recv_into(self._buffer)])
        size = 0
        view = memoryview(self._buffer)
        try:
            while size < READ_BYTES and (more := connection.recv_into(view[size:])):
                size += more  # a record each
        except ssl.SSLWantReadError:
            return bytes(view[:size]) if size else None
        return bytes(view[:size])

    def _note(self, client: _Client, text: bytes, now_ns: int) -> None:
        """Note what a read brought: as many trades as there are ids from the next one to the last are those."""
        place, count = text.rfind(MARK), text.count(MARK)
        if not count:
            return
        self._last_ns = now_ns
        last = int(text[place + len(MARK) : text.index(b",", place)])
        if last not in self._stamps:
            self._learn(text)
        first = client.next_id
        if last - first + 1 == count:
            client.next_id = last + 1
            self._latencies.extend([now_ns - self._stamps[trade_id] for trade_id in range(first, last + 1)])
            return
        for digits in ID.findall(text):
            trade_id = int(digits)
            if trade_id == client.next_id:
                client.next_id += 1
            elif not client.judge(trade_id):
                continue
            self._latencies.append(now_ns - self._stamps[trade_id])

    def _learn(self, text: bytes) -> None:
        for digits, seconds, part in STAMP.findall(text):
            self._stamps[int(digits)] = int(seconds) * NS + int(part)


@contextmanager
def crowd(tls: ssl.SSLContext | None = None) -> Iterator[Crowd]:
    """An empty crowd, which leaves at the end of the block; it may speak TLS."""
    with selectors.DefaultSelector() as selector:
        gathered = Crowd(selector, tls)
        try:
            yield gathered
        finally:
            gathered.leave()
