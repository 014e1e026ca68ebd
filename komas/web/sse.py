"""Market events to a browser, as Server-Sent Events.

The body owns the client's subscription: entering it subscribes, leaving it, for whatever reason, unsubscribes. One
chunk carries everything that waited.

Where the connection can be written to without waiting, it takes the body over once the greeting is out: no request is
left around it, and no task waits for events. The hub writes chunks that were framed once for everybody, and the
connection asks the body only for what it could not take.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

import msgspec
import trio
from quart import Response
from quart.wrappers.response import ResponseBody
from werkzeug.datastructures import Headers

from komas.hub.broadcast import Writer
from komas.hub.hub import Hub, MarketSubscription
from komas.hub.overflow import Batch, Item
from komas.hub.subscription import DirectSubscription
from komas.model.codec import Envelope, NoticeEnvelope, StreamPosition, parse_position
from komas.model.market import FeedState, FeedStatus, Gap
from komas.model.streams import Stream
from komas.web.encoding import named_event, server_sent_event
from komas.web.hypercorn.transport import TakeOver
from komas.web.market_messages import Busy, Lagged
from komas.web.query import is_last_event_id

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    # No encoding at all, which RFC 9110 (8.4.1) would leave unsaid: Caddy 2.6 with `encode gzip` ignores no-transform,
    # and holds events back for as long as its compressor likes, where there is no such header.
    "Content-Encoding": "identity",
}
RETRY_MS: Final = (1_000, 4_000)  # spread, so that those who were cut off together do not come back together
BUSY_RETRY_MS: Final = (5_000, 30_000)  # spread, so that those who were turned away do not come back together
CHUNK_BYTES: Final = 2**16  # a write must fit its deadline on a slow line
# Without the blank line that would end an event: two popular clients (httpx-sse, @microsoft/fetch-event-source) hand
# out an event with empty data there, against WHATWG HTML, 9.2.6. The same goes for a "retry:" by itself.
COMMENT: Final = b": keep-alive\n"
UNREADABLE: Final = "the id that this reader came back with cannot be read"


class Show(msgspec.Struct, frozen=True):
    """What a client is shown: so many ``levels`` of an order book, ``max_rate`` events a second; ``None`` for all.

    It is the encoder of a broadcast group, too: chunks of HTTP/1.1 (RFC 9112, 7.1), written directly.
    """

    levels: int | None = None
    max_rate: float | None = None

    @property
    def heartbeat(self) -> bytes:
        """What is written after a silence."""
        return framed(COMMENT)

    def new_events(self) -> Events:
        """What writes events as this client is shown them."""
        return Events(self.levels)

    def new_encoding(self) -> Callable[[Batch], bytes]:
        """A function that encodes each batch as one chunk."""
        events = self.new_events()

        def encode(batch: Batch) -> bytes:
            if len(batch.items) == 1 and not batch.dropped:
                return framed(events.render(batch.items[0]))
            return framed(b"".join(events.of(batch)))

        return encode


def framed(body: bytes) -> bytes:
    """One chunk of HTTP/1.1; nothing for nothing."""
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


def _lagged(dropped: int) -> bytes:
    return named_event("lagged", Lagged(dropped))


class Events:
    """Batches as events, one after another; of an order book so many ``levels``, whenever these have changed.

    ``write`` makes bytes of an item, ``lagged`` of the number of those that were dropped.
    """

    __slots__ = ("_lagged", "_levels", "_shown", "_write")

    def __init__(
        self,
        levels: int | None,
        write: Callable[[Item], bytes] = server_sent_event,
        lagged: Callable[[int], bytes] = _lagged,
    ) -> None:
        self._levels = levels
        self._write = write
        self._lagged = lagged
        self._shown: dict[Stream, object] = {}  # the part of each order book that was sent last

    def of(self, batch: Batch) -> list[bytes]:
        """The events of one batch."""
        if self._levels is None:
            events = [self._write(item) for item in batch.items]
        else:
            events = [event for item in batch.items if (event := self.render(item))]
        if batch.dropped:
            events.insert(0, self._lagged(batch.dropped))
        return events

    def render(self, item: Item) -> bytes:
        """One item as an event; nothing where the part of a book that the client sees has not changed."""
        if self._levels is None:
            return self._write(item)
        if not isinstance(item, Envelope):
            # A book that was doubted, and is what it was, is news again, and all there is for a newcomer.
            if item.stream is not None:
                self._shown.pop(item.stream, None)
            elif isinstance(item.notice, FeedStatus):
                self.forget()
            return self._write(item)
        cut = item.cut(self._levels)
        if cut is not item:
            shown = (cut.event["bids"], cut.event["asks"])
            if self._shown.get(item.stream) == shown:
                return b""
            self._shown[item.stream] = shown
        return self._write(cut)

    def forget(self) -> None:
        """Something else was sent in the meantime."""
        self._shown.clear()


def first_notices(status: FeedStatus, streams: Iterable[Stream], *, is_lost: bool) -> Iterator[NoticeEnvelope]:
    """What a reader hears before its streams: an exchange that is away; ``is_lost``: its place cannot be read."""
    if status.state is not FeedState.CONNECTED:
        yield NoticeEnvelope(status)
    if is_lost:
        for stream in streams:
            yield NoticeEnvelope(Gap(stream=stream.name, first=None, last=None, reason=UNREADABLE), stream)


class Return(msgspec.Struct, frozen=True):
    """A client comes back; ``position`` is ``None`` where what it says of its place cannot be read."""

    position: StreamPosition | None


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one client reads, and how.

    ``reader`` is whom its streams are counted by. ``returning`` recovers what came after a position, or tells that
    this cannot be done; a heartbeat is sent after ``heartbeat_s`` seconds without an event; ``capacity`` bounds the
    events that wait. ``writer`` is the connection, where it can be written to without waiting; it can ``take_over``.
    """

    streams: Sequence[Stream]
    reader: str
    show: Show
    heartbeat_s: float
    capacity: int
    returning: Return | None = None
    writer: Writer | None = None
    take_over: TakeOver | None = None

    @property
    def since(self) -> StreamPosition | None:
        """The position after which the client wants everything."""
        return None if self.returning is None else self.returning.position

    @property
    def direct(self) -> Writer | None:
        """The connection that the hub may write to; a rate-limited stream has a pace of its own."""
        return self.writer if self.show.max_rate is None else None


class EventBody(ResponseBody):
    """The body of one SSE response: endless, or ``busy`` and its end.

    ``admission`` is entered when the body begins, and left with it: it yields why the client cannot come in, or
    ``None``, and counts it in the same moment, so that no burst of clients gets past a limit.
    """

    def __init__(self, hub: Hub, options: ReadOptions, admission: AbstractContextManager[str | None]) -> None:
        self._hub = hub
        self._options = options
        self._admission = admission
        self._pause_s = 0.0 if options.show.max_rate is None else 1 / options.show.max_rate
        self._events = options.show.new_events()
        self._next_at = 0.0
        self._waiting: Iterator[bytes] = iter(())  # chunks, each joined when the one before was taken
        self._subscribing: AbstractContextManager[MarketSubscription] | None = None
        self._subscription: MarketSubscription | None = None
        self._is_taken_over = False
        self._direct: DirectSubscription[Item, Batch] | None = None  # the same, where the hub writes

    async def __aenter__(self) -> Self:
        # No await from here on: limits are checked and counted at once, and the first dial finds the streams wanted.
        if (reason := self._admission.__enter__()) is not None:
            self._waiting = iter([_busy(reason, self._options.returning)])
            return self
        try:
            self._subscribing = self._subscribe()
            self._subscription = self._subscribing.__enter__()
            if self._options.direct is not None and isinstance(self._subscription, DirectSubscription):
                self._direct = self._subscription
            self._waiting = _chunks([*self._greeting(self._subscription)])
            if self._subscription.initial:
                self._next_at = trio.current_time() + self._pause_s
            self._subscription.initial.clear()  # of a subscription that may last for hours
        except BaseException:
            self.leave()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._is_taken_over:
            self.leave()

    def leave(self) -> None:
        """Unsubscribe."""
        try:
            if self._subscribing is not None and self._subscription is not None:
                self._subscribing.__exit__(None, None, None)
        finally:
            self._admission.__exit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while (chunk := next(self._waiting, None)) is None:
            if self._subscription is None:
                raise StopAsyncIteration  # busy, and said so
            if self._direct is not None and (take_over := self._options.take_over) is not None:
                take_over(self)
                self._options = msgspec.structs.replace(self._options, take_over=None)  # it leads back to the request
                self._is_taken_over = True
                raise StopAsyncIteration
            self._waiting = _chunks(await self._news(self._subscription))
        return chunk

    # Once the connection has taken it over

    @property
    def heartbeat(self) -> bytes:
        """What is written where nothing else is."""
        return self._options.show.heartbeat

    def rest(self, woken: Callable[[], None]) -> bool:
        """Let the hub write until ``woken`` is called, once; ``False`` where ``take()`` is to be asked before."""
        return self._direct is not None and self._direct.rest(woken)

    def take(self) -> Iterator[bytes]:
        """Chunks of what waits; raises ``trio.EndOfChannel`` at the end."""
        batch = None if self._direct is None else self._direct.take()
        self._events.forget()  # the hub has written in the meantime
        return iter(()) if batch is None else map(framed, _chunks(self._events.of(batch)))

    def _subscribe(self) -> AbstractContextManager[MarketSubscription]:
        options, writer = self._options, self._options.direct
        if writer is None:
            return self._hub.subscribe(
                options.streams,
                reader=options.reader,
                since=options.since,
                capacity=options.capacity,
                is_nudged=True,
            )
        return self._hub.subscribe_writer(
            options.streams,
            writer,
            options.show,
            reader=options.reader,
            since=options.since,
            capacity=options.capacity,
        )

    def _greeting(self, subscription: MarketSubscription) -> Iterable[bytes]:
        options = self._options
        yield _first_lines(RETRY_MS, options.returning)
        yield from self._opening()
        is_lost = options.returning is not None and options.since is None
        yield from map(self._events.render, first_notices(self._hub.status, options.streams, is_lost=is_lost))
        yield from map(self._events.render, subscription.initial)

    def _opening(self) -> Iterable[bytes]:
        """What comes before everything else."""
        return ()

    async def _news(self, subscription: MarketSubscription) -> list[bytes]:
        """What is new, at the pace that the client asked for; a heartbeat after a silence."""
        events: list[bytes] = []
        silent_until = subscription.written_at + self._options.heartbeat_s
        if self._pause_s:
            with trio.move_on_at(min(self._next_at, silent_until)):
                await self._hub.drained.wait()  # the end of the server is not waited for
        while not events and silent_until > trio.current_time():
            events = await self._heard(subscription)  # nothing, where the hub says that it is silent
        subscription.written_at = trio.current_time()
        if events:
            self._next_at = subscription.written_at + self._pause_s
        return events or [COMMENT]

    async def _heard(self, subscription: MarketSubscription) -> list[bytes]:
        try:
            batch = await subscription.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        return self._events.of(batch)

    async def convert_to_sequence(self) -> bytes:
        """Refuse: the body has no end, so nothing may ask for all of it."""
        raise NotImplementedError("an event stream has no end")

    async def make_conditional(self, begin: int, end: int | None) -> int:
        """Refuse: there is no range of a stream."""
        raise NotImplementedError("an event stream has no ranges")


def return_of(headers: Headers, query: Mapping[str, str]) -> Return | None:
    """Where a client left off, if it says so: in its header, or in the query, where the name is spelled in many ways.

    What the header says is newer than what a page wrote into an address, and what a polyfill appends to the query newer
    than what stood there before.
    """
    said = [headers.get("Last-Event-ID", "")]
    said += [text for name, text in reversed(list(query.items())) if is_last_event_id(name)]
    text = next((text for text in said if text), None)
    return None if text is None else Return(parse_position(text))


def respond(body: EventBody) -> Response:
    """Answer with an event stream that no time-out ends."""
    response = Response(body, 200, HEADERS)
    response.timeout = None
    return response


def busy(reason: str, returning: Return | None) -> Response:
    """Answer with ``busy`` and the end of the stream."""
    return Response(_busy(reason, returning), 200, HEADERS)


def head() -> Response:
    """Answer HEAD: the same headers, no stream, and no word of a length, for a stream has none (RFC 9110, 8.6)."""
    response = Response(b"", 200, HEADERS)
    del response.headers["Content-Length"]
    return response


def _busy(reason: str, returning: Return | None) -> bytes:
    """What a client is turned away with: a browser's EventSource gives up for good on any status but 200."""
    return _first_lines(BUSY_RETRY_MS, returning) + named_event("busy", Busy(reason))


def _first_lines(retry_ms: tuple[int, int], returning: Return | None) -> bytes:
    """When to come back after a cut, and the place that the client has come back with: lines of the first event.

    By themselves they would be an event without data. The place is the client's own until an event has another; who
    takes the ``id`` of each event for it, as the loop in httpx-sse's README does, forgot it at a notice without one.
    """
    delay = random.randint(*retry_ms)  # noqa: S311 - spreads load, guards nothing
    place = "" if returning is None or returning.position is None else f"id: {returning.position}\n"
    return f"retry: {delay}\n{place}".encode()


def _chunks(events: Sequence[bytes]) -> Iterator[bytes]:
    """Join events into as few chunks as their size allows, each when it is asked for.

    The bytes of an event are everybody's, those of a chunk are one client's: thousands of events that wait for it are
    not to be joined before it reads.
    """
    chunk: list[bytes] = []
    size = 0
    for event in events:
        if chunk and size + len(event) > CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(event)
        size += len(event)
    yield b"".join(chunk)
