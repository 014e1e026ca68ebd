"""What producers write, checked (sans-I/O): each wrong thing is named.

Numbers keep their digits: they are read as ``Decimal`` and written as they came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Final

import msgspec

from komas.errors import CallerError, CallerErrors
from komas.model.codec import encode, read_object
from komas.model.signal_filter import COIN_LENGTH, coin_key

DATA_BYTES: Final = 16 * 1024
DEPTH: Final = 8
KEY_LENGTH: Final = 64  # of a field's name
EXPONENT: Final = 30  # a number is written out: 1e999999999 would be a gigabyte
DIGITS: Final = 60
IDEMPOTENCY_LENGTH: Final = 255
MOST_ERRORS: Final = 20  # that are told at once
_TEXTS: Final = frozenset({"coin_name", "position"})
_NUMBERS: Final = frozenset({"spread"})


class NewSignal(msgspec.Struct, frozen=True):
    """A signal as its producer words it."""

    signal_type: str
    data: dict[str, object]


class SignalChanges(msgspec.Struct, frozen=True):
    """Fields that a producer gives new values."""

    data: dict[str, object]


def read_new_signal(body: str | bytes, signal_types: Collection[str]) -> NewSignal:
    """Read ``{"signal_type": "...", "data": {...}}``; raises ``CallerError``."""
    table = _read(body, ("signal_type", "data"))
    errors: list[CallerError] = []
    signal_type, data = "", dict[str, object]()
    with _collected(errors):
        signal_type = check_type(table.get("signal_type"), signal_types)
    with _collected(errors):
        data = check_data(table.get("data"))
    _raise(errors)
    return NewSignal(signal_type, data)


def read_changes(body: str | bytes) -> SignalChanges:
    """Read ``{"data": {...}}``; raises ``CallerError``."""
    return SignalChanges(check_data(_read(body, ("data",)).get("data")))


def check_type(value: object, signal_types: Collection[str]) -> str:
    """A known signal type."""
    if not isinstance(value, str) or value not in signal_types:
        given = "nothing" if value is None else repr(value)[:60]
        raise CallerError(f"signal_type is one of {' '.join(signal_types)}, not {given}", field="signal_type")
    return value


def check_coin(name: str) -> str:
    """The key of a coin's name, by which a signal that was published with that name is found."""
    if (key := coin_key(name)) is None:
        raise CallerError(
            f"coin_name is 1 to {COIN_LENGTH} printable characters without a comma, not {name[:40]!r}",
            field="coin_name",
        )
    return key


def check_key(key: str | None) -> str | None:
    """A usable ``Idempotency-Key``."""
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_LENGTH and key.isascii() and key.isprintable()):
        raise CallerError(
            f"Idempotency-Key is 1 to {IDEMPOTENCY_LENGTH} printable ASCII characters", field="Idempotency-Key"
        )
    return key


def _read(body: str | bytes, known: Collection[str]) -> dict[str, object]:
    try:
        table = read_object(body)
    except msgspec.MsgspecError as error:
        raise CallerError(f"the body is not a JSON object: {error}") from None
    _raise(
        [
            CallerError(f"unknown field {key[:40]!r}; known: {' '.join(known)}", field=key[:40])
            for key in table
            if key not in known
        ]
    )
    return table


@contextmanager
def _collected(errors: list[CallerError]) -> Iterator[None]:
    try:
        yield
    except CallerErrors as several:
        errors += [CallerError(message, field=field) for field, message in several.fields]
    except CallerError as error:
        errors.append(error)


def _raise(errors: Sequence[CallerError]) -> None:
    """Raise what was found wrong, all of it at once, as far as it can be read."""
    if errors:
        raise errors[0] if len(errors) == 1 else CallerErrors(errors[:MOST_ERRORS])


def check_data(data: object) -> dict[str, object]:
    """A usable ``data`` object; raises ``CallerError``."""
    if not isinstance(data, dict) or not data:
        raise CallerError("data is a JSON object with at least one field", field="data")
    errors: list[CallerError] = []
    for key, value in data.items():
        with _collected(errors):
            _check_field(key, value)
    _raise(errors)
    if len(encode(data)) > DATA_BYTES:
        raise CallerError(f"data is longer than {DATA_BYTES} bytes", field="data")
    return data


def _check_field(key: str, value: object) -> None:
    name = f"data.{key[:KEY_LENGTH]}"
    if len(key) > KEY_LENGTH:
        raise CallerError(f"a name in data is longer than {KEY_LENGTH} characters", field=name)
    _check_value(value, name, DEPTH)
    # Clients reckon with these: a text where a number belongs is joined, not added.
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if (key in _NUMBERS or key.endswith("_price")) and not is_number and value is not None:
        raise CallerError(f"{name} is a number, not {type(value).__name__}", field=name)
    if key in _TEXTS and not isinstance(value, str):
        raise CallerError(f"{name} is a text, not {type(value).__name__}", field=name)


def _check_value(value: object, name: str, depth: int) -> None:
    if depth == 0:
        raise CallerError(f"{name} is nested deeper than {DEPTH} levels", field=name)
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or len(key) > KEY_LENGTH:
                    raise CallerError(f"a name in {name} is longer than {KEY_LENGTH} characters", field=name)
                _check_value(item, name, depth - 1)
        case list():
            for item in value:
                _check_value(item, name, depth - 1)
        case Decimal():
            in_bounds = value.is_finite() and -EXPONENT <= value.adjusted() < EXPONENT
            if not in_bounds or len(value.as_tuple().digits) > DIGITS:
                raise CallerError(f"{name} has a number that is too large or too small", field=name)
        case int() if abs(value) >= 10**EXPONENT:
            raise CallerError(f"{name} has a number that is too large", field=name)
        case _:
            return
