"""Many streams over one connection, as Server-Sent Events; and the connections that are open, so that they can change.

A connection is known by a name that nobody can guess, which its reader is told first: who has it may change what it
reads, and needs no other proof.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from komas.hub.hub import Hub, MarketSubscription
from komas.hub.multiplex import MultiplexedSubscription
from komas.hub.overflow import Batch, Item
from komas.model.codec import NoticeEnvelope
from komas.model.kinds import Kind
from komas.model.market import FeedState, Gap
from komas.model.streams import Stream
from komas.web import sse
from komas.web.encoding import multiplexed_event, named_event, server_sent_event
from komas.web.past_loader import PastLoader

_NAME_BYTES: Final = 16  # cannot be guessed (128 bits)


class Greeting(msgspec.Struct, frozen=True):
    """What kind of server this is; ``server`` is the name of this process's life."""

    simulated: bool
    version: str
    server: str


class Opened(msgspec.Struct, frozen=True):
    """``event: open``: the connection's name, for changes; its streams; what kind of server this is."""

    connection: str
    streams: tuple[str, ...]
    simulated: bool
    version: str
    server: str


class MultiplexedShow(msgspec.Struct, frozen=True):
    """What a client is shown: so many ``levels`` of order books; also the encoder of chunks that are written directly.

    ``epoch`` is the hub's. It may have ``max_rate`` events a second; ``None`` for all. With ``is_single`` events are as
    those of one stream alone.
    """

    levels: int
    epoch: str
    max_rate: float | None = None
    is_single: bool = False

    @property
    def heartbeat(self) -> bytes:
        """What is written after a silence."""
        return sse.framed(sse.COMMENT)

    def new_events(self) -> MultiplexedEvents:
        """What writes events as this client is shown them."""
        return MultiplexedEvents(self)

    def new_encoding(self) -> Callable[[Batch], bytes]:
        """A function that encodes each batch as one chunk."""
        events = self.new_events()

        return lambda batch: sse.framed(b"".join(events.of(batch)))


class MultiplexedEvents:
    """Batches as events of many streams, one after another."""

    def __init__(self, show: MultiplexedShow) -> None:
        self._show = show
        self._shown: dict[Stream, object] = {}  # the part of each order book that was sent last

    def of(self, batch: Batch) -> list[bytes]:
        """The events of one batch."""
        events = [event for item in batch.items if (event := self.render(item))]
        if batch.dropped:
            events.insert(0, named_event("lagged", sse.Lagged(batch.dropped)))
        return events

    def render(self, item: Item) -> bytes:
        """One item as an event; nothing where the part of a book that the client sees has not changed."""
        if isinstance(item, NoticeEnvelope):
            if item.stream is not None:
                self._shown.pop(item.stream, None)
            return server_sent_event(item)
        cut = item.cut(self._show.levels)
        if cut is not item:
            shown = (cut.event["bids"], cut.event["asks"])
            if self._shown.get(item.stream) == shown:
                return b""
            self._shown[item.stream] = shown
        return server_sent_event(cut) if self._show.is_single else multiplexed_event(cut, self._show.epoch)

    def forget(self) -> None:
        """Something else was sent in the meantime."""
        self._shown.clear()


class Connection(Protocol):
    """A connection that reads many streams, as a change of them finds it."""

    @property
    def reader(self) -> str:
        """Whom its streams are counted by."""

    @property
    def streams(self) -> Collection[Stream]:
        """What it reads now."""

    def change(self, added: Sequence[Stream], removed: Sequence[Stream]) -> None:
        """Read more streams, and some no more. No await in here."""


class OpenConnections:
    """Those that are open, by their names."""

    def __init__(self) -> None:
        self._by_name: dict[str, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Connection | None:
        """The connection of a name; ``None`` where it is closed, or never was."""
        return self._by_name.get(name)

    def open(self, connection: Connection) -> str:
        """Have a connection found; returns its name."""
        name = secrets.token_urlsafe(_NAME_BYTES)
        self._by_name[name] = connection
        return name

    def close(self, name: str) -> None:
        """Have it found no more."""
        del self._by_name[name]


class MultiplexOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection begins with, beside ``sse.ReadOptions``.

    ``candles`` is how many past ones come before those of a stream that are live; 0 for none. Without ``connections``
    it has no name, and is not to be changed.
    """

    greeting: Greeting
    connections: OpenConnections | None
    past: PastLoader
    candles: int = 0

    def with_past(self, streams: Iterable[Stream]) -> tuple[Stream, ...]:
        """Those of the streams that begin with what is past."""
        return tuple(stream for stream in streams if self.candles and stream.kind is Kind.KLINE)


class MultiplexedBody(sse.EventBody):
    """The body of an SSE response with many streams."""

    def __init__(
        self,
        hub: Hub,
        options: sse.ReadOptions,
        more: MultiplexOptions,
        admission: AbstractContextManager[str | None],
    ) -> None:
        super().__init__(hub, options, admission)
        self._more = more
        self._name: str | None = None

    @property
    def reader(self) -> str:
        """Whom its streams are counted by."""
        return self._options.reader

    @property
    def streams(self) -> Collection[Stream]:
        """What it reads now."""
        return self._multiplexed().streams

    def change(self, added: Sequence[Stream], removed: Sequence[Stream]) -> None:
        """Read more streams, and some no more. No await in here."""
        past = self._more.with_past(added)
        subscription = self._multiplexed()
        subscription.change(added, removed, past)
        self._more.past.load(subscription, past, self._more.candles, self.reader)

    def _multiplexed(self) -> MultiplexedSubscription:
        assert isinstance(self._subscription, MultiplexedSubscription)  # whoever is not admitted has no name
        return self._subscription

    def _subscribe(self) -> AbstractContextManager[MultiplexedSubscription]:
        options = self._options
        show = options.show
        assert isinstance(show, MultiplexedShow)
        return self._hub.multiplex(
            options.streams,
            show,
            reader=options.reader,
            writer=options.direct,
            since=options.since,
            past=self._more.with_past(options.streams),
            capacity=options.capacity,
        )

    def _greeting(self, subscription: MarketSubscription) -> Iterable[bytes]:
        yield sse.retry(sse.RETRY_MS)
        if self._more.connections is not None:
            self._name = self._more.connections.open(self)
            names = tuple(stream.name for stream in self._options.streams)
            greeting = self._more.greeting
            yield named_event("open", Opened(self._name, names, greeting.simulated, greeting.version, greeting.server))
        if self._hub.status.state is not FeedState.CONNECTED:
            yield server_sent_event(NoticeEnvelope(self._hub.status))
        if self._options.returning is not None and self._options.since is None:
            for stream in self._options.streams:
                yield named_event("gap", Gap(stream=stream.name, first=None, last=None, reason=sse.UNREADABLE))
        yield from map(self._events.render, subscription.initial)
        past = self._more.with_past(self._options.streams)
        self._more.past.load(self._multiplexed(), past, self._more.candles, self.reader)

    def _leave(self) -> None:
        if self._name is not None and self._more.connections is not None:
            self._more.connections.close(self._name)
            self._name = None
        super()._leave()
