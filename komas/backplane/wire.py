"""What stands in an entry of the log, and in a wish: records, and how they are written. Sans-I/O.

A header is msgpack; its records are arrays that begin with a number, so that a reader of the version before can tell
what it does not know. The bytes of events stand beside them, joined, as readers get them: a process that only hands
them on never looks inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from komas.errors import CallerError
from komas.model.kinds import Venue
from komas.model.market import FeedStatus, Gap, Health, HealthNotice
from komas.model.streams import Stream, parse_name


class Malformed(ValueError):
    """An entry, or a wish, is none that komas wrote."""


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Events(_Record, frozen=True, array_like=True, tag=0, gc=False):
    """Events of one stream, in order.

    ``sequences`` are their numbers (``None``: a state), ``lengths`` those of their bytes. ``publication`` is that of
    the first one that has a number, the next of them follow it; of events that were published before, and are written
    again, each has its own in ``publications``, and its time in ``times``.
    """

    stream: str
    epoch: str
    sequences: tuple[int | None, ...]
    lengths: tuple[int, ...]
    received_ms: int
    publication: int
    backfilled: bool = False
    publications: tuple[int, ...] = ()
    times: tuple[int, ...] = ()


class Missing(_Record, frozen=True, array_like=True, tag=1):
    """Events of a stream are missing."""

    stream: str
    gap: Gap
    publication: int


class Well(_Record, frozen=True, array_like=True, tag=2):
    """A stream's health changed."""

    stream: str
    notice: HealthNotice


class State(_Record, frozen=True, array_like=True, tag=3):
    """The state of the primary market's connection changed."""

    status: FeedStatus


class Refused(_Record, frozen=True, array_like=True, tag=4):
    """The exchange refused a stream."""

    stream: str
    reason: str


class Opened(_Record, frozen=True, array_like=True, tag=5):
    """A stream is open, in an epoch with a name."""

    stream: str
    epoch: str


class Closed(_Record, frozen=True, array_like=True, tag=6):
    """Nobody wants a stream any more."""

    stream: str


class Acknowledged(_Record, frozen=True, array_like=True, tag=7):
    """The exchange has acknowledged streams."""

    streams: tuple[str, ...]


class Pinned(_Record, frozen=True, array_like=True, tag=8):
    """Streams are kept open without readers, or (not ``on``) no longer."""

    streams: tuple[str, ...]
    on: bool


class Followed(_Record, frozen=True, array_like=True, tag=9):
    """Every symbol of a kind is kept open, or (not ``on``) no longer."""

    kind: str
    on: bool


class Asked(_Record, frozen=True, array_like=True, tag=10):
    """Whether the exchange is to be connected to."""

    on: bool


class Report(_Record, frozen=True, array_like=True, tag=11):
    """What the leader says of a market, once a second; ``body`` is ``market_report``'s."""

    venue: Venue
    body: bytes


class Heard(_Record, frozen=True, array_like=True, tag=12):
    """Up to this place the leader has heard wishes."""

    place: str


class Facts(_Record, frozen=True, array_like=True, tag=13):
    """Everything that is so at this place of the log, for processes that begin to read here.

    ``life`` is the name of the log's life, ``publication`` that of the newest event before; ``epochs`` are those of the
    streams that are open. Where it ``continues``, histories follow, and the same facts once more behind the last one.
    """

    life: str
    publication: int
    epochs: dict[str, str]
    acknowledged: tuple[str, ...]
    pins: tuple[str, ...]
    followed: tuple[str, ...]
    asked: bool
    heard: str
    status: FeedStatus
    continues: bool = False


class Conditions(_Record, frozen=True, array_like=True, tag=15):
    """How streams are now: of each its health, the reason, and whether it is doubtful."""

    rows: tuple[tuple[str, Health, str, bool], ...]


class Kept(_Record, frozen=True, array_like=True, tag=16):
    """What is kept of a stream's history is written again: of what came after a publication, all of it."""

    stream: str
    epoch: str
    publication: int


class Inquiry(_Record, frozen=True, array_like=True, tag=17):
    """A question to whichever process can answer it."""

    question: str
    topic: str
    body: bytes


class Left(_Record, frozen=True, array_like=True, tag=14):
    """The leader has left: its lease is free."""


Record: TypeAlias = (
    Events
    | Missing
    | Well
    | State
    | Refused
    | Opened
    | Closed
    | Acknowledged
    | Pinned
    | Followed
    | Asked
    | Report
    | Heard
    | Facts
    | Conditions
    | Kept
    | Inquiry
    | Left
)

_encoder: Final = msgspec.msgpack.Encoder()
_records: Final = msgspec.msgpack.Decoder(list[Record])


def header_of(records: Sequence[Record]) -> bytes:
    """Write records."""
    return _encoder.encode(records)


def read_header(header: bytes) -> list[Record]:
    """Read records; ``Malformed`` says what is wrong."""
    try:
        return _records.decode(header)
    except msgspec.MsgspecError as error:
        raise Malformed(f"an entry of the log cannot be read: {error}") from error


def key_of(stream: Stream) -> str:
    """How a stream is written: its venue and its name."""
    return f"{stream.venue}/{stream.name}"


def read_key(key: str) -> Stream:
    """Read a stream; ``Malformed`` for what is none."""
    venue, _, name = key.partition("/")
    try:
        return msgspec.structs.replace(parse_name(name), venue=Venue(venue))
    except (CallerError, ValueError) as error:
        raise Malformed(f"no stream: {key!r}") from error


# Wishes


class _Wish(msgspec.Struct, frozen=True, array_like=True):
    node: str


class Want(_Wish, frozen=True, array_like=True, tag=0):
    """A node wants streams, and others no more; ``number`` counts its wishes."""

    number: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


class Pin(_Wish, frozen=True, array_like=True, tag=1):
    """Streams are to be kept open, or (not ``on``) no longer."""

    streams: tuple[str, ...]
    on: bool


class Follow(_Wish, frozen=True, array_like=True, tag=2):
    """Every symbol of a kind is to be kept open, or (not ``on``) no longer; the answer is which streams these are."""

    question: str
    kind: str
    on: bool


class Connect(_Wish, frozen=True, array_like=True, tag=3):
    """The exchange is to be connected to, or (not ``on``) let go."""

    on: bool


class Rotate(_Wish, frozen=True, array_like=True, tag=4):
    """A market's connections are to be replaced; the answer is how many that are."""

    question: str
    venue: Venue


class Book(_Wish, frozen=True, array_like=True, tag=5):
    """An order book is asked for, once it is true; the answer is a ``Depth``."""

    question: str
    stream: str
    levels: int
    wait_s: float


class Inquire(_Wish, frozen=True, array_like=True, tag=6):
    """Whichever process can answer is asked something; the leader tells all of them."""

    question: str
    topic: str
    body: bytes


Wish: TypeAlias = Inquire | Want | Pin | Follow | Connect | Rotate | Book

_wish: Final = msgspec.msgpack.Decoder(Wish)


def write_wish(wish: Wish) -> bytes:
    """Write a wish."""
    return _encoder.encode(wish)


def read_wish(value: bytes) -> Wish:
    """Read a wish; ``Malformed`` says what is wrong."""
    try:
        return _wish.decode(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"a wish cannot be read: {error}") from error


_names: Final = msgspec.msgpack.Decoder(list[str])


def write_names(names: Iterable[str]) -> bytes:
    """Write names of streams."""
    return _encoder.encode(list(names))


def read_names(value: bytes) -> list[str]:
    """Read names of streams; ``Malformed`` says what is wrong."""
    try:
        return _names.decode(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"names of streams cannot be read: {error}") from error
