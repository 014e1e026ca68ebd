"""Fault scripts: what goes wrong, and when.

A script is TOML (``[[fault]]`` tables) or JSON (a list, or ``{"fault": [...]}``); ``POST /sim/faults`` takes the same
JSON, or a single object. Each entry names its ``fault``; ``at`` is seconds (after the start in a script, after the
call otherwise), ``dial`` counts WebSocket dials from 1 and makes the entry wait for that one (``at`` then counts from
its handshake). Without ``dial``, an entry about connections touches all that are open at that moment, so that in a
script it needs ``at``.

========================  ==============================================================================================
refuse                    ``dials`` 1, ``status`` none (a TCP reset) or an HTTP status, ``retry_after``, ``message``
hang                      ``dials`` 1, ``seconds`` (none: for ever): the handshake is not answered
outage                    ``seconds``: every connection is cut, and there is no listener for so long
abort                     ``after_frames`` 0: RST, once so many more events were sent
close                     ``code`` 1001 (``null``: an empty close frame), ``reason``, ``after_frames`` 0
half_open                 nothing is read or written any more, and nothing is closed
stall                     ``seconds`` (none: until faults are deleted), ``streams`` (none: all): no data, pings go on
shutdown                  ``delay`` 0, ``clean`` true: the notice, then 1001, or RST when not clean
drop repeat               ``stream`` (none: any), ``frames`` 1, ``after_frames`` 0
reorder                   the same, ``frames`` 2 and never ``null``: so many are held, and then sent backwards
fragment                  ``stream``, ``frames`` 1, ``after_frames`` 0: events in three fragments, with a ping inside
unknown                   ``kind`` ``keys`` (``stream``, ``frames`` 1, ``after_frames`` 0), ``event`` or ``stream``
garbage                   ``kind`` ``json`` ``truncated`` ``binary`` ``fragmented`` ``huge`` ``utf8`` ``reserved``
delay_acks                ``seconds`` 1, ``acks`` 1
lose_acks                 ``acks`` 1
refuse_subscriptions      ``requests`` 1, ``code`` 2, ``message``, ``close`` false (then 1008 follows)
rest                      ``status`` (none: only the delay), ``retry_after``, ``delay`` 0, ``requests`` 1, ``path``
clock                     ``offset_ms``: the exchange's clock against ours
status                    ``symbol``, ``status`` ``HALT`` ``BREAK`` ``CANCEL_ONLY`` ``END_OF_DAY`` ``TRADING``
========================  ==============================================================================================

A count of ``null`` means without end. Deleting the faults ends all of them but what has already been cut.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import msgspec

from komas.errors import CallerError

Count = Annotated[int, msgspec.Meta(ge=1)]
Frames = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]
Code = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="fault", forbid_unknown_fields=True):
    """When: ``at`` seconds, and only for the connection of one ``dial`` where that is given."""

    at: Seconds | None = None
    dial: Count | None = None


class Refuse(Fault, frozen=True, kw_only=True, tag="refuse"):
    """The next dials are turned down."""

    dials: Count | None = 1
    status: Status | None = None
    retry_after: int | None = None
    message: str = ""


class Hang(Fault, frozen=True, kw_only=True, tag="hang"):
    """The next dials are not answered."""

    dials: Count | None = 1
    seconds: Seconds | None = None


class Outage(Fault, frozen=True, kw_only=True, tag="outage"):
    """Nobody is there."""

    seconds: Seconds


class Abort(Fault, frozen=True, kw_only=True, tag="abort"):
    """The line is cut."""

    after_frames: Frames = 0


class Close(Fault, frozen=True, kw_only=True, tag="close"):
    """The exchange says goodbye."""

    code: Code | None = 1001
    reason: Annotated[str, msgspec.Meta(max_length=60)] = ""
    after_frames: Frames = 0


class HalfOpen(Fault, frozen=True, kw_only=True, tag="half_open"):
    """The other side is dead and nobody knows."""


class Stall(Fault, frozen=True, kw_only=True, tag="stall"):
    """Connected, answering pings, and silent."""

    seconds: Seconds | None = None
    streams: tuple[str, ...] = ()


class Shutdown(Fault, frozen=True, kw_only=True, tag="shutdown"):
    """The exchange announces that it will go, and goes."""

    delay: Seconds = 0
    clean: bool = True


class Tampering(Fault, frozen=True, kw_only=True):
    """Something is done to ``frames`` events of ``stream``, after the first ``after_frames`` of them."""

    stream: str = ""
    frames: Count | None = 1
    after_frames: Frames = 0


class Drop(Tampering, frozen=True, kw_only=True, tag="drop"):
    """Events are lost."""


class Repeat(Tampering, frozen=True, kw_only=True, tag="repeat"):
    """Events come twice."""


class Reorder(Tampering, frozen=True, kw_only=True, tag="reorder"):
    """Events come in the wrong order: so many are held and sent backwards."""

    frames: Count = 2


class Fragment(Tampering, frozen=True, kw_only=True, tag="fragment"):
    """Events come in pieces."""


class Unknown(Tampering, frozen=True, kw_only=True, tag="unknown"):
    """The exchange says something that no client has heard of."""

    kind: Literal["keys", "event", "stream"] = "keys"


class Garbage(Fault, frozen=True, kw_only=True, tag="garbage"):
    """The exchange sends what is not its protocol."""

    kind: Literal["json", "truncated", "binary", "fragmented", "huge", "utf8", "reserved"] = "json"


class DelayAcks(Fault, frozen=True, kw_only=True, tag="delay_acks"):
    """Replies come late."""

    seconds: Seconds = 1.0
    acks: Count | None = 1


class LoseAcks(Fault, frozen=True, kw_only=True, tag="lose_acks"):
    """Replies do not come, though what was asked is done."""

    acks: Count | None = 1


class RefuseSubscriptions(Fault, frozen=True, kw_only=True, tag="refuse_subscriptions"):
    """SUBSCRIBE gets an error reply."""

    requests: Count | None = 1
    code: int = 2
    message: str = "Invalid request: invalid stream"
    close: bool = False


class RestFailure(Fault, frozen=True, kw_only=True, tag="rest"):
    """REST answers late, or with an error; ``path`` is an endpoint such as ``klines``."""

    status: Status | None = None
    retry_after: int | None = None
    delay: Seconds = 0
    requests: Count | None = 1
    path: str = ""
    message: str = ""


class Clock(Fault, frozen=True, kw_only=True, tag="clock"):
    """The exchange's clock is not ours."""

    offset_ms: int


class SymbolStatus(Fault, frozen=True, kw_only=True, tag="status"):
    """A symbol stops trading, or trades again."""

    symbol: str
    status: Literal["TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"]


OnConnection = Abort | Close | HalfOpen | Stall | Shutdown | Drop | Repeat | Reorder | Fragment | Unknown | Garbage
AnyFault = (
    OnConnection
    | Refuse
    | Hang
    | Outage
    | DelayAcks
    | LoseAcks
    | RefuseSubscriptions
    | RestFailure
    | Clock
    | SymbolStatus
)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # all that decoding a text may raise
NEEDS_A_CONNECTION = (Abort, Close, HalfOpen, Shutdown, Tampering, Garbage)
KINDS: dict[str, type[Fault]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyFault)}


def parse_faults(body: bytes) -> tuple[AnyFault, ...]:
    """The faults of a JSON text: an object, a list, or ``{"fault": [...]}``. ``CallerError`` says what is wrong."""
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise CallerError(f"faults: this is not JSON: {error}", field="faults") from error
    try:
        return _converted(found)
    except ValueError as error:
        raise CallerError(f"faults: {error}", field="faults") from error


def read_script(path: Path) -> tuple[AnyFault, ...]:
    """The faults of a file. ``CallerError`` names the file and what is wrong in it."""
    try:
        content = path.read_bytes()
        found = tomllib.loads(content.decode()) if path.suffix == ".toml" else msgspec.json.decode(content)
    except (OSError, tomllib.TOMLDecodeError, *UNREADABLE) as error:
        raise CallerError(f"script: {path} cannot be read: {error}", field="script") from error
    try:
        faults = _converted(found)
    except ValueError as error:
        raise CallerError(f"script: {path}: {error}", field="script") from error
    for number, each in enumerate(faults, 1):
        if isinstance(each, NEEDS_A_CONNECTION) and each.at is None and each.dial is None:
            raise CallerError(
                f"script: {path}: fault {number} has neither 'at' nor 'dial', and nobody is connected at the start",
                field="script",
            )
    return faults


def _converted(found: object) -> tuple[AnyFault, ...]:
    """The faults of a decoded text; raises ``ValueError`` with our own words, whatever library checks the values."""
    if isinstance(found, dict) and isinstance(found.get("fault"), str):
        found = [found]
    elif isinstance(found, dict) and found.keys() == {"fault"}:
        found = found["fault"]
    if not isinstance(found, list):
        raise ValueError(  # noqa: TRY004 - a value of the user's, as those below
            f'got {_cut(found)}; accepted: {{"fault": "abort"}}, a list of such objects, or {{"fault": [...]}}'
        )
    return tuple(_fault(entry, number) for number, entry in enumerate(found, 1))


def _fault(entry: object, number: int) -> AnyFault:
    name = entry.get("fault") if isinstance(entry, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(entry, dict):
        raise ValueError(f"entry {number}: {_cut(name or entry)} is no fault; accepted: {' '.join(KINDS)}")
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    given = {key: value for key, value in entry.items() if key != "fault"}
    if unknown := sorted(given.keys() - fields.keys()):
        raise ValueError(f"entry {number}: {name} has no {_cut(unknown[0])}; accepted: {' '.join(fields)}")
    if missing := [key for key, field in fields.items() if field.required and key not in given]:
        raise ValueError(f"entry {number}: {name} needs {' '.join(missing)}")
    for key, value in given.items():
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            raise ValueError(f"entry {number}: {name}: {key}: got {_cut(value)}: {error}") from None
    return cast("AnyFault", msgspec.convert(entry, kind))


def _cut(value: object) -> str:
    return repr(value)[:60]
