"""JSON that keeps every digit, and the envelopes in which events travel. Sans-I/O.

A number leaves with the digits it came with. ``Decimal`` prints small numbers with an exponent (``0E-8``), which
JSON allows and eyes and many parsers do not expect; such an event takes the slower road that writes every digit out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, cast

import msgspec

from komas.model.market import Depth, Event, Notice
from komas.model.streams import Stream

_plain = msgspec.json.Encoder(decimal_format="number")
_objects = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)


def encode(value: object) -> bytes:
    """JSON bytes of anything komas sends; a ``Decimal`` becomes a number with all its digits and no exponent.

    Not for what holds ``msgspec.Raw``: that is text already.
    """
    encoded = _plain.encode(value)
    # No symbol and no field name of ours holds "E-" or "E+", so a hit is nearly always a number; a text may be one.
    if b"E-" in encoded or b"E+" in encoded:
        return _plain.encode(_written_out(msgspec.to_builtins(value, builtin_types=(Decimal,))))
    return encoded


def _written_out(value: object) -> object:
    match value:
        case Decimal():
            return msgspec.Raw(format(value, "f").encode())
        case dict():
            return {key: _written_out(item) for key, item in value.items()}
        case list() | tuple():
            return [_written_out(item) for item in value]
        case _:
            return value


def read_object(text: str | bytes) -> dict[str, object]:
    """Read a JSON object; numbers with a point keep every digit, as ``Decimal``.

    Raises ``msgspec.MsgspecError`` for what is none, whatever the reason.
    """
    try:
        return _objects.decode(text)
    except ArithmeticError:
        raise msgspec.DecodeError("a number is beyond all bounds") from None
    except (UnicodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


@lru_cache(maxsize=16)  # events that come together came in the same millisecond
def iso_ms(epoch_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601, UTC: ``2026-01-01T00:00:00.000Z``."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return f"{_iso_s(seconds)}.{milliseconds:03}Z"


@lru_cache(maxsize=16)  # most moments that are written down are of the second that is now
def _iso_s(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None).isoformat()


class StreamPosition(msgspec.Struct, frozen=True):
    """A place in a stream: ``epoch`` names one unbroken life of it, ``offset`` is the exchange's number of an event."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


# Longer than any position that komas wrote: eight letters, a dash and sixteen digits.
_POSITION_LENGTH: Final = 40
_OFFSETS: Final = 2**53  # ids and times of the exchange stay below what a JSON double holds exactly


def parse_position(text: str) -> StreamPosition | None:
    """Read ``<epoch>-<offset>``; ``None`` for what komas never wrote."""
    epoch, dash, offset = text.partition("-")
    known = len(text) <= _POSITION_LENGTH and dash and epoch.isalnum() and offset.isascii() and offset.isdigit()
    return StreamPosition(epoch, int(offset)) if known and int(offset) < _OFFSETS else None


class Envelope(msgspec.Struct, eq=False, gc=False):
    """One event on its way: what it is, where it belongs, when it came.

    ``sequence`` is the exchange's number of an event that must not be lost, ``None`` where the latest is enough; such
    an event has a ``publication``, too: a number that rises over all streams of the process. ``received_ms`` is komas's
    clock at receipt, milliseconds since the epoch. ``encoded`` is kept by what encodes it, so that it is encoded once
    for all.
    """

    stream: Stream
    event: Event
    received_ms: int
    sequence: int | None
    epoch: str
    backfilled: bool = False
    publication: int = 0
    _cuts: dict[int, Envelope] | None = None
    encoded: bytes | None = None

    def cut(self, levels: int) -> Envelope:
        """The same with so many levels of an order book; made once for everybody who asks for as many."""
        if not isinstance(self.event, Depth):
            return self
        cuts = self._cuts = {} if self._cuts is None else self._cuts
        if levels not in cuts:
            event = self.event
            shorter = msgspec.structs.replace(event, bids=event.bids[:levels], asks=event.asks[:levels])
            cuts[levels] = Envelope(self.stream, shorter, self.received_ms, None, self.epoch)
        return cuts[levels]


_event_slot: Final = Envelope.__dict__["event"]
NOT_READ: Final = cast("Event", None)  # the event of an ``EncodedEnvelope`` before somebody asks for it


class EncodedEnvelope(Envelope, eq=False, gc=False):
    """An event that came as the bytes that readers get; ``read`` makes the event of them once somebody asks for it."""

    read: Callable[[bytes], Event] | None = None

    @property  # type: ignore[misc]  # it is set where it is read for the first time
    def event(self) -> Event:  # type: ignore[override]
        """What it is."""
        event: Event | None = _event_slot.__get__(self)
        if event is None:
            assert self.read is not None
            assert self.encoded is not None
            event = self.read(self.encoded)
            _event_slot.__set__(self, event)
        return event


class NoticeEnvelope:
    """One notice on its way to subscribers; ``encoded`` is kept by what encodes it.

    A gap that is remembered has a ``publication``, as events have.
    """

    __slots__ = ("encoded", "notice", "publication", "stream")

    def __init__(self, notice: Notice, stream: Stream | None = None, publication: int = 0) -> None:
        self.notice = notice
        self.stream = stream
        self.publication = publication
        self.encoded: bytes | None = None
