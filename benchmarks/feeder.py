"""A source of trades at an exact rate, over Binance's combined-stream protocol.

The frames are raw: a server's frames are unmasked, so one is two or four bytes in front of its text, whereas a
library's ``send`` costs some 100 µs on the core that the load generator needs. The client's frames, of which there
is a handful, go through wsproto.

Each trade carries the moment it was sent, in seconds on the machine's monotonic clock, as its quantity: komas passes
digits on as they came, and every process of a machine reads the same clock.
"""

from __future__ import annotations

import json
import os
import re
import time
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import trio
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from komas.simulator import frames

SYMBOL: Final = "BTCUSDT"
STREAM: Final = f"{SYMBOL.lower()}@trade"
FIRST_ID: Final = 3_735_683_259  # as long as a real one
READ_BYTES: Final = 2**16
GIVE_UP_S: Final = 5.0
NS: Final = 10**9
KEY: Final = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
LISTING: Final = b'{"timezone":"UTC","symbols":[{"symbol":"%b","status":"TRADING"}]}' % SYMBOL.encode()


class Order(msgspec.Struct, frozen=True):
    """So many trades, so many each second."""

    rate: float
    events: int


class Sent(msgspec.Struct, frozen=True):
    """How many trades left, the first and the last when on the monotonic clock, and how late the latest of all was."""

    events: int
    first_ns: int
    last_ns: int
    latest_s: float


class Pace:
    """When each trade of an order leaves; one that is late leaves at once, so that the rate is kept.

    A reader that takes far fewer than it is offered is given up.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._begun_s = time.monotonic()
        self._count = 0
        self._latest_s = 0.0
        self._first_ns = self._last_ns = time.monotonic_ns()

    @property
    def is_over(self) -> bool:
        """Whether no trade is to leave any more."""
        return self._count >= self._order.events or self._latest_s > GIVE_UP_S

    def wait_s(self) -> float:
        """Seconds until the next one leaves."""
        return max(0.0, self._begun_s + self._count / self._order.rate - time.monotonic())

    def leave(self) -> tuple[int, int]:
        """Its id, and its moment: now, on the monotonic clock in nanoseconds."""
        self._last_ns = time.monotonic_ns()
        self._latest_s = max(self._latest_s, self._last_ns / NS - self._begun_s - self._count / self._order.rate)
        self._count += 1
        return FIRST_ID + self._count - 1, self._last_ns

    def sent(self) -> Sent:
        """What has left."""
        return Sent(self._count, self._first_ns, self._last_ns, self._latest_s)


def feed(pipe: Connection) -> None:
    """Say the port; take an ``Order``; answer with ``Sent``; go on serving until the pipe ends."""
    trio.run(_feed, pipe)


async def _feed(pipe: Connection) -> None:
    feeder = _Feeder()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, feeder.accept, listeners)
        pipe.send(listeners[0].socket.getsockname()[1])
        while (order := await trio.to_thread.run_sync(_next_order, pipe)) is not None:
            await feeder.subscribed.wait()
            pipe.send(await feeder.play(order))
        nursery.cancel_scope.cancel()


def _next_order(pipe: Connection) -> Order | None:
    try:
        order = pipe.recv()
    except (EOFError, OSError):
        return None
    return order if isinstance(order, Order) else None


async def read_head(stream: trio.SocketStream) -> bytes:
    """The head of a request; nothing from who leaves before its end."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            return b""
        head += data
    return head


def switched(key: bytes) -> bytes:
    """The answer to a handshake with that key."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %b\r\n\r\n" % frames.accept_key(key.decode()).encode()
    )


class _Feeder:
    """The double's small sister: one stream, one reader."""

    def __init__(self) -> None:
        self.subscribed = trio.Event()
        self._reader: trio.SocketStream | None = None

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one connection: a WebSocket, or one REST request."""
        async with stream:
            try:
                await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _serve(self, stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        if not head:
            return
        if (key := KEY.search(head)) is None:
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
            await stream.send_all(answer + b"%d\r\n\r\n%b" % (len(LISTING), LISTING))
            return
        await stream.send_all(switched(key[1]))
        self._take_wishes(stream, head.split(b"\r\n", 1)[0].decode())
        await self._converse(stream)

    def _take_wishes(self, stream: trio.SocketStream, wishes: str) -> None:
        if STREAM in wishes:
            self._reader = stream
            self.subscribed.set()

    async def _converse(self, stream: trio.SocketStream) -> None:
        protocol = Protocol(ConnectionType.SERVER)
        async for data in stream:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                if isinstance(event, ws.TextMessage):
                    request = json.loads(event.data)
                    await stream.send_all(frames.text(b'{"result":null,"id":%d}' % request["id"]))
                    self._take_wishes(stream, event.data)
                elif isinstance(event, ws.CloseConnection):
                    return

    async def play(self, order: Order) -> Sent:
        """Send the trades, each at its time."""
        reader = self._reader
        assert reader is not None  # subscribed
        await trio.sleep(0.1)
        pace = Pace(order)
        while not pace.is_over:
            await trio.sleep(pace.wait_s())
            data = frame(*pace.leave())
            left = data[_write(reader, data) :]
            if left:
                await reader.send_all(left)
        return pace.sent()


def _write(stream: trio.SocketStream, data: bytes) -> int:
    """Write without Trio's steps, which would count as the reader's latency; returns how much was taken."""
    try:
        return os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        return 0


def frame(trade_id: int, stamp_ns: int) -> bytes:
    """One trade as Binance frames it, with its moment for a quantity."""
    now_ms = time.time_ns() // 1_000_000
    text = (
        f'{{"stream":"{STREAM}","data":{{"e":"trade","E":{now_ms},"s":"{SYMBOL}","t":{trade_id},'
        f'"p":"61837.63000000","q":"{stamp_ns // NS}.{stamp_ns % NS:09}","T":{now_ms},"m":true,"M":true}}}}'
    )
    return frames.text(text.encode())
