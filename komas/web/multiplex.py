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
from komas.model.streams import Stream
from komas.web import sse
from komas.web.encoding import multiplexed_event, named_event, server_sent_event
from komas.web.market_messages import EventsOpened
from komas.web.past_loader import PastLoader, with_past

_NAME_BYTES: Final = 16  # cannot be guessed (128 bits)


class Greeting(msgspec.Struct, frozen=True):
    """What kind of server this is; ``server`` is the name of this process's life."""

    simulated: bool
    version: str
    server: str


class MultiplexedShow(sse.Show, frozen=True, kw_only=True):
    """What a client of many streams is shown; ``epoch`` is the hub's now: that of a log may get another name.

    With ``is_single`` events are as those of one stream alone.
    """

    epoch: Callable[[], str]
    is_single: bool = False

    def new_events(self) -> sse.Events:
        """What writes events as this client is shown them."""
        if self.is_single:
            return sse.Events(self.levels, server_sent_event)
        return sse.Events(self.levels, lambda item: multiplexed_event(item, self.epoch()))


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
        past = with_past(added, self._more.candles)
        self._multiplexed().change(added, removed, past)
        self._load(past)

    def _load(self, past: Sequence[Stream]) -> None:
        self._more.past.load(self._multiplexed(), past, self._more.candles, self.reader)

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
            past=with_past(options.streams, self._more.candles),
            capacity=options.capacity,
            is_nudged=options.direct is None,
        )

    def _greeting(self, subscription: MarketSubscription) -> Iterable[bytes]:
        yield from super()._greeting(subscription)
        self._load(with_past(self._options.streams, self._more.candles))

    def _opening(self) -> Iterable[bytes]:
        if self._more.connections is not None:
            self._name = self._more.connections.open(self)
            greeting, names = self._more.greeting, tuple(stream.name for stream in self._options.streams)
            yield named_event(
                "open",
                EventsOpened(
                    connection=self._name,
                    streams=names,
                    simulated=greeting.simulated,
                    version=greeting.version,
                    server=greeting.server,
                ),
            )

    def leave(self) -> None:
        """Unsubscribe; it is found no more."""
        if self._name is not None and self._more.connections is not None:
            self._more.connections.close(self._name)
            self._name = None
        super().leave()
