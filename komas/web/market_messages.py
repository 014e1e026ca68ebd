"""What connections with many streams say of themselves, and what a client of ``/ws/market`` may say. Sans-I/O.

Events and notices are in ``komas.model.market``; ``ping`` and ``pong`` are those of signal sockets.
"""

from __future__ import annotations

import msgspec


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="open"):
    """The first message of a WebSocket; ``server`` is the name of the server process's life.

    ``ignored`` are parameters that there are not.
    """

    streams: tuple[str, ...]
    simulated: bool
    version: str
    server: str
    ignored: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class EventsOpened(msgspec.Struct, frozen=True, kw_only=True):
    """The first event of an event stream with many streams; ``connection`` is its name, by which it is changed."""

    connection: str
    streams: tuple[str, ...]
    simulated: bool
    version: str
    server: str


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe"):
    """From the client: read more streams; ``id`` comes back with the answer."""

    streams: tuple[str, ...]
    id: int | str | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribe"):
    """From the client: read some streams no more."""

    streams: tuple[str, ...]
    id: int | str | None = None


class Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed", omit_defaults=True):
    """All streams that are read now; ``id`` is the client's."""

    streams: tuple[str, ...]
    id: int | str | None = None


class Unsubscribed(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribed", omit_defaults=True):
    """All streams that are still read; ``id`` is the client's."""

    streams: tuple[str, ...]
    id: int | str | None = None


class MarketRefusal(msgspec.Struct, frozen=True, tag_field="type", tag="error", omit_defaults=True):
    """What was asked for cannot be (``malformed invalid busy unknown_type``); ``id`` is the client's."""

    code: str
    message: str
    id: int | str | None = None


class Lagged(msgspec.Struct, frozen=True):
    """Trades or closed candles that this reader was too slow for: the oldest were dropped for it."""

    dropped: int


class NamedLagged(Lagged, frozen=True, tag_field="type", tag="lagged"):
    """The same over a WebSocket, where it has a type instead of an event's name."""


class Busy(msgspec.Struct, frozen=True):
    """Why a reader cannot come in; ``retry:`` says when to come back."""

    reason: str
