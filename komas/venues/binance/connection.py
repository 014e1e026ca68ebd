"""One connection to Binance, from its dial to its end.

Its parts run side by side: *read*, *write* (reconciles what is held with what the shard was assigned), and *watch*,
which asks for another connection in this one's place, and ends it only when not even a ping comes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.event_log import event_logger
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.frame_router import FrameRouter
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.protocol import Quarantine, SubscriptionProtocol
from komas.venues.binance.subscriptions import Subscriptions
from komas.venues.core.connection import Arrival, ConnectionSink
from komas.venues.core.held_streams import HeldMemory
from komas.venues.core.link import together
from komas.venues.core.liveness import LivenessTracker
from komas.venues.core.websocket import OpenStream, Socket, dial

log = event_logger(__name__)

WATCH_EVERY_S: Final = 1.0
YOUNG_S: Final = 5.0  # a refusal that comes sooner than that is about how the connection was opened
_TOO_LONG: Final = (400, 413, 414, 431)  # statuses by which a server refuses a URL for what is in it
_NOT_ABOUT_NAMES: Final = ("Too many requests", "Pong timeout")  # reasons of 1008 that no stream's name is to blame for


class ConnectionOptions(msgspec.Struct, frozen=True):
    """Where and how connections are opened: ``base`` is the host, ``most`` how many streams one connection holds."""

    base: str
    spec: MarketSpec
    open_stream: OpenStream
    clock_ms: Callable[[], int]
    most: int = limits.STREAMS_PER_CONNECTION

    @property
    def url(self) -> str:
        """Where connections go."""
        return self.base + self.spec.stream_path


class ConnectionMemory:
    """What is remembered from one connection of a link to the next."""

    def __init__(self) -> None:
        self.held = HeldMemory()
        self.quarantine = Quarantine()
        self.is_barren = False  # the last connection brought nothing: its URL may be why


class BinanceDialer:
    """Makes the connections of one link."""

    def __init__(self, options: ConnectionOptions, sink: ConnectionSink) -> None:
        self._options = options
        self._sink = sink
        self._memory = ConnectionMemory()

    def connection(
        self, assigned: Callable[[], Mapping[str, Stream]], *, replace: Callable[[str], None], retire_after_s: float
    ) -> BinanceConnection:
        """A connection that is to be dialled; see ``core.connection.Dialer``."""
        return BinanceConnection(
            self._options, self._sink, assigned, self._memory, replace=replace, retire_after_s=retire_after_s
        )


class BinanceConnection:
    """A ``core.connection.Connection``; ``run()`` once. What it was assigned, and by whom, is said by its dialer."""

    def __init__(
        self,
        options: ConnectionOptions,
        sink: ConnectionSink,
        assigned: Callable[[], Mapping[str, Stream]],
        memory: ConnectionMemory,
        *,
        replace: Callable[[str], None],
        retire_after_s: float,
    ) -> None:
        self._options = options
        self._sink = sink
        self._memory = memory
        self._replace = replace
        self._retire_after_s = retire_after_s
        self._scope = trio.CancelScope()
        self._protocol = SubscriptionProtocol(memory.quarantine, most=options.most)
        self._subscriptions = Subscriptions(self, sink, assigned, self._protocol, memory.held)
        self._router = FrameRouter(options.spec.venue, sink, self._subscriptions, self._leave)
        self._leaving: str | None = None  # why the exchange, or our clock, will end this connection
        self._healthy: Callable[[], None] = lambda: None
        self.connected_at = 0.0
        self.connected_at_ms = 0

    # What the link asks

    async def run(self, up: Callable[[], None], healthy: Callable[[], None]) -> None:
        """Dial and converse; ends with ``VenueError``, or after ``retire()``."""
        self._healthy = healthy
        failure: VenueError | None = None
        with self._scope:
            async with trio.open_nursery() as nursery:
                try:
                    socket = await self._dial(nursery)
                    await self._converse(socket, up)
                except VenueError as error:
                    failure = error
                nursery.cancel_scope.cancel("the conversation is over")
        if failure is not None:
            raise failure

    def retire(self) -> None:
        """End without an error."""
        self._scope.cancel("another connection has taken over")

    @property
    def is_delivering(self) -> bool:
        """Whether any data came."""
        return self.messages > 0

    def carries(self, older: BinanceConnection, recent_s: float) -> bool:
        """Whether each stream that the older connection holds is held here, and heard here if it is heard there."""
        ours, theirs = self._subscriptions, older._subscriptions
        return ours.held.carries(theirs.held, ours.names(), recent_s)

    # What the feed asks

    @property
    def url(self) -> str:
        """Where it is connected to."""
        return self._options.url

    @property
    def held(self) -> int:
        """How many streams the exchange has acknowledged."""
        return len(self._subscriptions.held)

    @property
    def messages(self) -> int:
        """How many data frames it brought."""
        return self._router.frames

    def tracker(self, stream: Stream) -> LivenessTracker | None:
        """The rhythm of a stream on this connection; ``None`` for one that it does not hold."""
        return self._subscriptions.held.trackers.get(stream.name)

    def is_silent(self, now: float) -> bool:
        """Whether the whole connection is silent for suspiciously long."""
        return self._subscriptions.held.is_silent(now)

    def message_room(self, now: float) -> int:
        """How many messages it may send at once, within the exchange's limit."""
        return self._protocol.message_room(now)

    # The life of the connection

    async def _dial(self, nursery: trio.Nursery) -> Socket:
        query = "" if self._memory.is_barren else self._protocol.open_with(self._subscriptions.names())
        self._memory.is_barren = False
        try:
            url = f"{self._options.url}{query}"
            return await dial(nursery, url, sent=self._sent, open_stream=self._options.open_stream)
        except VenueError as error:
            self._memory.is_barren = error.status in _TOO_LONG
            raise

    async def _converse(self, socket: Socket, up: Callable[[], None]) -> None:
        self.connected_at, self.connected_at_ms = trio.current_time(), self._options.clock_ms()
        self._protocol.begin(self.connected_at)
        self._subscriptions.held.begin(self.connected_at)
        log.info("connected", extra={"url": self._options.base, "streams": len(self._protocol.held)})
        self._subscriptions.note_held()
        up()
        try:
            await together(partial(self._read, socket), partial(self._write, socket), partial(self._watch, socket))
        except VenueError as error:
            self._blame(error)
            raise
        finally:
            await socket.close()

    def _blame(self, error: VenueError) -> None:
        """Find out whether a name was the reason: of what the URL named, or of what was just asked for."""
        is_young = trio.current_time() - self.connected_at < YOUNG_S
        hung_up = error.cause in (Cause.CLOSED, Cause.REFUSED, Cause.PROTOCOL)
        self._memory.is_barren = hung_up and (self.messages == 0 or is_young)
        if error.cause is Cause.REFUSED and not any(words in str(error) for words in _NOT_ABOUT_NAMES):
            self._sink.on_refusals(self._protocol.hung_up(str(error)))

    async def _read(self, socket: Socket) -> None:
        while True:
            messages = await socket.receive()
            arrival = Arrival(socket.heard_at, self._options.clock_ms())
            before = self._router.frames
            try:
                for _ in self._router.take(messages, arrival):
                    self._note_data(self._router.frames - before, arrival)
                    before = self._router.frames
                    # Shielded: what was read is taken, even if the connection is to end meanwhile.
                    await trio.lowlevel.cancel_shielded_checkpoint()
            finally:
                self._note_data(self._router.frames - before, arrival)

    def _note_data(self, frames: int, arrival: Arrival) -> None:
        """Note what holds for all data frames of a read, or of a piece of it."""
        if frames and frames == self._router.frames:
            self._healthy()
        if frames:
            self._sink.on_read(frames, arrival.at_ms)
            self._subscriptions.held.heard(arrival.at_s, frames)

    async def _write(self, socket: Socket) -> None:
        """Say what is to be said, one word at a time, whenever what is wanted or what is held has changed."""
        protocol = self._protocol
        while True:
            now = trio.current_time()
            if (free_at := protocol.free_at(now)) > now:
                await trio.sleep_until(free_at)
                continue
            protocol.expire(now, socket.heard_at)
            request = protocol.next_request(self._subscriptions.names(), now)
            if request is not None:
                await socket.send(request)
                continue
            self._subscriptions.note_held()
            # No await since the look at what is assigned: news in between would be missed.
            with trio.move_on_at(protocol.next_look()):
                await self._sink.news.park()

    def _sent(self) -> None:
        self._protocol.sent(trio.current_time())

    async def _watch(self, socket: Socket) -> None:
        while True:
            await trio.sleep(WATCH_EVERY_S)
            now = trio.current_time()
            silence_s = self._options.spec.silence_s
            if now - socket.heard_at > silence_s:
                raise VenueError(f"nothing came for {silence_s:g} s, not even a ping", cause=Cause.SILENT)
            if now - self.connected_at > self._retire_after_s:
                self._leaving = self._leaving or "the connection is old"
            if self._leaving is not None:
                self._replace(self._leaving)
            elif (reason := self._subscriptions.silent(now, has_delivered=self.is_delivering)) is not None:
                self._replace(reason)

    def _leave(self, reason: str) -> None:
        self._leaving = reason
        self._replace(reason)
