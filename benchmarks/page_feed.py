"""An exchange for the page: every symbol's ticker at one rate, and all that the page shows of the first symbol.

Frames are raw, as in ``feeder``; prices move at every event, so that nothing is drawn for nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import trio
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from benchmarks.feeder import KEY, read_head, switched
from komas.simulator import frames

COINS: Final = (
    "BTC ETH SOL BNB XRP DOGE ADA AVAX LINK DOT TRX LTC BCH UNI ATOM XLM ETC FIL APT ARB OP NEAR INJ SUI SEI TIA "
    "AAVE MKR RUNE FTM ALGO SAND MANA AXS GALA CHZ EOS XTZ KAVA ZEC DASH COMP SNX CRV LDO IMX GRT STX ICP HBAR"
)
TICKS_S: Final = 200  # so often something leaves
EVENTS_EACH_S: Final = 100  # tickers of each symbol, and trades of the first one
SLOW: Final = 20  # of so many ticks one brings a change of the book, and of the candle: ten a second
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
FIRST_ID: Final = 3_735_683_259  # as long as a real one
LEVELS: Final = 100


def symbols(count: int) -> list[str]:
    """So many, at most fifty."""
    return [f"{coin}USDT" for coin in COINS.split()[:count]]


def feed(pipe: Connection, count: int) -> None:
    """Say the port, and play until the process is ended."""
    trio.run(_serve, pipe, symbols(count))


async def _serve(pipe: Connection, names: list[str]) -> None:
    exchange = _Exchange(names)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, exchange.accept, listeners)
        nursery.start_soon(exchange.play)
        pipe.send(listeners[0].socket.getsockname()[1])


class _Reader:
    """One WebSocket, and the streams that it wants."""

    def __init__(self, stream: trio.SocketStream, wanted: set[str]) -> None:
        self._stream = stream
        self._writing = trio.Lock()
        self.wanted = wanted

    async def send(self, data: bytes) -> None:
        """Write frames."""
        async with self._writing:
            await self._stream.send_all(data)

    async def read(self) -> None:
        """Do what it asks for, until it leaves."""
        protocol = Protocol(ConnectionType.SERVER)
        async for data in self._stream:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                if isinstance(event, ws.TextMessage):
                    await self.send(frames.text(self._answer(json.loads(event.data))))
                elif isinstance(event, ws.CloseConnection):
                    return

    def _answer(self, request: dict[str, Any]) -> bytes:
        names = request.get("params") or []
        if request["method"] == "SUBSCRIBE":
            self.wanted.update(names)
        elif request["method"] == "UNSUBSCRIBE":
            self.wanted.difference_update(names)
        listed = json.dumps(sorted(self.wanted)) if request["method"] == "LIST_SUBSCRIPTIONS" else "null"
        return f'{{"result":{listed},"id":{request["id"]}}}'.encode()


class _Exchange:
    """Everything is decided by how many ticks have passed."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._tick = 0
        self._base = {name: 60_000 / (1 + at) for at, name in enumerate(names)}
        self._readers: set[_Reader] = set()

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one connection: a WebSocket, or one REST request."""
        async with stream:
            try:
                head = await read_head(stream)
                if not head:
                    return
                target = head.split(b" ", 2)[1].decode()
                if (key := KEY.search(head)) is None:
                    await stream.send_all(_answer(self._rest(target)))
                else:
                    await self._converse(stream, target, key[1])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _converse(self, stream: trio.SocketStream, target: str, key: bytes) -> None:
        await stream.send_all(switched(key))
        reader = _Reader(stream, set(parse_qs(urlsplit(target).query).get("streams", [""])[0].split("/")))
        self._readers.add(reader)
        try:
            await reader.read()
        finally:
            self._readers.discard(reader)

    async def play(self) -> None:
        """Send each reader what it wants, at its time."""
        begun = trio.current_time()
        while True:
            await trio.sleep_until(begun + self._tick / TICKS_S)
            now_ms = time.time_ns() // 1_000_000
            news = [
                (stream, frames.text(f'{{"stream":"{stream}","data":{data}}}'.encode()))
                for stream, data in self._news(now_ms)
            ]
            for reader in list(self._readers):
                if data := b"".join(frame for stream, frame in news if stream in reader.wanted):
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await reader.send(data)
            self._tick += 1

    def _news(self, now_ms: int) -> Iterator[tuple[str, str]]:
        apart = TICKS_S // EVENTS_EACH_S
        for name in self._names[self._tick % apart :: apart]:
            yield f"{name.lower()}@ticker", self._ticker(name, now_ms)
        first = self._names[0]
        if self._tick % apart == 0:
            yield f"{first.lower()}@trade", self._trade(first, now_ms)
        if self._tick % SLOW == 0:
            yield f"{first.lower()}@depth@100ms", self._change(first, now_ms)
            yield f"{first.lower()}@kline_1m", self._candle(first, now_ms)

    def _price(self, name: str, apart: int = 0) -> str:
        moved = ((self._tick + apart) * 7_919 % 2_003 - 1_000) / 1e5
        return f"{self._base[name] * (1 + moved):.2f}000000"

    def _ticker(self, name: str, now_ms: int) -> str:
        price, tick = self._price(name), self._tick
        return (
            f'{{"e":"24hrTicker","E":{now_ms},"s":"{name}","p":"{tick % 977}.13000000",'
            f'"P":"{tick % 9 - 4}.{tick % 1000:03}","w":"{price}","x":"{price}","c":"{price}",'
            f'"Q":"0.10000000","b":"{price}","B":"1.00000000","a":"{price}","A":"1.00000000","o":"{price}",'
            f'"h":"{price}","l":"{price}","v":"12557.25960000","q":"{self._base[name] * 20_000 + tick:.2f}000000",'
            f'"O":{now_ms - DAY_MS},"C":{now_ms},"F":1,"L":{tick},"n":{tick}}}'
        )

    def _trade(self, name: str, now_ms: int) -> str:
        return (
            f'{{"e":"trade","E":{now_ms},"s":"{name}","t":{FIRST_ID + self._tick * EVENTS_EACH_S // TICKS_S},'
            f'"p":"{self._price(name)}","q":"0.{self._tick % 99_999:05}000","T":{now_ms},'
            f'"m":{"true" if self._tick % 3 else "false"},"M":true}}'
        )

    @property
    def _update(self) -> int:
        return FIRST_ID + self._tick // SLOW

    def _change(self, name: str, now_ms: int) -> str:
        update = self._update
        sides = [
            ",".join(
                f'["{self._level(name, way, at)}","0.{(update * 37 + at) % 9_000 + 999:05}000"]'
                for at in range(update % 3, 30, 3)
            )
            for way in (-1, 1)
        ]
        bids, asks = sides
        numbers = f'"U":{update},"u":{update}'
        return f'{{"e":"depthUpdate","E":{now_ms},"s":"{name}",{numbers},"b":[{bids}],"a":[{asks}]}}'

    def _level(self, name: str, way: int, at: int) -> str:
        return f"{self._base[name] + way * (at + 1) * 0.37:.2f}000000"

    def _candle(self, name: str, now_ms: int) -> str:
        opened = now_ms // MINUTE_MS * MINUTE_MS
        low, high = sorted((self._price(name), self._price(name, 1)), key=float)
        return (
            f'{{"e":"kline","E":{now_ms},"s":"{name}","k":{{"t":{opened},"T":{opened + MINUTE_MS - 1},"s":"{name}",'
            f'"i":"1m","f":1,"L":2,"o":"{low}","c":"{high}","h":"{high}","l":"{low}",'
            f'"v":"{now_ms - opened}.5","n":2,"x":false,"q":"1.0","V":"1.0","Q":"1.0","B":"0"}}}}'
        )

    def _rest(self, target: str) -> str:
        url = urlsplit(target)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        match url.path.rsplit("/", 1)[1]:
            case "exchangeInfo":
                return json.dumps({"timezone": "UTC", "symbols": [_listed(name) for name in self._names]})
            case "24hr":
                return json.dumps(
                    [{"symbol": name, "quoteVolume": f"{20_000 * self._base[name]:.2f}"} for name in self._names]
                )
            case "depth":
                sides = [
                    [[self._level(asked["symbol"], way, at), "0.50000000"] for at in range(LEVELS)] for way in (-1, 1)
                ]
                return json.dumps({"lastUpdateId": self._update, "bids": sides[0], "asks": sides[1]})
            case "klines":
                return json.dumps(self._past(asked))
            case _:
                return "[]"

    def _past(self, asked: dict[str, str]) -> list[list[object]]:
        minutes = 30 if asked["interval"] == "30m" else 1
        step = minutes * MINUTE_MS
        last = int(asked.get("endTime", time.time() * 1000)) // step
        rows: list[list[object]] = []
        for at in range(last - int(asked.get("limit", 500)) + 1, last + 1):
            base = self._base[asked["symbol"]]
            low, high = (f"{base * (1 + (at * k % 101 - 50) / 1e4):.2f}" for k in (13, 29))
            top, bottom = max(low, high, key=float), min(low, high, key=float)
            rows.append(
                [at * step, low, top, bottom, high, "30000.5", (at + 1) * step - 1, "99.5", 9, "1.0", "1.0", "0"]
            )
        return rows


def _listed(name: str) -> dict[str, object]:
    return {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": name.removesuffix("USDT"),
        "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001000"},
        ],
    }


def _answer(body: str) -> bytes:
    data = body.encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % len(data) + data
