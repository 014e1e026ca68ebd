"""One client's WebSocket: what it sends is counted and parsed, what it is sent waits in a bounded outbox.

Everything that waits goes out in one piece. Frames are handed in ready-made, so that one encoding serves all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
import wsproto.connection
import wsproto.events as ws

from komas.simulator import frames
from komas.simulator.frame_faults import Countdown, Piece, Tamperer
from komas.simulator.http_connection import READ_BYTES, reset
from komas.simulator.market import Event
from komas.simulator.options import Limits
from komas.simulator.protocol import POLICY, RollingWindow, Session

GOODBYE_S = 5.0  # how long a close waits for what is still to be sent, and for the other side's answer
MESSAGE_BYTES = 1 << 20
ROOM_BYTES = 1 << 18  # with more than this waiting, a patient market waits too
NORMAL, UNSUPPORTED, TOO_BIG = 1000, 1003, 1009
MS = 1_000

Wall = Callable[[], float]


class Connection:
    """A client. ``hear`` is called with each text message."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        session: Session,
        limits: Limits,
        hear: Callable[[Connection, str], None],
        *,
        dial: int = 1,
        micro: bool = False,
        wall: Wall = time.time,
    ) -> None:
        self.stream = stream
        self.session = session
        self.limits = limits
        self.dial = dial
        self.micro = micro
        self.tamperers: list[Tamperer | Countdown] = []
        self.is_futures = False
        self.frozen = False  # half-open: nothing is read, nothing is written
        self.messages = 0
        self.refused_for_rate = False
        self._hear = hear
        self._wall = wall
        self._parser = wsproto.connection.Connection(wsproto.connection.ConnectionType.SERVER)
        self._text: list[str] = []
        self._outbox: list[bytes] = []
        self._idle = False
        self.waiting_bytes = 0
        self._closing = False
        self._cutting = False
        self._heard_goodbye = False
        self._scope = trio.CancelScope()
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._window = RollingWindow(limits.messages, 1.0)
        self._pings: dict[bytes, float] = {}

    async def run(self, ahead: bytes = b"") -> None:
        """Serve the client until either side ends it; the stream is closed afterwards."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._ping)
                    nursery.start_soon(self._age)
                    await self._read(ahead)
                    self._scope.cancel()
        finally:
            self._room.unpark_all()
            await trio.aclose_forcefully(self.stream)

    # -- out

    def push(self, frame: bytes) -> None:
        """Put a frame into the outbox; after a close nothing more is taken."""
        if self._closing or self.frozen:
            return
        self._outbox.append(frame)
        self.waiting_bytes += len(frame)
        if self.waiting_bytes > self.limits.outbox_bytes and self.limits.drop_slow:
            self.abort()
        if self._idle:
            self._wake.unpark_all()

    def offer(self, event: Event, frame: bytes) -> None:
        """Send an event, unless a fault has other plans for it."""
        if not self.tamperers:
            self.push(frame)
            return
        pieces: list[Piece] = [event]
        for tamperer in self.tamperers:
            pieces = [new for old in pieces for new in (tamperer(old) if isinstance(old, Event) else [old])]
        for piece in pieces:
            self.push(self.encoded(piece) if isinstance(piece, Event) else piece)
        self._retire()

    def _retire(self) -> None:
        done = [tamperer for tamperer in self.tamperers if tamperer.done]
        self.tamperers = [tamperer for tamperer in self.tamperers if not tamperer.done]
        for tamperer in done:
            if isinstance(tamperer, Countdown):
                tamperer.act()

    def encoded(self, event: Event) -> bytes:
        """The event's frame in this connection's form."""
        return encode(event, self.session.combined, self.micro)

    def close(self, code: int | None, reason: str = "") -> None:
        """Say goodbye; the connection ends when the client has answered, or a little later."""
        self.push(frames.close(code, reason))
        self._end()

    def abort(self) -> None:
        """Cut the line without a word, and without what waits."""
        self._closing = True
        self._scope.cancel()
        reset(self.stream)

    def cut(self) -> None:
        """Cut the line without a word once everything that waits has been sent."""
        self._cutting = True
        self._end()

    def _end(self) -> None:
        """Take nothing more; the deadline is for a client that neither reads nor answers."""
        if not self._closing and not self.frozen:
            self._closing = True
            self._scope.deadline = trio.current_time() + GOODBYE_S
        self._wake.unpark_all()

    @property
    def crowded(self) -> bool:
        """Whether a patient market should wait for this reader."""
        return self.waiting_bytes > ROOM_BYTES and not self._scope.cancel_called and not self.frozen

    async def room(self) -> None:
        """Wait until the outbox has been sent, or the connection has ended."""
        while self.crowded:
            await self._room.park()

    async def _write(self) -> None:
        try:
            while True:
                while not self._outbox and not self._closing:
                    self._idle = True
                    await self._wake.park()
                    self._idle = False
                batch = b"".join(self._outbox)
                self._outbox.clear()
                if self.frozen:
                    await trio.sleep_forever()
                await self.stream.send_all(batch)
                self.waiting_bytes -= len(batch)
                self._room.unpark_all()
                if self._closing and not self._outbox:
                    break
            if self._cutting:
                reset(self.stream)
            elif not self._heard_goodbye:
                await trio.sleep_forever()  # until the answer, or the deadline of the scope
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._scope.cancel()

    # -- in

    async def _read(self, ahead: bytes) -> None:
        data: bytes | bytearray = ahead
        try:
            while True:
                if data and not self._understand(bytes(data)):
                    return
                data = await self.stream.receive_some(READ_BYTES)
                if self.frozen:
                    await trio.sleep_forever()
                if not data:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def _understand(self, data: bytes) -> bool:
        """Handle whatever arrived; false when the client has answered our goodbye."""
        if self._heard_goodbye:
            return True  # what follows a goodbye means nothing
        self._parser.receive_data(data)
        return all(self._handle(event) for event in self._parser.events())

    def _handle(self, event: ws.Event) -> bool:
        if isinstance(event, ws.CloseConnection):  # also what the parser makes of a broken frame
            if self._closing:
                return False
            self._heard_goodbye = True
            self.close(event.code, event.reason or "")
        elif not self._closing:
            if _ends_frame(event):
                self._count()
            self._obey(event)
        return True

    def _count(self) -> None:
        self.messages += 1
        if not self._window.admit(trio.current_time()):
            self.refused_for_rate = True
            self.close(POLICY, "Too many requests")

    def _obey(self, event: ws.Event) -> None:
        match event:
            case ws.Ping():
                self.push(frames.frame(frames.PONG, bytes(event.payload)))
            case ws.Pong():
                self._ponged(bytes(event.payload))
            case ws.TextMessage():
                self._collect(event)
            case _:
                self.close(UNSUPPORTED, "text only")

    def _collect(self, event: ws.TextMessage) -> None:
        self._text.append(event.data)
        if sum(map(len, self._text)) > MESSAGE_BYTES:
            self.close(TOO_BIG, "message too big")
        elif event.message_finished:
            text = "".join(self._text)
            self._text.clear()
            self._hear(self, text)

    # -- liveness

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self.limits.ping_s)
            now = trio.current_time()
            oldest = next(iter(self._pings.values()), now)
            if now - oldest >= self.limits.pong_s:
                self.close(POLICY, "Pong timeout")
                return
            payload = str(int(self._wall() * MS)).encode()
            self._pings[payload] = now
            self.push(frames.frame(frames.PING, payload))

    def _ponged(self, payload: bytes) -> None:
        """A pong answers its ping and those before it; any other pong counts as a message and for nothing else."""
        if payload in self._pings:
            for earlier in list(self._pings):
                del self._pings[earlier]
                if earlier == payload:
                    break

    async def _age(self) -> None:
        await trio.sleep(self.limits.life_s)
        self.close(1001, "connection is 24 hours old")


def _ends_frame(event: ws.Event) -> bool:
    return not isinstance(event, ws.Message) or event.frame_finished


def encode(event: Event, combined: bool, micro: bool) -> bytes:  # noqa: FBT001  # the two halves of a form
    """The frame of an event in one of its four forms."""
    payload = frames.in_microseconds(event.payload) if micro else event.payload
    return frames.text(frames.wrapped(event.stream, payload) if combined else payload)
