"""Readers of the cluster: each follows streams at one node after another, and comes back with its last place."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Final
from urllib.parse import quote

import h11
import httpx
import msgspec
import trio
import trio_websocket

from benchmarks.cluster.ledger import REMEMBERED, Account, Ledger, Place
from benchmarks.cluster.servers import Server, World

CONNECT_S: Final = 1.0
AGAIN_S: Final = 0.1
STAYS_S: Final = (1.0, 8.0)
SILENT_S: Final = 0.1  # a pause that is worth noting
READ_BYTES: Final = 2**16


class _Data(msgspec.Struct):
    """Of an event, what is compared; of a trade or a candle."""

    type: str = ""
    trade_id: int = 0
    timestamp: int = 0
    price: float = 0.0
    quantity: float = 0.0
    close: float = 0.0
    volume: float = 0.0
    is_closed: bool = False

    def numbered(self) -> tuple[int, tuple[float, float]] | None:
        """Number and value, of what must not be lost."""
        if self.type == "trade":
            return self.trade_id, (self.price, self.quantity)
        return (self.timestamp, (self.close, self.volume)) if self.is_closed else None


class _Message(msgspec.Struct):
    type: str = ""
    stream: str | None = ""
    data: _Data | None = None
    position: str = ""


class _Gap(msgspec.Struct, rename={"first": "from", "last": "to"}):
    stream: str
    first: int | None
    last: int | None
    filled: bool = False
    reason: str | None = None


_messages: Final = msgspec.json.Decoder(_Message)
_gaps: Final = msgspec.json.Decoder(_Gap)


class BusyError(Exception):
    """The server says that one is to come back later."""


class ServerSentEvent(msgspec.Struct):
    """One event of an event stream; ``id`` is the newest that was given."""

    name: str
    data: bytes
    id: str


class _Lines:
    """The lines of an event stream, as they come, made events."""

    def __init__(self, last_id: str) -> None:
        self._rest = self._data = b""
        self._name = ""
        self._id = last_id

    def take(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Take some bytes; returns the events that end there."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            field, _, value = line.removesuffix(b"\r").partition(b": ")
            match field:
                case b"data":
                    self._data = value
                case b"event":
                    self._name = value.decode()
                case b"id":
                    self._id = value.decode()
                case b"" if self._data:
                    yield ServerSentEvent(self._name, self._data, self._id)
                    self._name, self._data = "", b""


async def server_sent_events(port: int, path: str, last_id: str) -> AsyncGenerator[ServerSentEvent, None]:
    """Events of one response, until it ends; raises what the connection does. Close it (``aclosing``)."""
    with trio.fail_after(CONNECT_S):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        http, lines = h11.Connection(h11.CLIENT), _Lines(last_id)
        headers = [
            ("Host", f"127.0.0.1:{port}"),
            ("Accept", "text/event-stream"),
            *([("Last-Event-ID", last_id)] if last_id else []),
        ]
        request = h11.Request(method="GET", target=path, headers=headers)
        await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(READ_BYTES))
            elif isinstance(event, h11.Response):
                if event.status_code != httpx.codes.OK:
                    raise BusyError(f"answered {event.status_code}")
            elif isinstance(event, h11.Data):
                for each in lines.take(bytes(event.data)):
                    yield each
            else:
                return


class Reader:
    """Reads streams somewhere, and goes on elsewhere after a while or a cut; ``run()`` it.

    One that is ``bound`` to a node stays there. Each notes the silences of its first stream: when one began, and how
    long it was.
    """

    def __init__(
        self, world: World, ledger: Ledger, name: str, streams: Sequence[str], *, bound: Server | None = None, seed: int
    ) -> None:
        self._world = world
        self._ledger = ledger
        self._dice = random.Random(seed)
        self.name = name
        self.streams = streams
        self.bound = bound
        self.accounts = {stream: Account(ledger, name, stream) for stream in streams}
        self.places: dict[str, deque[Place]] = {stream: deque(maxlen=REMEMBERED) for stream in streams}
        self.place = ""
        self.at = ""
        self.silences: deque[tuple[float, float]] = deque(maxlen=2000)
        self.cut_at: deque[float] = deque(maxlen=2000)
        self.heard_at = 0.0
        self.visits = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            node = self.bound or self._dice.choice(self._world.nodes)
            stays_s = float("inf") if self.bound else self._dice.uniform(*STAYS_S)
            self.at = node.name
            self.visits += 1
            for account in self.accounts.values():
                account.where = node.name
            if self.place:
                self._ledger.counts.resumes += 1
            patience = trio.CancelScope(deadline=trio.current_time() + stays_s)
            try:
                with patience:
                    await self._read(node.port)
            except* (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError, BusyError):
                pass
            if not patience.cancelled_caught:
                await trio.sleep(AGAIN_S)
            self.cut_at.append(trio.current_time())

    async def _read(self, port: int) -> None:
        raise NotImplementedError

    def _hear(self) -> None:
        now = trio.current_time()
        if now - self.heard_at > SILENT_S and self.heard_at:
            self.silences.append((self.heard_at, now - self.heard_at))
        self.heard_at = now
        self._ledger.now = now - self._world.began

    def _take_gap(self, data: bytes) -> None:
        gap = _gaps.decode(data)
        if not gap.filled:
            self.accounts[gap.stream].gap(gap.first, gap.last, gap.reason or "no reason")

    def _take(self, stream: str, data: _Data | None, place: str) -> None:
        if data is None or (numbered := data.numbered()) is None:
            return
        number, value = numbered
        if stream == self.streams[0]:
            self._hear()
        self.place = place
        self.places[stream].append(Place(place, number, self.heard_at))
        self.accounts[stream].event(number, value, f"{place} in visit {self.visits}")


class EventReader(Reader):
    """Server-Sent Events at a path; of one stream, or of several."""

    @property
    def path(self) -> str:
        """What is asked for."""
        return path_of(self.streams)

    async def _read(self, port: int) -> None:
        async with aclosing(server_sent_events(port, self.path, self.place)) as events:
            async for event in events:
                if event.name == "busy":
                    raise BusyError(event.data.decode())
                if event.name == "gap":
                    self._take_gap(event.data)
                elif not event.name:
                    message = _messages.decode(event.data)
                    self._take(message.stream or self.streams[0], message.data, event.id)


class SocketReader(Reader):
    """``/ws/market``."""

    async def _read(self, port: int) -> None:
        since = f"&since={self.place}" if self.place else ""
        resource = f"/ws/market?streams={quote('/'.join(self.streams))}{since}"
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream, trio.open_nursery() as nursery:
            try:
                with trio.fail_after(2 * CONNECT_S):
                    socket = await trio_websocket.wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", resource)
                await self._listen(socket)
            except (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
                raise BusyError(str(error)) from error
            finally:
                nursery.cancel_scope.cancel("this visit is over")

    async def _listen(self, socket: trio_websocket.WebSocketConnection) -> None:
        while True:
            text = str(await socket.get_message()).encode()
            message = _messages.decode(text)
            if message.type == "gap":
                self._take_gap(text)
            elif message.data is not None:
                self._take(message.stream or "", message.data, message.position)


def path_of(streams: Sequence[str]) -> str:
    """The path of an event stream: of one stream its own, of several the one of many."""
    if len(streams) > 1:
        return f"/api/ws/sse/stream?streams={'/'.join(streams)}"
    symbol, _, kind = streams[0].partition("@")
    if kind == "trade":
        return f"/api/ws/sse/trades?symbol={symbol.upper()}"
    return f"/api/ws/sse/klines?symbol={symbol.upper()}&interval={kind.removeprefix('kline_')}"


def read_event(data: bytes) -> tuple[str | None, tuple[int, tuple[float, float]] | None]:
    """Stream, number and value of an event; when it was received, and from where, is each leader's own."""
    message = _messages.decode(data)
    return message.stream, message.data.numbered() if message.data is not None else None


class _Sent(msgspec.Struct):
    """The exchange's own message: a trade, or a candle."""

    t: int = 0
    p: float | str = 0.0
    q: float | str = 0.0
    k: dict[str, object] | None = None


class _Frame(msgspec.Struct):
    stream: str
    data: _Sent


_frames: Final = msgspec.json.Decoder(_Frame)


async def read_tape(world: World, ledger: Ledger, streams: Sequence[str]) -> None:
    """Read from the exchange itself what it says, as a program that was never cut off."""
    url = f"ws://127.0.0.1:{world.exchange_port}/stream?streams={'/'.join(streams)}"
    async with trio_websocket.open_websocket_url(url) as socket:
        while True:
            frame = _frames.decode(await socket.get_message())
            sent = frame.data
            if sent.k is None:
                ledger.tape.note(frame.stream, sent.t, (float(sent.p), float(sent.q)))
            elif sent.k["x"]:
                value = float(str(sent.k["c"])), float(str(sent.k["v"]))
                ledger.tape.note(frame.stream, int(str(sent.k["t"])), value)
