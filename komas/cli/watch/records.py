"""What the terminal is told, in one envelope for every view. Sans-I/O.

With ``--json`` each record is a line: ``type``, ``data`` and ``timestamp``, always, then what else the server's own
envelope has (``stream``, ``backfilled``, ``signal_type``, ``signal_id``, ``position``). Numbers have the digits that
the server sent. Notices (``gap``, ``lagged``, ``health``, ...) are records, too, and so is ``connection``, which says
when the server was not there: whoever reads the lines sees where something is missing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from komas.cli.watch.figures import digits
from komas.cli.watch.safe_text import json_line, shown
from komas.errors import CallerError
from komas.model.codec import encode, iso_ms, read_object
from komas.model.market import Event

CONNECTION: Final = "connection"
SERVER: Final = "server"
SIGNAL_TYPES: Final = ("new_signal", "signal_update")
_QUIET: Final = frozenset({"open", "streams"})  # tell nothing that a viewer would act upon
_FIRST: Final = ("type", "data", "timestamp")

Fields = dict[str, object]


class Record(msgspec.Struct, frozen=True):
    """One thing that happened; ``line`` is its JSON, made when it is asked for.

    ``event`` is what a market sends, ``fields`` what all others say. ``timestamp`` is when the server had it, or where
    it does not say, when it came (ISO 8601, UTC).
    """

    type: str
    timestamp: str
    raw: dict[str, msgspec.Raw]
    event: Event | None = None
    fields: Fields = msgspec.field(default_factory=dict)
    signal_id: int | None = None
    signal_type: str = ""
    position: int | None = None

    @property
    def is_notice(self) -> bool:
        """Whether it tells of the stream, and is none of its events."""
        return self.event is None and self.type not in SIGNAL_TYPES and self.type != SERVER

    @property
    def line(self) -> str:
        """Its line of JSON."""
        head = {"type": self.type, "data": self.raw.get("data", msgspec.Raw(b"{}")), "timestamp": self.timestamp}
        rest = {key: value for key, value in self.raw.items() if key not in _FIRST}
        return json_line(msgspec.json.encode(head | rest).decode("utf-8", "replace"))


class _MarketEnvelope(msgspec.Struct):
    type: str
    data: Event
    timestamp: str


class _SignalEnvelope(msgspec.Struct):
    type: str
    signal_type: str = ""
    signal_id: int | None = None
    position: int | None = None


_market: Final = msgspec.json.Decoder(_MarketEnvelope)
_signal: Final = msgspec.json.Decoder(_SignalEnvelope)
_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def market_record(text: str) -> Record:
    """An event of a market; raises ``CallerError`` for what is none."""
    try:
        read = _market.decode(text)
        return Record(read.type, read.timestamp, _parts.decode(text), event=read.data)
    except (msgspec.MsgspecError, ArithmeticError, UnicodeError, RecursionError) as error:
        raise CallerError(f"the server is no komas server, or a newer one: {shown(str(error))}") from None


def notice_record(name: str, text: str, now_ms: int) -> Record | None:
    """A notice of a market; ``None`` for one that changes nothing for a viewer."""
    if name in _QUIET:
        return None
    try:
        return Record(name, iso_ms(now_ms), {"data": msgspec.Raw(text.encode())}, fields=read_object(text))
    except (msgspec.MsgspecError, UnicodeError):
        return own_record(name, {"text": text}, now_ms)


def signal_record(message: bytes, now_ms: int) -> Record:
    """A message of the socket of signals; raises ``CallerError`` for what is none."""
    try:
        read, parts = _signal.decode(message), _parts.decode(message)
        fields = read_object(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CallerError(f"the server is no komas server, or a newer one: {shown(str(error))}") from None
    data = fields.get("data")
    inner = data if isinstance(data, dict) else {key: value for key, value in fields.items() if key != "type"}
    number = read.signal_id if read.signal_id is not None else inner.get("id")
    return Record(
        read.type,
        iso_ms(now_ms),
        parts if "data" in parts else {"data": msgspec.Raw(encode(inner))},
        fields=inner,
        signal_id=number if isinstance(number, int) else None,
        signal_type=read.signal_type,
        position=read.position,
    )


def own_record(kind: str, fields: Fields, now_ms: int) -> Record:
    """What this program has to say: of its connection, or of a server that it asked."""
    return Record(kind, iso_ms(now_ms), {"data": msgspec.Raw(encode(fields))}, fields=fields)


def words(value: object) -> str:
    """Any value of a field as text on one line, fit for a terminal."""
    match value:
        case None:
            return ""
        case str():
            return shown(value)
        case Decimal():
            return digits(value)
        case _:
            return shown(encode(value).decode("utf-8", "replace"))
