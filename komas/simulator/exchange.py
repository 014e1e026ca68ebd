"""The exchange itself: it plays the tape to whoever subscribed, and answers whoever calls. It knows no listener.

A patient exchange (``speed`` of infinity, or ``drop_slow`` off) waits for its slowest reader; any other cuts it off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from itertools import count

import trio

from komas.simulator import frames
from komas.simulator.connection import Connection, encode
from komas.simulator.fault_injector import FaultInjector
from komas.simulator.fault_script import AnyFault, DelayAcks, Hang, LoseAcks, Refuse
from komas.simulator.http_connection import Answer, Caller, Request, Unreadable, reset
from komas.simulator.market import Event, Market
from komas.simulator.options import SimOptions
from komas.simulator.player import Player
from komas.simulator.protocol import POLICY, Reply, RollingWindow, Session, is_stream_text
from komas.simulator.rest import failure, refusal
from komas.simulator.rest_and_control import HttpApi, State
from komas.simulator.streams import is_of_futures, understood

Wall = Callable[[], float]
MS = 1_000
DIALS_S = 300.0
MARKET_CLASS = "/market"  # before the paths of USD-M futures, since 2026-04-23
BREATH_STEPS = 256  # a market in a hurry lets the others run now and then
TURN_DOWN_S = 2.0  # to get a refusal out


class Exchange:
    """One simulated exchange; ``run`` plays, ``accept`` and ``serve`` take one TCP connection each."""

    def __init__(
        self, options: SimOptions, player: Player, faults: Iterable[AnyFault] = (), *, wall: Wall = time.time
    ) -> None:
        self.options = options
        self.player = player
        self.market: Market = player.market
        self.wall = wall
        self.connections: dict[Connection, None] = {}  # in the order of their dials: a seed decides everything
        self.listeners: dict[str, dict[Connection, None]] = {}
        self.listening = trio.CancelScope()
        self.outage_s = 0.0
        self.state = State()
        self.saboteur = FaultInjector(self)
        self.http_api = HttpApi(self, self.saboteur, options, wall)
        self.patient = math.isinf(options.speed) or not options.limits.drop_slow
        # Without a pace and without an end, only a listener keeps it from running hot.
        self._endless = math.isinf(options.speed) and (options.loop or not options.replay)
        self._faults = tuple(faults)
        self._begun_s = trio.current_time()
        self._listened = trio.Event()
        self._dials: dict[str, RollingWindow] = {}
        self._streams: dict[trio.abc.HalfCloseableStream, None] = {}
        self._retired_messages = 0
        self._retired_refusals = 0
        self._playing_since_s: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Play the tape, and the faults of the script beside it."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.saboteur.run, name="saboteur")
            self.saboteur.plan(self._faults)
            nursery.start_soon(self._play, name="tape")
            task_status.started()

    # -- the market's side

    async def _play(self) -> None:
        if self.options.replay:
            await self._listened.wait()
        begun_s = self._playing_since_s = trio.current_time()
        for step in count(1):
            due_ms = self.player.due_ms()
            if due_ms is None:
                break
            if self._endless and not self.listeners:
                await self._listened.wait()
            due_s = begun_s + due_ms / MS / self.options.speed
            if due_s > begun_s and due_s > trio.current_time():
                await trio.sleep_until(due_s)
            for event in self.player.step():
                self.publish(event)
            if self.patient and any(connection.crowded for connection in self.connections):
                await self._wait_for_readers()
            if step % BREATH_STEPS == 0:
                await trio.lowlevel.checkpoint()
        self.state.replay_finished = True

    @property
    def now_ms(self) -> int:
        """The exchange's clock."""
        if self._playing_since_s is None or math.isinf(self.options.speed):
            return self.player.now_ms(0.0)  # a market in a hurry is as late as its last event
        return self.player.now_ms((trio.current_time() - self._playing_since_s) * self.options.speed * MS)

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
            if self.saboteur.troubles.stalling and self._silenced(event.stream, connection):
                continue
            form = connection.session.combined, connection.micro
            frame = encoded.get(form)
            if frame is None:
                frame = encoded[form] = encode(event, *form)
            connection.offer(event, frame)
            self.state.frames_sent += 1

    def _silenced(self, stream: str, connection: Connection) -> bool:
        return self.saboteur.troubles.silent(stream, connection.dial, trio.current_time())

    def shift_clock(self, offset_ms: int) -> None:
        """Set the exchange's clock against ours; a market that lives by it hurries or halts until it agrees."""
        self.player.shift_ms = offset_ms

    def go_out(self, seconds: float) -> None:
        """Cut everything, and do not listen for so long."""
        self.outage_s = seconds
        self.listening.cancel()
        for connection in tuple(self.connections):
            connection.abort()
        for stream in tuple(self._streams):
            reset(stream)

    # -- the callers' side

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one accepted socket."""
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # gone before it was served
            address = ""
        await self.serve(stream, address)

    async def serve(self, stream: trio.abc.HalfCloseableStream, address: str = "") -> None:
        """Serve one TCP connection to its end; the stream is closed afterwards."""
        caller = Caller(stream)
        self._streams[stream] = None
        try:
            async with stream:
                await self._converse(caller, address)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._streams.pop(stream, None)

    async def _converse(self, caller: Caller, address: str) -> None:
        try:
            while (request := await caller.request()) is not None:
                if request.is_dial:
                    await self._dialled(caller, request, address)
                    return
                self._streams.pop(caller.stream, None)  # whoever asks for an outage hears that it begins
                answer = await self.http_api.answer(request, address)
                if not await caller.answer(answer, head=request.method == "HEAD"):
                    return
                self._streams[caller.stream] = None
        except Unreadable as fault:
            await _turn_down(caller, Answer(fault.status, b""))

    async def _dialled(self, caller: Caller, request: Request, address: str) -> None:
        self.state.dials.append(trio.current_time() - self._begun_s)
        dial = len(self.state.dials)
        window = self._dials.setdefault(address, RollingWindow(self.options.limits.dials, DIALS_S))
        fault = self.saboteur.troubles.dialled(dial)
        if isinstance(fault, Hang):
            await trio.sleep(math.inf if fault.seconds is None else fault.seconds)
        elif isinstance(fault, Refuse):
            await _refuse(caller, fault)
            return
        if not window.admit(trio.current_time()):
            await _turn_down(caller, failure(HTTPStatus.TOO_MANY_REQUESTS, -1003, "Too many connection attempts."))
            return
        names, key = path_names(request.path, request.parameters.get("streams", "")), request.websocket_key
        if names is None or key is None:
            await _turn_down(caller, Answer(HTTPStatus.NOT_FOUND if names is None else HTTPStatus.BAD_REQUEST, b""))
            return
        await self._connect(caller, request, dial, names)

    async def _connect(self, caller: Caller, request: Request, dial: int, names: list[str]) -> None:
        limits = self.options.limits
        path = request.path.removeprefix(MARKET_CLASS)
        session = Session(limits, self._known, combined=path.startswith("/stream"))
        micro = request.parameters.get("timeUnit", "").upper() == "MICROSECOND"
        connection = Connection(caller.stream, session, limits, self._hear, dial=dial, micro=micro, wall=self.wall)
        connection.is_futures = request.path.startswith(MARKET_CLASS)
        ahead = await caller.accept(request.websocket_key or "")
        self.connections[connection] = None
        try:
            self._follow(connection, session.start(names))
            self.saboteur.connected(connection)
            await connection.run(ahead)
        finally:
            self._forget(connection)

    def _known(self, name: str) -> bool:
        stream = understood(name)
        return stream is not None and (not stream.symbol or stream.symbol in self.market.pairs)

    def _forget(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self._retired_messages += connection.messages
        self._retired_refusals += connection.refused_for_rate
        self._drop(connection, tuple(connection.session.names))

    def snapshot(self) -> State:
        """The counts of this moment."""
        state = self.state
        state.connections = len(self.connections)
        state.messages_received = self._retired_messages + sum(each.messages for each in self.connections)
        state.refused_for_rate = self._retired_refusals + sum(each.refused_for_rate for each in self.connections)
        state.subscriptions = sum(len(each) for each in self.listeners.values())
        state.market_time_ms = self.now_ms
        return state

    def _hear(self, connection: Connection, text: str) -> None:
        """Act on a control message; one that is too long is lost without a word, as on the exchange."""
        if len(text.encode()) > self.options.limits.subscribe_bytes:
            return
        read = connection.session.read(text)
        if isinstance(read, Reply):
            self._follow(connection, read)
            return
        fault = self.saboteur.troubles.asked(connection.dial) if read.method == "SUBSCRIBE" else None
        if fault is None:
            self._follow(connection, connection.session.perform(read))
        else:
            close = (POLICY, "Invalid request") if fault.close else None
            self._follow(connection, connection.session.refuse(read, fault.code, fault.message, close))

    def _follow(self, connection: Connection, reply: Reply) -> None:
        if reply.body is not None:
            self._reply(connection, frames.text(reply.body))
        for name in reply.added:
            if is_of_futures(name) is not connection.is_futures:
                continue  # of another class: acknowledged, and never delivered
            self.listeners.setdefault(name, {})[connection] = None
            self.market.want(name)
        self._drop(connection, reply.removed)
        if reply.close is not None:
            connection.close(*reply.close)
        if reply.added:
            self._listened.set()

    def _reply(self, connection: Connection, frame: bytes) -> None:
        match self.saboteur.troubles.replying(connection.dial):
            case LoseAcks():
                return
            case DelayAcks(seconds=seconds):
                self.saboteur.later(seconds, partial(connection.push, frame))
            case None:
                connection.push(frame)

    def _drop(self, connection: Connection, names: tuple[str, ...]) -> None:
        for name in names:
            listeners = self.listeners.get(name, {})
            listeners.pop(connection, None)
            if not listeners:
                self.listeners.pop(name, None)
                self.market.unwant(name)
        if names and not self.listeners:
            self._listened = trio.Event()


async def _turn_down(caller: Caller, answer: Answer) -> None:
    with trio.move_on_after(TURN_DOWN_S):
        await caller.answer(answer._replace(headers=(*answer.headers, ("connection", "close"))))


async def _refuse(caller: Caller, fault: Refuse) -> None:
    if fault.status is None:
        reset(caller.stream)
    else:
        await _turn_down(caller, failure(fault.status, *refusal(fault.status, fault.message), fault.retry_after))


def path_names(path: str, streams: str) -> list[str] | None:
    """The streams that a URL asks for; ``None`` where there is no such path."""
    path = path.removeprefix(MARKET_CLASS)
    if path == "/stream":
        return _stream_texts(streams)
    if path == "/ws" or path.startswith("/ws/"):
        return _stream_texts(path.removeprefix("/ws"))
    return None


def _stream_texts(names: str) -> list[str]:
    """What in a URL may be a stream: clients that want none yet write ``/ws/0``, or an empty list."""
    return [name for name in names.split("/") if is_stream_text(name)]
