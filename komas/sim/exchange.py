"""The exchange itself: it plays the tape to whoever subscribed, and answers whoever calls. It knows no listener.

A patient exchange (``speed`` of infinity, or ``drop_slow`` off) waits for its slowest reader; any other cuts it off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from http import HTTPStatus

import msgspec
import trio

from komas.sim import frames
from komas.sim.connection import Connection
from komas.sim.market import Event, Market
from komas.sim.options import SimOptions
from komas.sim.player import Played, Player
from komas.sim.protocol import Reply, RollingWindow, Session
from komas.sim.rest import Call, answered, failure
from komas.sim.web import Answer, Caller, Request, Unreadable

Wall = Callable[[], float]
MS = 1_000
DIALS_S = 300.0
BREATH_FRAMES = 256  # a market in a hurry lets the others run after so many frames
REST_PREFIX = "/api/v3/"


class State(msgspec.Struct):
    """``GET /sim/state``."""

    replay_finished: bool = False
    frames_sent: int = 0
    connections: int = 0
    dials: list[float] = []
    messages_received: int = 0
    refused_for_rate: int = 0
    subscriptions: int = 0
    market_time_ms: int = 0


class Exchange:
    """One simulated exchange, to be run in a nursery; ``serve`` takes one TCP connection."""

    def __init__(self, options: SimOptions, player: Player, *, wall: Wall = time.time) -> None:
        self.options = options
        self.player = player
        self.market: Market = player.market
        self.wall = wall
        self.connections: set[Connection] = set()
        self.listeners: dict[str, dict[Connection, None]] = {}
        self.state = State()
        self._begun_s = trio.current_time()
        self._first_listener = trio.Event()
        self._dials: dict[str, RollingWindow] = {}
        self._retired_messages = 0
        self.patient = math.isinf(options.speed) or not options.limits.drop_slow

    # -- the market's side

    async def play(self) -> None:
        """Play the tape from its beginning to its end, if it has one."""
        if self.options.replay:
            await self._first_listener.wait()
        begun_s = trio.current_time()
        for step, played in enumerate(self.player.play(self._elapsed_ms(begun_s)), 1):
            await self._until(begun_s, played)
            for event in played.events:
                self.publish(event)
            if self.patient:
                await self._wait_for_readers()
            if step % BREATH_FRAMES == 0:
                await trio.lowlevel.checkpoint()
        self.state.replay_finished = True

    def _elapsed_ms(self, begun_s: float) -> Callable[[], float]:
        return lambda: (trio.current_time() - begun_s) * self.options.speed * MS

    async def _until(self, begun_s: float, played: Played) -> None:
        due_s = begun_s + played.at_ms / MS / self.options.speed
        if due_s > trio.current_time():
            await trio.sleep_until(due_s)

    async def _wait_for_readers(self) -> None:
        for connection in [each for each in self.connections if each.crowded]:
            await connection.room()

    def publish(self, event: Event) -> None:
        """Hand one event to everybody who subscribed to it, encoded once for each form."""
        listeners = self.listeners.get(event.stream)
        if not listeners:
            return
        encoded: dict[tuple[bool, bool], bytes] = {}
        for connection in tuple(listeners):
            form = connection.session.combined, connection.micro
            frame = encoded.get(form)
            if frame is None:
                frame = encoded[form] = encode(event, *form)
            connection.push(frame)
            self.state.frames_sent += 1

    # -- the callers' side

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one accepted socket."""
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # gone before it was served
            address = ""
        await self.serve(stream, address)

    async def serve(self, stream: trio.abc.HalfCloseableStream, address: str = "") -> None:
        """Serve one TCP connection to its end."""
        caller = Caller(stream)
        try:
            async with stream:
                while (request := await caller.request()) is not None:
                    if request.is_dial:
                        await self._dialled(caller, request, address)
                        return
                    if not await caller.answer(self.answer(request), head=request.method == "HEAD"):
                        return
        except Unreadable as fault:
            await self._turn_down(caller, fault.status)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _turn_down(self, caller: Caller, status: int) -> None:
        answer = Answer(status, b"", (("connection", "close"),))
        with trio.move_on_after(2):
            await caller.answer(answer)

    def answer(self, request: Request) -> Answer:
        """The answer to one HTTP request."""
        if request.path == "/sim/state" and self.options.control:
            return Answer(HTTPStatus.OK, msgspec.json.encode(self.snapshot()))
        if request.path.startswith(REST_PREFIX):
            now_ms = self.player.now_ms
            return answered(request.path, Call(self.market, request.parameters, now_ms))
        return failure(HTTPStatus.NOT_FOUND, 0, f"{request.path} is not here")

    def snapshot(self) -> State:
        """The state now."""
        state = self.state
        state.connections = len(self.connections)
        state.messages_received = self._retired_messages + sum(each.messages for each in self.connections)
        state.subscriptions = sum(len(each) for each in self.listeners.values())
        state.market_time_ms = self.player.now_ms
        return state

    async def _dialled(self, caller: Caller, request: Request, address: str) -> None:
        self.state.dials.append(trio.current_time() - self._begun_s)
        key = request.headers.get("sec-websocket-key", "")
        if not self._admitted(address):
            await caller.answer(failure(HTTPStatus.TOO_MANY_REQUESTS, -1003, "Too many connection attempts."))
            return
        names = path_names(request.path, request.parameters.get("streams", ""))
        if names is None or not key:
            await self._turn_down(caller, HTTPStatus.NOT_FOUND if names is None else HTTPStatus.BAD_REQUEST)
            return
        session = Session(self.options.limits, combined=request.path.startswith("/stream"))
        micro = request.parameters.get("timeUnit", "").upper() == "MICROSECOND"
        connection = Connection(caller.stream, session, self.options.limits, self._hear, micro=micro, wall=self.wall)
        ahead = await caller.accept(key)
        self.connections.add(connection)
        try:
            self._obey(connection, session.start(names))
            await connection.run(ahead)
        finally:
            self._forget(connection)

    def _admitted(self, address: str) -> bool:
        window = self._dials.setdefault(address, RollingWindow(self.options.limits.dials, DIALS_S))
        return window.admit(trio.current_time())

    def _forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._retired_messages += connection.messages
        self.state.refused_for_rate += connection.refused_for_rate
        self._drop(connection, tuple(connection.session.names))

    def _hear(self, connection: Connection, text: str) -> None:
        if len(text) > self.options.limits.subscribe_bytes:
            return
        self._obey(connection, connection.session.receive(text))

    def _obey(self, connection: Connection, reply: Reply) -> None:
        if reply.body is not None:
            connection.push(frames.text(reply.body))
        for name in reply.added:
            self.listeners.setdefault(name, {})[connection] = None
            self.market.want(name)
        self._drop(connection, reply.removed)
        if reply.close is not None:
            connection.close(*reply.close)
        if reply.added:
            self._first_listener.set()

    def _drop(self, connection: Connection, names: tuple[str, ...]) -> None:
        for name in names:
            listeners = self.listeners.get(name, {})
            listeners.pop(connection, None)
            if not listeners:
                self.listeners.pop(name, None)
                self.market.unwant(name)


def encode(event: Event, combined: bool, micro: bool) -> bytes:  # noqa: FBT001  # the two halves of a form
    """The frame of an event in one of its four forms."""
    payload = frames.in_microseconds(event.payload) if micro else event.payload
    return frames.text(frames.wrapped(event.stream, payload) if combined else payload)


def path_names(path: str, streams: str) -> list[str] | None:
    """The streams that a URL asks for; ``None`` where there is no such path."""
    if path == "/stream":
        return [name for name in streams.split("/") if name]
    if path == "/ws" or path.startswith("/ws/"):
        return [name for name in path.removeprefix("/ws").split("/") if name]
    return None
