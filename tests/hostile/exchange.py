"""An exchange of thousands of symbols that costs next to nothing: raw frames, one task for all of its events.

One pair, ``BTCUSDT``, trades at an exact rate: its quantity is the moment at which the trade was due, in seconds of the
machine's monotonic clock, so that a reader knows what the way took. Every other stream begins with one event when it is
subscribed to, and gets more of them in turn. Those that attack komas from this side are in ``hostile_exchanges``.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import trio
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from komas.simulator import frames

PAIR: Final = "BTCUSDT"
PAIR_STREAM: Final = f"{PAIR.lower()}@trade"
BAIT: Final = "ETHUSDT"  # what the hostile ones are hostile with
FIRST_ID: Final = 3_735_683_259  # as long as a real one
READ_BYTES: Final = 2**16
OUTBOX_BYTES: Final = 2**24  # what waits for one reader; events in turn stop for one that has so much
STEP_S: Final = 0.01
LEVELS: Final = 1000
SNAPSHOT_WEIGHT: Final = 50
NS: Final = 10**9
KEY: Final = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)


def symbol(number: int) -> str:
    """The name of a symbol."""
    return f"C{number:04}USDT"


class Plan(msgspec.Struct, frozen=True):
    """What is listed, and how busy it is: events a second of the pair, and of all other streams together.

    ``run`` is how many events in a row one of those gets, ``burst`` with how many a stream of trades begins.
    """

    symbols: int = 4000
    pace: float = 50.0
    others: float = 200.0
    run: int = 1
    burst: int = 1


class Reader:
    """One WebSocket of komas: what it asked for, and what is to be sent to it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._outbox: list[bytes] = []
        self._news = trio.Event()
        self.waiting_bytes = 0
        self.names: dict[str, None] = {}

    def put(self, data: bytes) -> None:
        """Send something, as soon as it can be."""
        self._outbox.append(data)
        self.waiting_bytes += len(data)
        self._news.set()

    def event(self, name: str, payload: bytes) -> None:
        """Send an event of a stream."""
        self.put(frames.text(frames.wrapped(name, payload)))

    @property
    def is_crowded(self) -> bool:
        """Whether it reads too slowly."""
        return self.waiting_bytes > OUTBOX_BYTES

    async def write(self) -> None:
        """Send what is put, until the connection ends."""
        while True:
            await self._news.wait()
            data, self._outbox, self._news = b"".join(self._outbox), [], trio.Event()
            await self._stream.send_all(data)
            self.waiting_bytes -= len(data)


class Exchange:
    """An exchange that does no harm: 4,000 symbols, REST and WebSockets on one port.

    ``found`` counts what an attacker wants to know.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.found: Counter[str] = Counter()
        self.readers: dict[Reader, None] = {}
        self._ids: Counter[str] = Counter()
        self._snapshots = 0
        self._minute = 0
        self._turn = 0
        self._trades = 0
        self._begun_ns, self._begun_ms = time.monotonic_ns(), time.time_ns() // 1_000_000

    async def serve(self, bind: str, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen at ``host:port``; tells the port."""
        host, _, port = bind.rpartition(":")
        listeners = await trio.open_tcp_listeners(int(port), host=host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.trade)
            nursery.start_soon(self.go_round)
            nursery.start_soon(self.misbehave)
            task_status.started(listeners[0].socket.getsockname()[1])
            await trio.serve_listeners(self.accept, listeners)

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one connection: a WebSocket, or REST requests."""
        try:
            async with stream:
                await self._converse(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self.found["hung up"] += 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        head = b""
        async for data in stream:
            head += data
            while b"\r\n\r\n" in head:
                request, _, head = head.partition(b"\r\n\r\n")
                target = urlsplit(request.split(b" ", 2)[1].decode())
                if (key := KEY.search(request)) is not None:
                    await self._open(stream, key[1].decode(), unquote(target.query).removeprefix("streams="))
                    return
                asked = {name: values[-1] for name, values in parse_qs(target.query).items()}
                await self.answer(stream, target.path.rpartition("/")[2], asked)

    # REST

    async def answer(self, stream: trio.SocketStream, what: str, asked: dict[str, str]) -> None:
        """Answer one REST request."""
        if what == "exchangeInfo":
            await respond(stream, listing(symbol(number) for number in range(self.plan.symbols)))
        elif what == "depth":
            await respond(stream, self.snapshot(asked["symbol"]), weight=self.weigh())
        elif what == "historicalTrades" and asked["symbol"] == PAIR:
            await respond(stream, self.trades(int(asked["fromId"]), int(asked["limit"])))
        else:
            await respond(stream, b"[]")  # of what was missed of others nothing is known

    def trades(self, first: int, count: int) -> bytes:
        """Trades of the pair from an id on, of those that there were."""
        numbers = range(max(first - FIRST_ID, 0), min(first - FIRST_ID + count, self._trades))
        return f"[{','.join(self._row(number) for number in numbers)}]".encode()

    def _row(self, number: int) -> str:
        at_ms = self._begun_ms + int(number / self.plan.pace * 1000)
        return (
            f'{{"id":{FIRST_ID + number},"price":"61837.63000000","qty":"{self._due(number)}","time":{at_ms},'
            '"isBuyerMaker":true}'
        )

    def _due(self, number: int) -> str:
        """When a trade of the pair was due, as a quantity."""
        due_ns = self._begun_ns + int(number / self.plan.pace * NS)
        return f"{due_ns // NS}.{due_ns % NS:09}"

    def weigh(self) -> int:
        """The weight that was used in this minute, one more snapshot included."""
        minute = int(time.time()) // 60
        self._snapshots, self._minute = self._snapshots * (minute == self._minute) + 1, minute
        return self._snapshots * SNAPSHOT_WEIGHT

    def snapshot(self, of: str) -> bytes:
        """A book of a thousand levels a side, as it is now."""
        return book(self._ids[f"{of.lower()}@depth@100ms"])

    # WebSockets

    async def _open(self, stream: trio.SocketStream, key: str, query: str) -> None:
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % frames.accept_key(key).encode()
        )
        reader = Reader(stream)
        self.readers[reader] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.write)
                self._add(reader, query.split("/") if query else ())
                await self._hear(reader, stream)
                nursery.cancel_scope.cancel()
        finally:
            del self.readers[reader]

    async def _hear(self, reader: Reader, stream: trio.SocketStream) -> None:
        protocol = Protocol(ConnectionType.SERVER)
        async for data in stream:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                if isinstance(event, ws.TextMessage):
                    self._obey(reader, json.loads(event.data))
                elif isinstance(event, ws.Ping):
                    reader.put(frames.frame(frames.PONG, bytes(event.payload)))
                elif isinstance(event, ws.CloseConnection):
                    return

    def _obey(self, reader: Reader, request: dict[str, object]) -> None:
        names = request.get("params")
        result = list(reader.names) if request["method"] == "LIST_SUBSCRIPTIONS" else None
        reader.put(frames.text(json.dumps({"result": result, "id": request["id"]}).encode()))
        if request["method"] == "SUBSCRIBE" and isinstance(names, list):
            self._add(reader, names)
        elif request["method"] == "UNSUBSCRIBE" and isinstance(names, list):
            for name in names:
                reader.names.pop(name, None)

    def _add(self, reader: Reader, names: Iterable[str]) -> None:
        for name in names:
            reader.names[name] = None
            if name != PAIR_STREAM:
                for _ in range(self.plan.burst if name.endswith("@trade") else 1):
                    self.next_event(reader, name)

    def number(self, name: str, step: int = 1) -> int:
        """The next number of a stream's events."""
        self._ids[name] += step
        return self._ids[name]

    def next_event(self, reader: Reader, name: str) -> None:
        """Send the next event of a stream."""
        of, _, kind = name.partition("@")
        if (write := EVENTS.get(kind)) is not None:
            reader.event(name, write(of.upper(), self.number(name), time.time_ns() // 1_000_000))

    # What happens by itself

    async def trade(self) -> None:
        """The pair's trades: each leaves when it is due, or as soon after as this process is let."""
        while True:
            elapsed_s = (time.monotonic_ns() - self._begun_ns) / NS
            await trio.sleep(max(0.0, self._trades / self.plan.pace - elapsed_s))
            number, self._trades = self._trades, self._trades + 1
            payload = trade(PAIR, FIRST_ID + number, time.time_ns() // 1_000_000, self._due(number))
            for reader in self.reading(PAIR_STREAM):
                reader.event(PAIR_STREAM, payload)

    def reading(self, name: str) -> list[Reader]:
        """Who reads a stream."""
        return [reader for reader in self.readers if name in reader.names]

    async def go_round(self) -> None:
        """The other streams' events, in turn."""
        due, last_s = 0.0, time.monotonic()
        while True:
            await trio.sleep(STEP_S)
            now_s = time.monotonic()
            due, last_s = due + (now_s - last_s) * self.plan.others, now_s
            names = [(reader, name) for reader in self.readers for name in reader.names if name != PAIR_STREAM]
            while due >= self.plan.run:
                due -= self.plan.run
                if names:
                    self._turn = (self._turn + 1) % len(names)
                    self._give(*names[self._turn])

    def _give(self, reader: Reader, name: str) -> None:
        if not reader.is_crowded:
            for _ in range(self.plan.run):
                self.next_event(reader, name)

    async def misbehave(self) -> None:
        """What a hostile one does by itself."""


async def respond(stream: trio.SocketStream, body: bytes, status: str = "200 OK", *, weight: int = 1) -> None:
    """Answer one request."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-mbx-used-weight-1m: {weight}\r\n"
    await stream.send_all(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


def listing(symbols: Iterable[str]) -> bytes:
    """An ``exchangeInfo``: the two that trade, and others."""
    rows = ",".join(f'{{"symbol":"{name}","status":"TRADING"}}' for name in (PAIR, BAIT, *symbols))
    return f'{{"timezone":"UTC","symbols":[{rows}]}}'.encode()


def _levels(first: int, step: int, end: str) -> str:
    return ",".join(f'["{first + step * place}.00","1.00000000"{end}]' for place in range(LEVELS))


def book(update_id: int, end: str = "") -> bytes:
    """A snapshot of a book around 61,000; ``end`` is put into each level."""
    return (
        f'{{"lastUpdateId":{update_id},"bids":[{_levels(60_999, -1, end)}],"asks":[{_levels(61_001, 1, end)}]}}'
    ).encode()


def trade(of: str, number: int, now_ms: int, quantity: str = "0.02000000") -> bytes:
    """A trade."""
    return (
        f'{{"e":"trade","E":{now_ms},"s":"{of}","t":{number},"p":"61837.63000000","q":"{quantity}",'
        f'"T":{now_ms},"m":true,"M":true}}'
    ).encode()


def aggregate(of: str, number: int, now_ms: int) -> bytes:
    """An aggregate trade."""
    return (
        f'{{"e":"aggTrade","E":{now_ms},"s":"{of}","a":{number},"p":"61837.63000000","q":"0.02000000",'
        f'"f":{number},"l":{number},"T":{now_ms},"m":true,"M":true}}'
    ).encode()


def depth(of: str, number: int, now_ms: int, bids: str = "", asks: str = "") -> bytes:
    """A change of a book; of one level, unless levels are given."""
    bids = bids or f'["60990.00","{number % 9 + 1}.00000000"]'
    return (
        f'{{"e":"depthUpdate","E":{now_ms},"s":"{of}","U":{number},"u":{number},"b":[{bids}],"a":[{asks}]}}'
    ).encode()


def _book_ticker(of: str, number: int, _now_ms: int) -> bytes:
    return f'{{"u":{number},"s":"{of}","b":"61837.63","B":"3.78826","a":"61837.64","A":"1.54"}}'.encode()


def _ticker(event: str) -> Callable[[str, int, int], bytes]:
    def write(of: str, number: int, now_ms: int) -> bytes:
        price = f"{61_000 + number % 1000}.63000000"
        return (
            f'{{"e":"{event}","E":{now_ms},"s":"{of}","p":"12.50000000","P":"0.020","c":"{price}",'
            f'"o":"61000.00000000","h":"62100.10000000","l":"60900.20000000","v":"12345.67890000",'
            f'"q":"752345678.12345678"}}'
        ).encode()

    return write


EVENTS: Final[dict[str, Callable[[str, int, int], bytes]]] = {
    "trade": trade,
    "aggTrade": aggregate,
    "depth@100ms": depth,
    "bookTicker": _book_ticker,
    "ticker": _ticker("24hrTicker"),
    "miniTicker": _ticker("24hrMiniTicker"),
}
