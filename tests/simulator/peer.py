"""A scripted client of the double, over streams in memory, and the double that it talks to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing
import wsproto
import wsproto.events as ws

from komas.simulator.exchange import Exchange
from komas.simulator.fault_script import AnyFault
from komas.simulator.market import Event
from komas.simulator.options import Limits, SimOptions
from komas.simulator.player import Player, SyntheticPlayer

START_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
START_MS = 1_767_225_600_000
NO_LIMITS = Limits(life_s=1e9, dials=10**9)


class Ended(Exception):
    """The other side ended the stream."""


class Peer:
    """One client. Pings are answered unless ``deaf``."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, deaf: bool = False) -> None:
        self.stream = stream
        self.deaf = deaf
        self.pings: list[bytes] = []
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._events: list[ws.Event] = []
        self._text = ""

    async def shake_hands(self, path: str) -> None:
        """Ask for a WebSocket."""
        await self.stream.send_all(self._ws.send(ws.Request(host="double", target=path)))

    async def event(self) -> ws.Event:
        """The next protocol event; ``Ended`` when there is none to come."""
        while not self._events:
            try:
                data = await self.stream.receive_some(1 << 16)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as cut:
                raise Ended from cut
            if not data:
                raise Ended
            self._ws.receive_data(bytes(data))
            self._events += self._ws.events()
        event = self._events.pop(0)
        if isinstance(event, ws.Ping):
            self.pings.append(bytes(event.payload))
            if not self.deaf and self._ws.state is wsproto.connection.ConnectionState.OPEN:
                await self.stream.send_all(self._ws.send(event.response()))
        return event

    async def message(self) -> Any:
        """The next text message, decoded."""
        while True:
            event = await self.event()
            if isinstance(event, ws.CloseConnection):
                raise Ended(f"closed: {event.code} {event.reason}")
            if isinstance(event, ws.TextMessage):
                self._text += event.data
                if event.message_finished:
                    text, self._text = self._text, ""
                    return json.loads(text)

    async def closed(self) -> tuple[int, str]:
        """Read on until the goodbye, answer it, and say what it was."""
        while True:
            event = await self.event()
            if isinstance(event, ws.CloseConnection):
                if self._ws.state is not wsproto.connection.ConnectionState.CLOSED:
                    await self.stream.send_all(self._ws.send(event.response()))
                return event.code, event.reason or ""

    async def ended(self) -> None:
        """Read on until the stream ends without a goodbye."""
        try:
            while True:
                event = await self.event()
                assert not isinstance(event, ws.CloseConnection)
        except Ended:
            return

    async def ended_whatever(self) -> None:
        """Read on, without answering, until the stream ends."""
        self.deaf = True
        try:
            while True:
                await self.event()
        except Ended:
            return

    async def send(self, event: ws.Event) -> None:
        """Send any frame."""
        await self.stream.send_all(self._ws.send(event))

    async def say(self, **request: object) -> None:
        """Send a control message."""
        await self.send(ws.TextMessage(data=json.dumps(request)))

    async def ask(self, **request: object) -> Any:
        """Send a control message and wait for its reply, past any events."""
        await self.say(**request)
        while True:
            message = await self.message()
            if isinstance(message, dict) and ("result" in message or "error" in message):
                return message

    async def subscribe(self, *names: str, identity: object = 1) -> Any:
        """Subscribe, and wait for the ack."""
        return await self.ask(method="SUBSCRIBE", params=names, id=identity)


class ScriptedPlayer:
    """A market in which nothing happens but what a test says."""

    def __init__(self) -> None:
        self.market = SyntheticPlayer(("BTCUSDT", "ETHUSDT"), 1, START_MS).market
        self.shift_ms = 0

    def due_ms(self) -> float | None:
        """Never."""
        return float("inf")

    def step(self) -> list[Event]:
        """Nothing."""
        return []

    def now_ms(self, elapsed_ms: float) -> int:
        """The clock."""
        return START_MS + int(elapsed_ms) + self.shift_ms


@dataclass
class World:
    """A running double and a way to dial it."""

    exchange: Exchange
    nursery: trio.Nursery

    async def line(self, address: str = "10.0.0.1") -> trio.abc.HalfCloseableStream:
        """A TCP connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.exchange.serve, theirs, address)
        return ours

    async def dial(self, path: str = "/stream", *, deaf: bool = False, address: str = "10.0.0.1") -> Peer:
        """A WebSocket whose handshake has been accepted."""
        peer = await self.knock(path, deaf=deaf, address=address)
        event = await peer.event()
        assert isinstance(event, ws.AcceptConnection), event
        assert event.extensions == []
        return peer

    async def knock(self, path: str = "/stream", *, deaf: bool = False, address: str = "10.0.0.1") -> Peer:
        """A WebSocket that has been asked for."""
        peer = Peer(await self.line(address), deaf=deaf)
        await peer.shake_hands(path)
        return peer

    async def refused(self, path: str = "/stream", address: str = "10.0.0.1") -> tuple[int, dict[str, str], bytes]:
        """Dial, and say how the handshake was turned down."""
        peer = await self.knock(path, address=address)
        event = await peer.event()
        assert isinstance(event, ws.RejectConnection), event
        status = event.status_code
        headers = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
        body = b""
        while event.has_body if isinstance(event, ws.RejectConnection) else not event.body_finished:
            event = await peer.event()
            assert isinstance(event, ws.RejectData)
            body += event.data
        return status, headers, body

    async def call(self, method: str, target: str, body: bytes = b"", headers: str = "") -> tuple[int, Any, str]:
        """One HTTP request on a connection of its own: status, decoded body, raw head."""
        stream = await self.line()
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}"
        await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)
        raw = b""
        while data := await stream.receive_some(1 << 16):
            raw += data
        top, _, rest = raw.partition(b"\r\n\r\n")
        return int(top.split()[1]), json.loads(rest) if rest else None, top.decode().lower()

    async def fault(self, **fault: object) -> None:
        """Ask for a fault, live."""
        status, answer, _ = await self.call("POST", "/sim/faults", json.dumps(fault).encode())
        assert status == 200, answer

    def publish(self, stream: str, payload: str = '{"e":"test"}', times: int = 1) -> None:
        """Let an event happen."""
        for _ in range(times):
            self.exchange.publish(Event(stream, payload.encode()))


@asynccontextmanager
async def opened(
    player: Player | None = None,
    *,
    limits: Limits = NO_LIMITS,
    faults: Iterable[AnyFault] = (),
    speed: float = 1.0,
) -> AsyncIterator[World]:
    """A double that runs while the block does."""
    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        wall: Callable[[], float] = lambda: START_S + trio.current_time() - begun  # noqa: E731  # one word for it
        options = SimOptions(limits=limits, speed=speed)
        exchange = Exchange(options, player or ScriptedPlayer(), faults, wall=wall)
        await nursery.start(exchange.run)
        yield World(exchange, nursery)
        nursery.cancel_scope.cancel()
