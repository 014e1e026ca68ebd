"""``/ws/market``: many streams over one WebSocket, for those who prefer it to SSE.

The same events, notices and guarantees as ``/api/ws/sse/stream``: one order over all streams, a place to come back to
(``position``), past candles before live ones, and a buffer that drops the oldest and says so. What a client asks for
goes over the same socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec
import trio

from komas.errors import CallerError, Closing
from komas.hub.hub import Hub
from komas.hub.multiplex import MultiplexedSubscription
from komas.hub.overflow import Batch
from komas.model.codec import StreamPosition, encode
from komas.model.streams import Stream, parse_name
from komas.signals.messages import Pong
from komas.signals.session import BURST, RATE, Bucket
from komas.web.encoding import multiplexed_message, text_frame
from komas.web.hypercorn.transport import AcceptedSocket
from komas.web.market_messages import MarketRefusal, NamedLagged, Opened, Subscribed, Unsubscribed
from komas.web.multiplex import Greeting
from komas.web.past_loader import PastLoader, with_past
from komas.web.sse import Events, first_notices

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 16 * 1024  # 512 streams with long names
SILENCE_S: Final = 90.0
_MALFORMED: Final = 'a message is a JSON object such as {"type": "subscribe", "streams": ["btcusdt@trade"], "id": 1}'


class MarketAccess(Protocol):
    """What is asked of the rest of the server before streams are opened."""

    async def check_listed(self, streams: Sequence[Stream]) -> None:
        """Raise ``CallerError`` for symbols that the exchange does not list."""

    def why_full(self, streams: Collection[Stream]) -> str | None:
        """Why this client cannot have streams, ``None`` where it can; then the market is connected."""


class MarketRequest(msgspec.Struct, frozen=True):
    """What a client asks for at its handshake; ``is_lost`` is whether its place cannot be read.

    ``ignored`` are parameters that there are not.
    """

    streams: tuple[Stream, ...]
    reader: str
    levels: int
    candles: int = 0
    since: StreamPosition | None = None
    is_lost: bool = False
    ignored: tuple[str, ...] = ()


class _Message(msgspec.Struct):
    """``{"type":"subscribe","streams":["btcusdt@trade"],"id":1}``."""

    type: str
    streams: tuple[str, ...] = ()
    id: int | str | None = None


class MarketFrames(msgspec.Struct, frozen=True):
    """The encoder: events and notices as WebSocket frames; ``epoch`` is the hub's now."""

    levels: int
    epoch: Callable[[], str]

    @property
    def heartbeat(self) -> bytes:
        """Nothing: a socket has pings of its own."""
        return b""

    def new_messages(self) -> Events:
        """What writes them as texts of JSON."""
        return Events(self.levels, lambda item: multiplexed_message(item, self.epoch()), _lagged)

    def new_encoding(self) -> Callable[[Batch], bytes]:
        """A function that encodes each batch as one piece."""
        messages = self.new_messages()
        return lambda batch: b"".join(map(text_frame, messages.of(batch)))


def _lagged(dropped: int) -> bytes:
    return encode(NamedLagged(dropped))


class MarketConversation:
    """One client's socket; ``run()`` returns how it is to be closed."""

    def __init__(
        self,
        hub: Hub,
        socket: AcceptedSocket,
        request: MarketRequest,
        access: MarketAccess,
        *,
        past: PastLoader,
        greeting: Greeting,
        draining: trio.Event,
        ping_every_s: float,
        capacity: int,
        is_direct: bool,
    ) -> None:
        self._hub = hub
        self._socket = socket
        self._request = request
        self._access = access
        self._past = past
        self._greeting = greeting
        self._draining = draining
        self._ping_every_s = ping_every_s
        self._capacity = capacity
        self._frames = MarketFrames(request.levels, lambda: hub.epoch)
        self._writer = socket.writer if is_direct else None
        self._bucket = Bucket(RATE, BURST, trio.current_time())
        self._closing = Closing.FAILED
        self._scope = trio.CancelScope()

    async def run(self) -> Closing:
        """Converse until something ends it."""
        if self._access.why_full(self._request.streams) is not None:
            return Closing.TRY_AGAIN
        try:
            with self._scope, self._subscribed() as subscription:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep)
                    nursery.start_soon(self._wait_for_drain)
                    handed, said = trio.open_memory_channel[str | bytes | None](1)
                    nursery.start_soon(self._socket.listen, handed.send)
                    nursery.start_soon(self._read, subscription, said)
                    await self._deliver(subscription)
        except* Exception:
            log.exception("a market socket failed")  # its bug is not the others'
        return self._closing

    def _subscribed(self) -> AbstractContextManager[MultiplexedSubscription]:
        request = self._request
        return self._hub.multiplex(
            request.streams,
            self._frames,
            reader=request.reader,
            writer=self._writer,
            since=request.since,
            past=with_past(request.streams, request.candles),
            capacity=self._capacity,
        )

    async def _deliver(self, subscription: MultiplexedSubscription) -> None:
        messages, request = self._frames.new_messages(), self._request
        await self._socket.send(_text(self._opened()))
        first = first_notices(self._hub.status, request.streams, is_lost=request.is_lost)
        batch = Batch([*first, *subscription.initial], 0)
        subscription.initial.clear()
        self._load(subscription, with_past(request.streams, request.candles))
        while True:
            for message in messages.of(batch):
                await self._socket.send(message.decode())
            if self._writer is not None:
                await self._writer.flush()
                messages.forget()
            try:
                batch = await subscription.receive()
            except trio.EndOfChannel:
                # The server drains, or a history ended in the middle of a replay: it comes back with its place.
                self._end(Closing.SHUTTING_DOWN if self._draining.is_set() else Closing.TRY_AGAIN)
                return

    def _opened(self) -> Opened:
        greeting, request = self._greeting, self._request
        return Opened(
            streams=tuple(stream.name for stream in request.streams),
            simulated=greeting.simulated,
            version=greeting.version,
            server=greeting.server,
            ignored=request.ignored or msgspec.UNSET,
        )

    async def _read(
        self, subscription: MultiplexedSubscription, said: trio.MemoryReceiveChannel[str | bytes | None]
    ) -> None:
        async for message in said:
            if (closing := self._why_closed(message)) is not None:
                self._end(closing)
                return
            assert isinstance(message, str)
            answer = await self._answer(subscription, message)
            if answer:
                # A client that asks and does not read is not read any further: TCP holds it up.
                await self._socket.send(answer)

    def _why_closed(self, message: str | bytes | None) -> Closing | None:
        """Why a message is the client's last one; ``None`` where it is not."""
        if not self._bucket.take(trio.current_time()):
            return Closing.RATE_LIMITED
        if not isinstance(message, str):
            return Closing.BINARY
        return Closing.TOO_BIG if len(message) > MESSAGE_BYTES else None

    async def _answer(self, subscription: MultiplexedSubscription, text: str) -> str:
        try:
            message = msgspec.json.decode(text, type=_Message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return _error("malformed", _MALFORMED, None)
        match message.type:
            case "ping":
                return _text(Pong())
            case "pong":
                return ""
            case "subscribe" | "unsubscribe":
                return await self._change(subscription, message)
            case _:
                return _error("unknown_type", "known types: subscribe unsubscribe ping pong", message.id)

    async def _change(self, subscription: MultiplexedSubscription, message: _Message) -> str:
        try:
            streams = [parse_name(name) for name in dict.fromkeys(message.streams)]
            if message.type == "subscribe":
                await self._access.check_listed(streams)
        except CallerError as error:
            return _error("invalid", str(error), message.id)
        # No await from here on: what is checked is still so when it is changed.
        if message.type == "unsubscribe":
            subscription.change([], streams, ())
        else:
            fresh = [stream for stream in streams if stream not in subscription.streams]
            if fresh and (reason := self._access.why_full(fresh)) is not None:
                return _error("busy", reason, message.id)
            past = with_past(fresh, self._request.candles)
            subscription.change(fresh, [], past)
            self._load(subscription, past)
        done = Unsubscribed if message.type == "unsubscribe" else Subscribed
        return _text(done(tuple(stream.name for stream in subscription.streams), message.id))

    def _load(self, subscription: MultiplexedSubscription, past: Sequence[Stream]) -> None:
        self._past.load(subscription, past, self._request.candles, self._request.reader)

    async def _keep(self) -> None:
        """Ping, and drop a peer that has been silent for too long."""
        while True:
            await trio.sleep(self._ping_every_s)
            if self._socket.heard_s_ago > SILENCE_S:
                self._end(Closing.TRY_AGAIN)
            await self._socket.ping()

    async def _wait_for_drain(self) -> None:
        await self._draining.wait()
        self._end(Closing.SHUTTING_DOWN)

    def _end(self, closing: Closing) -> None:
        self._closing = closing
        self._scope.cancel("closed")


def _text(message: msgspec.Struct) -> str:
    return encode(message).decode()


def _error(code: str, words: str, number: int | str | None) -> str:
    return _text(MarketRefusal(code, words, number))
