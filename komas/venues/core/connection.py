"""What a feed and its connections say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec
import trio

from komas.model.market import Incoming
from komas.model.streams import Stream
from komas.venues.core.link import LinkedConnection
from komas.venues.core.liveness import LivenessTracker
from komas.venues.core.ports import Unreadable


class Arrival(msgspec.Struct, frozen=True):
    """When something came: on trio's clock (seconds), and on the wall (milliseconds since the epoch)."""

    at_s: float
    at_ms: int


class Refusal(msgspec.Struct, frozen=True):
    """A stream that the exchange does not give, with its reason: ``name`` is as the exchange writes it."""

    name: str
    code: int | None
    words: str


class Connection(LinkedConnection, Protocol):
    """One connection to an exchange, as its feed sees it."""

    @property
    def url(self) -> str:
        """Where it is connected to."""

    @property
    def held(self) -> int:
        """How many streams the exchange has acknowledged."""

    @property
    def messages(self) -> int:
        """How many data frames it brought."""

    @property
    def connected_at(self) -> float:
        """When it was connected, on trio's clock (seconds)."""

    @property
    def connected_at_ms(self) -> int:
        """When it was connected, in milliseconds since the epoch."""

    def tracker(self, stream: Stream) -> LivenessTracker | None:
        """The rhythm of a stream on this connection; ``None`` for one that it does not hold."""

    def is_silent(self, now: float) -> bool:
        """Whether the whole connection is silent for suspiciously long."""

    def message_room(self, now: float) -> int:
        """How many messages it may send at once, within the exchange's limit."""


C = TypeVar("C", bound=Connection)
C_co = TypeVar("C_co", bound=Connection, covariant=True)


class Dialer(Protocol[C_co]):
    """Makes the connections of one link, one after another, and remembers what one has learned for the next."""

    def connection(
        self, assigned: Callable[[], Mapping[str, Stream]], *, replace: Callable[[str], None], retire_after_s: float
    ) -> C_co:
        """A connection that is to be dialled.

        ``assigned`` is what it is to hold, by name. ``replace`` asks for another one in its place, which takes over
        without a gap; ``retire_after_s`` is its age at which it does so by itself.
        """


class ConnectionSink(Protocol):
    """What a connection hands over. Law: no method waits; ``news`` is unparked when its streams have changed."""

    @property
    def news(self) -> trio.lowlevel.ParkingLot:
        """Where to wait for another assignment."""

    def on_events(self, stream: Stream, events: Sequence[Incoming], arrival: Arrival) -> None:
        """Events of one stream arrived together, in order."""

    def on_read(self, frames: int, received_ms: int) -> None:
        """A read is over: so many data frames were in it, and their events were handed over."""

    def on_held(self, connection: Connection, stream: Stream) -> None:
        """A connection holds a stream from now on."""

    def on_silent(self, connection: Connection, stream: Stream) -> None:
        """A stream is silent on a connection, and should not be."""

    def on_refusals(self, refusals: Sequence[Refusal]) -> None:
        """The exchange refuses streams: they are no longer wanted afterwards."""

    def on_unknown(self) -> None:
        """A frame came of a stream that komas does not know."""

    def on_unreadable(self, error: Unreadable) -> None:
        """A frame came that cannot be read."""
