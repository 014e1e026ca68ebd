"""One connection to Binance: what comes is read and handed on, what is to be held is asked for, silence is noticed.

Its parts run side by side: *read*, *write* (reconciles what is held with what the shard was assigned), and *watch*,
which asks for another connection in this one's place, and ends it only when not even a ping comes any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.market import Incoming
from komas.model.streams import Stream
from komas.venues.binance import limits, wire
from komas.venues.binance.limits import MarketSpec
from komas.venues.binance.protocol import Quarantine, Refusal, SubscriptionProtocol
from komas.venues.core.link import together
from komas.venues.core.liveness import LivenessTracker, promised_s
from komas.venues.core.ports import Unreadable
from komas.venues.core.websocket import OpenStream, Socket, dial

log = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0
YOUNG_S = 5.0  # a refusal that comes sooner than that is about how the connection was opened
REMEDY_S = 30.0  # a new connection that does not bring a silent stream back is followed by the next one no sooner,
REMEDY_MAX_S = 3600.0  # and twice as late each time: trading may be halted
_ALL = ""  # the remedy of a connection that is silent as a whole
_TOO_LONG = (400, 413, 414, 431)  # statuses by which a server refuses a URL for what is in it
_NOT_ABOUT_NAMES = ("Too many requests", "Pong timeout")  # reasons of 1008 that no stream's name is to blame for


class Arrival(msgspec.Struct, frozen=True):
    """When something came: on trio's clock (seconds), and on the wall (milliseconds since the epoch)."""

    at_s: float
    at_ms: int


class FeedPort(Protocol):
    """What a connection hands over; its law: ``news`` is unparked whenever a shard was assigned something else."""

    news: trio.lowlevel.ParkingLot

    def on_events(self, stream: Stream, events: Sequence[Incoming], arrival: Arrival) -> None:
        """Take events of one stream that came together, in order."""

    def on_held(self, connection: UpstreamConnection, stream: Stream) -> None:
        """Take the news that a connection holds a stream from now on."""

    def on_silent(self, connection: UpstreamConnection, stream: Stream) -> None:
        """Take the news that a stream is silent on a connection, and should not be."""

    def on_refusals(self, refusals: tuple[Refusal, ...]) -> None:
        """Take the exchange's refusals: these streams are no longer wanted afterwards."""

    def on_read(self, count: int, received_ms: int) -> None:
        """Take the end of a read: so many data frames were in it, and their events were taken."""

    def count_unknown(self) -> None:
        """Count one frame of an unknown stream."""

    def count_unreadable(self, error: Unreadable) -> None:
        """Count one frame that cannot be read."""


class Remedy(msgspec.Struct, frozen=True):
    """When another connection may be tried again for a stream that stayed silent, and the wait after that."""

    next_at: float = 0.0
    after_s: float = REMEDY_S


class ConnectionState:
    """What is remembered from one connection of a link to the next."""

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self.is_barren = False  # the last connection brought nothing: its URL may be why
        self.liveness = LivenessTracker()
        self.trackers: dict[str, LivenessTracker] = {}
        self.remedies: dict[str, Remedy] = {}


class ConnectionOptions(msgspec.Struct, frozen=True):
    """Where and how connections are opened: ``url`` is the venue's base, ``most`` what one connection holds."""

    url: str
    venue: MarketSpec
    open_stream: OpenStream
    clock_ms: Callable[[], int]
    most: int = limits.STREAMS_PER_CONNECTION
    life_s: float = limits.CONNECTION_LIFE_S


class UpstreamConnection:
    """One connection, from its dial to its end; ``run()`` once.

    ``assigned`` is what it is to hold. ``replace`` asks for another one in its place, which takes over without a gap;
    ``retire_after_s`` is its age at which it does so by itself.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        feed: FeedPort,
        assigned: Callable[[], tuple[Stream, ...]],
        state: ConnectionState,
        *,
        replace: Callable[[str], None],
        retire_after_s: float,
    ) -> None:
        self._options = options
        self._feed = feed
        self._assigned = assigned
        self._state = state
        self._replace = replace
        self._retire_after_s = retire_after_s
        self._scope = trio.CancelScope()
        self._protocol = SubscriptionProtocol(state.quarantine, most=options.most)
        self._liveness = state.liveness.successor()
        self._inherited = dict(state.trackers)  # until their streams are acknowledged here
        self._trackers: dict[str, LivenessTracker] = {}
        self._readers: dict[bytes, wire.Reader] = {}  # of the streams that have delivered, by how their frames begin
        self._leaving: str | None = None  # why the exchange, or our clock, will end this connection
        self._healthy: Callable[[], None] = lambda: None
        self.messages = 0
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

    def carries(self, older: UpstreamConnection, recent_s: float) -> bool:
        """Whether each stream that the older connection holds is held here, and heard here if it is heard there."""
        wanted = {stream.name for stream in self._assigned()}
        return all(self._carries(name, theirs, recent_s) for name, theirs in older._trackers.items() if name in wanted)

    def _carries(self, name: str, theirs: LivenessTracker, recent_s: float) -> bool:
        ours = self._trackers.get(name)
        if ours is None:
            return False
        return ours.heard_at is not None or theirs.heard_at is None or theirs.heard_at <= ours.armed_at - recent_s

    # What the feed asks

    @property
    def url(self) -> str:
        """Where it is connected to."""
        return self._options.url + self._options.venue.stream_path

    @property
    def held(self) -> int:
        """How many streams the exchange has acknowledged."""
        return len(self._trackers)

    def tracker(self, stream: Stream) -> LivenessTracker | None:
        """The rhythm of a stream on this connection; ``None`` for one that it does not hold."""
        return self._trackers.get(stream.name)

    def is_silent(self, now: float) -> bool:
        """Whether the whole connection is silent for suspiciously long."""
        return self._liveness.silent_s(now) > self._liveness.allowed_silence_s(now) / 2

    # The life of the connection

    async def _dial(self, nursery: trio.Nursery) -> Socket:
        names = [stream.name for stream in self._assigned()]
        query = "" if self._state.is_barren else self._protocol.open_with(names)
        self._state.is_barren = False
        try:
            url = f"{self._options.url}{self._options.venue.stream_path}{query}"
            return await dial(nursery, url, sent=self._sent, open_stream=self._options.open_stream)
        except VenueError as error:
            self._state.is_barren = error.status in _TOO_LONG
            raise

    async def _converse(self, socket: Socket, up: Callable[[], None]) -> None:
        self.connected_at, self.connected_at_ms = trio.current_time(), self._options.clock_ms()
        self._protocol.begin(self.connected_at)
        self._liveness.begin(self.connected_at)
        self._state.liveness = self._liveness
        log.info("connected", extra={"url": self._options.url, "streams": len(self._protocol.held)})
        self._note_held()
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
        self._state.is_barren = hung_up and (self.messages == 0 or is_young)
        if error.cause is Cause.REFUSED and not any(words in str(error) for words in _NOT_ABOUT_NAMES):
            self._feed.on_refusals(self._protocol.hung_up(str(error)))

    def _note_held(self) -> None:
        """Begin to listen for the beat of each stream that is held from now on, and forget those that are not."""
        held, now = self._protocol.held, trio.current_time()
        for name in [name for name in self._trackers if name not in held]:
            del self._trackers[name]
            self._liveness = self._state.liveness = LivenessTracker()  # the stream that gave the beat may be gone
            self._liveness.begin(now)
        assigned = {stream.name: stream for stream in self._assigned()}
        begun = [name for name in held if name not in self._trackers and name in assigned]
        for name in begun:
            stream = assigned[name]
            known = self._inherited.pop(name, None)
            tracker = self._trackers[name] = LivenessTracker(promised_s(stream)) if known is None else known.successor()
            tracker.begin(now)
            self._feed.on_held(self, stream)
        if begun:
            self._feed.news.unpark_all()  # wakes the tasks that wait for an acknowledgement
        self._state.trackers = {
            name: tracker for name, tracker in self._inherited.items() if name in assigned
        } | self._trackers

    # Read

    async def _read(self, socket: Socket) -> None:
        while True:
            messages = await socket.receive()
            before, arrival = self.messages, Arrival(socket.heard_at, self._options.clock_ms())
            try:
                self._take_all(messages, arrival)
            finally:
                self._note_data(self.messages - before, arrival)

    def _take_all(self, messages: list[bytes], arrival: Arrival) -> None:
        """Take what one read brought; frames of one stream go on together, and none passes an answer."""
        known: dict[bytes, list[bytes]] = {}
        head: bytes | tuple[bytes, ...] = ()  # nothing begins with this
        texts: list[bytes] = []
        for text in messages:
            if text.startswith(head):
                texts.append(text)
            elif (begin := wire.head_of(text)) in self._readers:
                head, texts = begin, known.setdefault(begin, [])
                texts.append(text)
            else:
                self._take_known(known, arrival)
                self._take_apart(text, arrival)
                head = ()
        self._take_known(known, arrival)

    def _take_known(self, known: dict[bytes, list[bytes]], arrival: Arrival) -> None:
        for head, texts in known.items():
            self._take(self._readers[head], texts, arrival)
        known.clear()

    def _note_data(self, count: int, arrival: Arrival) -> None:
        """Note what holds for all data frames of a read."""
        if count and count == self.messages:
            self._healthy()
        if count:
            self._feed.on_read(count, arrival.at_ms)
            self._liveness.heard(arrival.at_s, count)

    def _take_apart(self, text: bytes, arrival: Arrival) -> None:
        """Take a frame that is an answer, or the first of its stream, or written in another way than usual."""
        try:
            frame = wire.read_frame(text)
        except Unreadable as error:
            self._feed.count_unreadable(error)
            return
        if frame.e == limits.SHUTDOWN_EVENT or frame.stream == limits.SHUTDOWN_STREAM:
            self._leave("the exchange announced that this server shuts down")
        elif frame.stream is None:
            self._answered(frame)
        elif (reader := wire.reader_of(frame.stream)) is not None:
            # Whoever makes up names fills no table.
            if reader.name == frame.stream and reader.stream in self._assigned():
                self._readers[reader.head] = reader
            self._take(reader, [text], arrival)
        else:
            self.messages += 1
            self._feed.count_unknown()

    def _answered(self, frame: wire.Combined) -> None:
        self._feed.on_refusals(self._protocol.answered(frame))
        self._note_held()
        self._feed.news.unpark_all()

    def _take(self, reader: wire.Reader, texts: list[bytes], arrival: Arrival) -> None:
        self.messages += len(texts)
        events = reader.read(texts, arrival.at_ms, self._feed.count_unreadable)
        if not events:
            return
        if (tracker := self._trackers.get(reader.name)) is None:
            self._protocol.delivered(reader.name)
            self._note_held()
            tracker = self._trackers.get(reader.name)
        if tracker is not None:
            tracker.heard(arrival.at_s, len(texts))
        self._feed.on_events(reader.stream, events, arrival)

    # Write

    async def _write(self, socket: Socket) -> None:
        """Say what is to be said, one word at a time, whenever what is wanted or what is held has changed."""
        protocol = self._protocol
        while True:
            now = trio.current_time()
            if (free_at := protocol.free_at(now)) > now:
                await trio.sleep_until(free_at)
                continue
            protocol.expire(now)
            request = protocol.next_request([stream.name for stream in self._assigned()], now)
            if request is not None:
                await socket.send(request)
                continue
            self._note_held()
            # No await since the look at what is assigned: news in between would be missed.
            with trio.move_on_at(protocol.next_look()):
                await self._feed.news.park()

    def _sent(self) -> None:
        self._protocol.sent(trio.current_time())

    # Watch

    async def _watch(self, socket: Socket) -> None:
        while True:
            await trio.sleep(WATCH_EVERY_S)
            now = trio.current_time()
            silence_s = self._options.venue.silence_s
            if now - socket.heard_at > silence_s:
                raise VenueError(f"nothing came for {silence_s:g} s, not even a ping", cause=Cause.SILENT)
            if now - self.connected_at > self._retire_after_s:
                self._leaving = self._leaving or "the connection is old"
            if self._leaving is not None:
                self._replace(self._leaving)
            elif (reason := self._why_silent(now)) is not None:
                self._replace(reason)

    def _leave(self, reason: str) -> None:
        self._leaving = reason
        self._replace(reason)

    def _why_silent(self, now: float) -> str | None:
        """Why another connection may do better, unless that was tried for the same streams a moment ago."""
        silent = [name for name, tracker in self._trackers.items() if tracker.is_stale(now)]
        allowed_silence_s = self._liveness.allowed_silence_s(now)
        if self._trackers and self._liveness.silent_s(now) > allowed_silence_s:
            silent.append(_ALL)
        remedies = self._state.remedies
        for name in [name for name in remedies if name not in silent and self._is_heard(name)]:
            del remedies[name]
        if not any(now >= remedies.get(name, Remedy()).next_at for name in silent):
            return None
        for name in silent:
            after_s = remedies.get(name, Remedy()).after_s
            remedies[name] = Remedy(now + after_s, min(REMEDY_MAX_S, 2 * after_s))
        for stream in self._assigned():
            if stream.name in silent or _ALL in silent:
                self._feed.on_silent(self, stream)
        if silent[-1] == _ALL:
            return f"no data came for {allowed_silence_s:.0f} s"
        return f"{len(silent)} of {len(self._trackers)} streams are silent, {silent[0]} among them"

    def _is_heard(self, name: str) -> bool:
        if name == _ALL:
            return self.messages > 0
        tracker = self._trackers.get(name)
        return tracker is None or tracker.heard_at is not None
