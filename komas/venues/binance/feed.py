"""The market line from Binance's socket to the hub: hold what is wanted, publish what comes.

The feed is asked to connect and to disconnect; in between it keeps one connection and, on it, exactly the streams that
are wanted. Its parts run side by side on each connection: *read* publishes, *write* reconciles, *watch* ends a
connection that has gone silent while its pings are still answered.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
import trio

from komas.errors import Cause, VenueError
from komas.model.market import Event, FeedState, FeedStatus
from komas.model.streams import Stream
from komas.venues.backoff import Backoff, Patience
from komas.venues.binance import facts, wire
from komas.venues.binance.continuity import Continuity
from komas.venues.binance.counts import ConnectionStatistics, Counts, FeedStatistics
from komas.venues.binance.protocol import Conversation, Quarantine, Refusal
from komas.venues.binance.silence import Rhythm
from komas.venues.dial import OpenStream, Socket, check_url, dial, open_tcp
from komas.venues.link import keep_connected, together
from komas.venues.ports import Sink, Wanted

log = logging.getLogger("komas.feed")

WATCH_EVERY_S = 1.0
COMPLAIN_EVERY_S = 60.0  # unreadable frames are counted each, and logged together
YOUNG_S = 5.0  # a refusal that comes sooner than that is about how the connection was opened
_TOO_LONG = (400, 413, 414, 431)  # statuses by which a server refuses a URL for what is in it
_NOT_ABOUT_NAMES = ("Too many requests", "Pong timeout")  # reasons of 1008 that no stream's name is to blame for
_FULL = f"one connection holds {facts.STREAMS_PER_CONNECTION} streams at most"
QUIET_AFTER_S = 10.0  # several times the pause of every kind of stream while its symbol trades


class Arrival(msgspec.Struct, frozen=True):
    """When a stream's newest fact came: on trio's clock (seconds), and on the wall (milliseconds since the epoch)."""

    at_s: float
    at_ms: int


class _Session:
    """One connection that is up, and what is said on it."""

    def __init__(self, socket: Socket, conversation: Conversation, url: str, now_ms: int) -> None:
        self.socket = socket
        self.conversation = conversation
        self.url = url
        self.connected_at = trio.current_time()
        self.connected_at_ms = now_ms
        self.messages = 0


def wall_ms() -> int:
    """Milliseconds since the epoch, by the machine's clock."""
    return time.time_ns() // 1_000_000


class BinanceFeed:
    """Binance spot, as one supervised feed; ``run()`` it in a nursery, then ``connect()``.

    ``url`` is the venue's base, ``wss://host:port``; ``/stream`` is appended. ``clock_ms`` stamps what is received.
    """

    def __init__(
        self,
        *,
        sink: Sink,
        wanted: Wanted,
        url: str,
        patience: Patience | None = None,
        open_stream: OpenStream = open_tcp,
        clock_ms: Callable[[], int] = wall_ms,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        check_url(url)
        self.url = url.rstrip("/")
        self._sink = sink
        self._wanted = wanted
        self._open_stream = open_stream
        self._clock_ms = clock_ms
        self._backoff = Backoff(patience or Patience(), jitter)
        self._continuity = Continuity()
        self._quarantine = Quarantine()
        self._rhythm = Rhythm()
        self._barren = False  # the last connection brought nothing: its URL may be why
        self._session: _Session | None = None
        self._scope: trio.CancelScope | None = None
        self._asked = False
        self._counts = Counts()
        self._complained_at = -COMPLAIN_EVERY_S
        self._arrivals: dict[Stream, Arrival] = {}
        self._refusals: dict[Stream, Refusal] = {}
        self._news = trio.lowlevel.ParkingLot()
        self.failure: VenueError | None = None
        self.surrender: VenueError | None = None  # the failure at which the allowed attempts were used up

    # What others ask of the feed

    @property
    def state(self) -> FeedState:
        """Where the conversation with the exchange stands."""
        return self._sink.status.state

    def connect(self) -> None:
        """Ask for a connection; it is kept until ``disconnect()``."""
        if not self._asked:
            self._asked = True
            self.failure = self.surrender = None
            self._announce(FeedState.CONNECTING)

    def disconnect(self) -> None:
        """Let the connection go and stay away; what is wanted stays wanted."""
        self._asked = False
        if self._scope is not None:
            self._scope.cancel()
        self._announce(FeedState.DISCONNECTED)

    async def connected(self) -> None:
        """Wait for the connection, however long it takes; ``failure`` says why it takes so long.

        Raises ``VenueError`` once the feed is not asked for a connection any more, or has given up.
        """
        while self.state is not FeedState.CONNECTED:
            self._check_asked()
            await self._news.park()

    async def given_up(self) -> VenueError:
        """Wait until the allowed attempts are used up; returns the last failure."""
        while self.surrender is None:
            await self._news.park()
        return self.surrender

    async def acknowledged(self, streams: Iterable[Stream]) -> None:
        """Wait until the exchange has acknowledged every stream, however long that takes.

        Raises ``VenueError`` with the exchange's words as soon as it refuses one, and when nobody wants one any more
        or no connection is asked for.
        """
        waiting = list(streams)
        for stream in waiting:
            self._refusals.pop(stream, None)
        while True:
            for stream in waiting:
                if (refusal := self._refusals.get(stream)) is not None:
                    text = f"the exchange refused {stream}: {refusal.words}"
                    raise VenueError(text, cause=Cause.REFUSED, code=refusal.code)
            if all(self.holds(stream) for stream in waiting):
                return
            self._check_asked()
            if any(stream not in self._wanted for stream in waiting):
                raise VenueError("the subscription was ended before it was acknowledged", cause=Cause.CLOSED)
            await self._news.park()

    def _check_asked(self) -> None:
        if not self._asked:
            raise self.surrender or VenueError("the connection was let go", cause=Cause.CLOSED)

    def holds(self, stream: Stream) -> bool:
        """Whether the exchange has acknowledged a stream on the present connection."""
        return self._session is not None and stream.name in self._session.conversation.held

    def arrival(self, stream: Stream) -> Arrival | None:
        """When the stream's newest fact came; ``None`` before its first."""
        return self._arrivals.get(stream)

    def health(self, stream: Stream) -> str:
        """One word on a stream: ``pending live quiet stale recovering``."""
        arrival, session, now = self._arrivals.get(stream), self._session, trio.current_time()
        if session is None or not self.holds(stream):
            return "pending" if arrival is None else "recovering"
        if arrival is None:
            return "pending" if now - session.connected_at < COMPLAIN_EVERY_S else "quiet"
        if self._rhythm.silent_s(now) > self._rhythm.patience_s(now) / 2:
            return "stale"
        if arrival.at_s < session.connected_at:
            return "recovering"
        return "live" if now - arrival.at_s < QUIET_AFTER_S else "quiet"

    def statistics(self) -> FeedStatistics:
        """Counts, for telemetry and the status page."""
        counts = self._counts
        return FeedStatistics(
            messages_received=counts.messages,
            unreadable=counts.unreadable,
            unknown=counts.unknown,
            repeated=counts.repeated,
            gaps=counts.gaps,
            reconnects=max(0, counts.connections - 1),
            last_message_ms=counts.last_message_ms,
            connections=() if self._session is None else (_row(self._session),),
        )

    # The life of the connection

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: connected while asked to be."""
        task_status.started()
        while True:
            while not self._asked:
                await self._news.park()
            with trio.CancelScope() as self._scope:
                try:
                    await keep_connected(self._attempt, backoff=self._backoff, lost=self._lost)
                except VenueError as error:
                    self._give_up(error)
            self._scope = None

    def _give_up(self, error: VenueError) -> None:
        log.error("feed gave up", extra={"reason": str(error), "failures": self._backoff.failures})
        self._asked = False
        self.surrender = error
        self._backoff.succeeded()
        self._announce(FeedState.DISCONNECTED, reason=str(error))

    async def _attempt(self, healthy: Callable[[], None]) -> None:
        conversation = Conversation(self._quarantine)
        wanted = self._wanted.streams()
        self._prune(wanted)
        names = [stream.name for stream in wanted]
        path = facts.STREAM_PATH if self._barren else conversation.open_with(names)
        self._rhythm = Rhythm()
        self._barren = False
        sent = partial(self._sent, conversation)
        async with trio.open_nursery() as nursery:
            failure: VenueError | None = None
            try:
                socket = await dial(nursery, self.url + path, sent=sent, open_stream=self._open_stream)
                await self._converse(_Session(socket, conversation, self.url, self._clock_ms()), healthy)
            except VenueError as error:
                self._barren = self._barren or error.status in _TOO_LONG
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _converse(self, session: _Session, healthy: Callable[[], None]) -> None:
        self._session = session
        self._counts.connections += 1
        self._rhythm.begin(trio.current_time())
        self.failure = None
        log.info("connected", extra={"url": session.url, "streams": len(session.conversation.held)})
        self._announce(FeedState.CONNECTED)
        try:
            await together(
                partial(self._read, session, healthy),
                partial(self._write, session),
                partial(self._watch, session),
                # The version of before the first look at the wishes: a change right after that look must wake it again.
                partial(self._relay_wishes, self._wanted.version),
            )
        except VenueError as error:
            self._blame(session, error)
            raise
        finally:
            self._session = None
            await session.socket.close()

    def _blame(self, session: _Session, error: VenueError) -> None:
        """Find out whether a name was the reason: of what the URL named, or of what was just asked for."""
        is_young = trio.current_time() - session.connected_at < YOUNG_S
        hung_up = error.cause in (Cause.CLOSED, Cause.REFUSED, Cause.PROTOCOL)
        self._barren = hung_up and (session.messages == 0 or is_young)
        if error.cause is Cause.REFUSED and not any(words in str(error) for words in _NOT_ABOUT_NAMES):
            self._refuse(session.conversation.hung_up(str(error)))

    def _lost(self, error: VenueError, wait_s: float) -> None:
        self.failure = error
        self._announce(FeedState.RECONNECTING, reason=str(error), retry_in_s=round(wait_s, 3))

    def _announce(self, state: FeedState, *, reason: str | None = None, retry_in_s: float | None = None) -> None:
        status = FeedStatus(state=state, reason=reason, retry_in_s=retry_in_s)
        if status != self._sink.status:
            self._sink.announce(status)
        self._news.unpark_all()

    # Read

    async def _read(self, session: _Session, healthy: Callable[[], None]) -> None:
        while True:
            text = await session.socket.receive()
            try:
                frame = wire.read_frame(text)
            except wire.Unreadable as error:
                self._complain(error)
                continue
            if frame.e == facts.SHUTDOWN_EVENT or frame.stream == facts.SHUTDOWN_STREAM:
                raise VenueError("the exchange announced that this server shuts down", cause=Cause.CLOSED)
            if frame.stream is None:
                self._answered(session.conversation, frame)
            else:
                self._take(session, frame.stream, frame.data)
                if session.messages == 1:
                    healthy()

    def _answered(self, conversation: Conversation, frame: wire.Combined) -> None:
        held = len(conversation.held)
        self._refuse(conversation.answered(frame))
        if len(conversation.held) < held:
            self._rhythm = Rhythm()  # the stream that gave the beat may be gone
            self._rhythm.begin(trio.current_time())
        self._news.unpark_all()

    def _take(self, session: _Session, name: str, data: msgspec.Raw) -> None:
        now, now_ms = trio.current_time(), self._clock_ms()
        session.messages += 1
        self._rhythm.heard(now)
        self._counts.messages += 1
        self._counts.last_message_ms = now_ms
        try:
            read = wire.read_event(name, data, now_ms)
        except wire.Unreadable as error:
            self._complain(error)
            return
        if read is None:
            self._counts.unknown += 1
            return
        stream, event = read
        if name not in session.conversation.held:
            session.conversation.delivered(name)
            self._news.unpark_all()
        if stream not in self._wanted:
            return  # some still come after an unsubscription, and are no start of a new life
        self._arrivals[stream] = Arrival(now, now_ms)
        self._publish(stream, event, now_ms)

    def _publish(self, stream: Stream, event: Event, now_ms: int) -> None:
        verdict = self._continuity.judge(stream, event)
        if not verdict.is_new:
            self._counts.repeated += 1
            return
        if verdict.is_restart and verdict.gap is not None:
            log.warning("numbers started again", extra={"stream": stream.name, "after": verdict.gap.first})
            self._sink.renew(stream, verdict.gap)
        elif verdict.gap is not None:
            self._counts.gaps += 1
            log.warning("gap", extra={"stream": stream.name, "first": verdict.gap.first, "last": verdict.gap.last})
            self._sink.publish_gap(stream, verdict.gap)
        self._sink.publish(stream, event, now_ms)

    def _complain(self, error: wire.Unreadable) -> None:
        self._counts.unreadable += 1
        now = trio.current_time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("unreadable frame", extra={"reason": str(error), "unreadable": self._counts.unreadable})

    # Write

    async def _write(self, session: _Session) -> None:
        """Say what is to be said, one word at a time, whenever what is wanted or what is held has changed."""
        conversation = session.conversation
        while True:
            now = trio.current_time()
            if (free_at := conversation.free_at(now)) > now:
                await trio.sleep_until(free_at)
                continue
            conversation.expire(now)
            wanted = self._wanted.streams()
            self._prune(wanted)
            self._refuse(tuple(Refusal(stream.name, None, _FULL) for stream in wanted[facts.STREAMS_PER_CONNECTION :]))
            request = conversation.next_request([stream.name for stream in wanted], now)
            if request is not None:
                await session.socket.send(request)
                continue
            # No await since the look at what is wanted: news in between would be missed.
            with trio.move_on_at(conversation.next_expiry()):
                await self._news.park()

    async def _relay_wishes(self, seen: int) -> None:
        while True:
            seen = await self._wanted.changed(seen)
            self._news.unpark_all()

    def _sent(self, conversation: Conversation) -> None:
        conversation.sent(trio.current_time())

    def _prune(self, wanted: tuple[Stream, ...]) -> None:
        """Forget streams that nobody wants: when they come back, they start anew."""
        goal = set(wanted)
        for stream in [stream for stream in self._arrivals if stream not in goal]:
            del self._arrivals[stream]
            self._continuity.forget(stream)

    def _refuse(self, refusals: tuple[Refusal, ...]) -> None:
        for refusal in refusals:
            log.warning("stream refused", extra={"stream": refusal.name, "code": refusal.code, "words": refusal.words})
            stream = next((stream for stream in self._wanted.streams() if stream.name == refusal.name), None)
            if stream is not None:
                self._refusals[stream] = refusal
                self._sink.refuse(stream, refusal.words)

    # Watch

    async def _watch(self, session: _Session) -> None:
        while True:
            await trio.sleep(WATCH_EVERY_S)
            now = trio.current_time()
            if now - session.socket.heard_at > facts.TOTAL_SILENCE_S:
                raise VenueError(f"nothing came for {facts.TOTAL_SILENCE_S:g} s, not even a ping", cause=Cause.SILENT)
            patience_s = self._rhythm.patience_s(now)
            if session.conversation.held and self._rhythm.silent_s(now) > patience_s:
                raise VenueError(f"no data came for {patience_s:.0f} s", cause=Cause.SILENT)


def _row(session: _Session) -> ConnectionStatistics:
    return ConnectionStatistics(
        url=session.url,
        streams=len(session.conversation.held),
        connected_at_ms=session.connected_at_ms,
        uptime_s=round(trio.current_time() - session.connected_at, 3),
        messages_received=session.messages,
    )
