"""An exchange of many symbols at an exact rate, as ``benchmarks.feeder`` is one of a single symbol.

Trades leave in turn, one symbol after another, at most once in a millisecond: so many as are due by then, in one write.
Each symbol numbers its own trades from ``FIRST_ID`` on, and each trade carries the moment of its write.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final

import trio
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from benchmarks.feeder import FIRST_ID, KEY, NS, SYMBOL, Order, Pace, Sent, read_head, switched
from komas.simulator import frames

TICK_S: Final = 0.001
READ_BYTES: Final = 2**16
STREAM: Final = re.compile(r"([a-z0-9]+)@trade")


def symbols(count: int) -> list[str]:
    """The symbols that there are; the first one is the feeder's."""
    return [SYMBOL, *(f"S{number:03}USDT" for number in range(1, count))]


def of_the_first(order: Order, count: int) -> int:
    """How many of an order's trades are of the first symbol."""
    return -(-order.events // count)


def feed(pipe: Connection, count: int) -> None:
    """Say the port; take an ``Order``, send it once every symbol has a reader, and answer with ``Sent``; again."""
    trio.run(_feed, pipe, symbols(count))


async def _feed(pipe: Connection, names: list[str]) -> None:
    exchange = _Exchange(names)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, exchange.accept, listeners)
        pipe.send(listeners[0].socket.getsockname()[1])
        while (order := await trio.to_thread.run_sync(_next_order, pipe)) is not None:
            await exchange.subscribed.wait()
            pipe.send(await exchange.play(order))
        nursery.cancel_scope.cancel("nobody orders any more")


def _next_order(pipe: Connection) -> Order | None:
    try:
        order = pipe.recv()
    except (EOFError, OSError):
        return None
    return order if isinstance(order, Order) else None


class _Exchange:
    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._readers: dict[str, trio.SocketStream] = {}
        self.subscribed = trio.Event()

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
            rows = [{"symbol": name, "status": "TRADING"} for name in self._names]
            listing = json.dumps({"timezone": "UTC", "symbols": rows}).encode()
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
            await stream.send_all(answer + b"%d\r\n\r\n%b" % (len(listing), listing))
            return
        await stream.send_all(switched(key[1]))
        self._take_wishes(stream, head.split(b"\r\n", 1)[0].decode())
        protocol = Protocol(ConnectionType.SERVER)
        async for data in stream:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                if isinstance(event, ws.TextMessage):
                    request = json.loads(event.data)
                    await stream.send_all(frames.text(b'{"result":null,"id":%d}' % request["id"]))
                    if request["method"] == "SUBSCRIBE":
                        self._take_wishes(stream, event.data)
                elif isinstance(event, ws.CloseConnection):
                    return

    def _take_wishes(self, stream: trio.SocketStream, wishes: str) -> None:
        self._readers |= dict.fromkeys(STREAM.findall(wishes), stream)
        if all(name.lower() in self._readers for name in self._names):
            self.subscribed.set()

    async def play(self, order: Order) -> Sent:
        """Send the trades, each at its time or, with those beside it, up to a millisecond later."""
        await trio.sleep(0.1)
        pace = Pace(order)
        while not pace.is_over:
            await trio.sleep(max(pace.wait_s(), TICK_S))
            due: dict[trio.SocketStream, list[bytes]] = {}
            for number, stamp_ns in _due(pace):
                turn, place = divmod(number - FIRST_ID, len(self._names))
                name = self._names[place]
                due.setdefault(self._readers[name.lower()], []).append(_frame(name, FIRST_ID + turn, stamp_ns))
            for reader, data in due.items():
                await reader.send_all(b"".join(data))
        return pace.sent()


def _due(pace: Pace) -> Iterator[tuple[int, int]]:
    while not (pace.is_over or pace.wait_s()):
        yield pace.leave()


def _frame(name: str, trade_id: int, stamp_ns: int) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    text = (
        f'{{"stream":"{name.lower()}@trade","data":{{"e":"trade","E":{now_ms},"s":"{name}","t":{trade_id},'
        f'"p":"61837.63000000","q":"{stamp_ns // NS}.{stamp_ns % NS:09}","T":{now_ms},"m":true,"M":true}}}}'
    )
    return frames.text(text.encode())
