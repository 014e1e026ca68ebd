"""What clients write, read into streams and numbers (sans-I/O): each wrong field is named, all of them at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar, overload

import msgspec

from komas.errors import CallerError
from komas.model.kinds import KINDS, Kind, kinds
from komas.model.market import BOOK_LEVELS_PUBLISHED
from komas.model.signal_filter import EVERYTHING, SignalFilter
from komas.model.streams import Stream, parse_interval, parse_kind, parse_name, parse_symbol
from komas.signals.tokens import SUBJECT_LENGTH, read_subject
from komas.signals.validation import check_coin, check_type
from komas.web.problems import FieldError, ProblemError, invalid
from komas.web.query import misspelt

MIN_RATE: Final = 0.1  # events a second; slower than that a client should ask GET /api/ws/prices now and then
MAX_RATE: Final = 1000.0
LARGEST: Final = 2**53  # of ids and positions: what JSON readers hold exactly

DEPTH_SHOWN: Final = 20  # levels a side, where a client does not say
MOST_PAST: Final = 1000  # candles or trades of an answer; as many as the exchange gives

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")

_PRICE_KINDS: Final = kinds(is_price=True)
_FOLLOWED: Final = kinds(has_all_symbols=True)


_BETWEEN: Final = re.compile("[/,]")
ALL: Final = "*"  # every symbol that the exchange lists


@overload
def together(_first: Callable[[], T], _second: Callable[[], U], /) -> tuple[T, U]: ...
@overload
def together(_first: Callable[[], T], _second: Callable[[], U], _third: Callable[[], V], /) -> tuple[T, U, V]: ...
@overload
def together(
    _first: Callable[[], T], _second: Callable[[], U], _third: Callable[[], V], _fourth: Callable[[], W], /
) -> tuple[T, U, V, W]: ...
def together(*reads: Callable[[], object]) -> tuple[object, ...]:
    """What several readers read; a problem that names whatever was wrong for any of them."""
    found, errors = list[object](), list[FieldError]()
    for read in reads:
        try:
            found.append(read())
        except ProblemError as problem:
            if not problem.errors:
                raise
            errors += problem.errors
    if errors:
        raise invalid(errors)
    return tuple(found)


class SubscribeRequest(msgspec.Struct, frozen=True):
    """What a subscribe or unsubscribe body asks for: streams, or every symbol of one kind."""

    streams: tuple[Stream, ...]
    every: Kind | None = None


def read_subscribe_request(body: bytes, max_symbols: int) -> SubscribeRequest:
    """Read ``{"symbols": [...], "stream_type": "...", "interval": "..."}``."""
    table = _read_object(body)
    errors = [
        FieldError(key[:40], f"unknown field {key[:40]!r}; known: symbols stream_type interval")
        for key in table
        if key not in ("symbols", "stream_type", "interval")
    ]
    is_all = table.get("symbols") == [ALL]
    symbols = () if is_all else _read_symbols(table.get("symbols"), max_symbols, errors)
    kind = _checked(lambda: parse_kind(_text(table.get("stream_type"), "stream_type", default="ticker")), errors)
    # A form that sends its default interval along with a ticker means no harm, as long as there is such an interval.
    interval = _checked(lambda: parse_interval(_text(table.get("interval"), "interval", default="1m")), errors)
    if is_all and kind is not None and kind not in _FOLLOWED:
        errors.append(FieldError("symbols", f"all symbols: for {' and '.join(_FOLLOWED)} alone, not for {kind}"))
    if errors or kind is None:
        raise invalid(errors)
    if is_all:
        return SubscribeRequest((), every=kind)
    return SubscribeRequest(
        tuple(Stream.of(kind, symbol, interval if KINDS[kind].has_interval else None) for symbol in symbols)
    )


def read_symbols(text: str | None, max_symbols: int, field: str = "symbols") -> tuple[str, ...]:
    """Read ``BTCUSDT,ETHUSDT`` from a query; each once, in the order written."""
    errors: list[FieldError] = []
    symbols = _read_symbols([part for part in (text or "").split(",") if part.strip()], max_symbols, errors)
    if errors:
        raise invalid(FieldError(field, error.message) for error in errors)
    return symbols


def read_price_streams(query: Mapping[str, str], max_symbols: int) -> tuple[Stream, ...]:
    """The streams of ``/sse/prices``."""
    errors: list[FieldError] = []
    symbols = _read_symbols([part for part in query.get("symbols", "").split(",") if part.strip()], max_symbols, errors)
    kind = _checked(lambda: parse_kind(query.get("stream_type", "ticker")), errors)
    if kind is not None and kind not in _PRICE_KINDS:
        errors.append(FieldError("stream_type", f"{kind} has an endpoint of its own; here: {' '.join(_PRICE_KINDS)}"))
    if errors or kind is None:
        raise invalid(errors)
    return tuple(Stream.of(kind, symbol) for symbol in symbols)


def read_kline_stream(query: Mapping[str, str]) -> Stream:
    """The stream of ``/sse/klines``."""
    errors: list[FieldError] = []
    symbols = _one_symbol(query, errors)
    interval = _checked(lambda: parse_interval(query.get("interval", "1m")), errors)
    if errors:
        raise invalid(errors)
    return Stream.of(Kind.KLINE, symbols[0], interval)


def read_trade_stream(query: Mapping[str, str]) -> Stream:
    """The stream of ``/sse/trades``."""
    errors: list[FieldError] = []
    symbols = _one_symbol(query, errors)
    aggregate = _checked(lambda: _boolean(query.get("aggregate", "false")), errors)
    if errors:
        raise invalid(errors)
    return Stream.of(Kind.AGG_TRADE if aggregate else Kind.TRADE, symbols[0])


def read_depth(query: Mapping[str, str], *, default: int, most: int) -> tuple[Stream, int]:
    """The stream of an order book, and how many levels a side are asked for."""
    return together(
        lambda: Stream.of(Kind.DEPTH, _single_symbol(query)),
        lambda: read_count(query.get("limit"), "limit", default=default, most=most),
    )


def read_streams(text: str | None, most: int, field: str = "streams") -> tuple[Stream, ...]:
    """Read ``btcusdt@trade/ethusdt@kline_1m``, also with commas; each once, in the order written; none for nothing."""
    return read_names([name for name in _BETWEEN.split(text or "") if name.strip()], most, field)


def read_names(given: object, most: int, field: str) -> tuple[Stream, ...]:
    """Read a list of streams' names."""
    if not isinstance(given, list):
        raise invalid([FieldError(field, f"{field} is a list of streams such as btcusdt@trade")])
    if len(given) > most:
        raise invalid([FieldError(field, f"{len(given)} streams in one request; at most {most}")])
    errors: list[FieldError] = []
    streams = [_checked(partial(_named, item), errors) for item in given]
    if errors:
        raise invalid(FieldError(field, error.message) for error in errors)
    return tuple(dict.fromkeys(stream for stream in streams if stream is not None))


class StreamChange(msgspec.Struct, frozen=True):
    """What is to be read from now on, and what no more."""

    subscribe: tuple[Stream, ...]
    unsubscribe: tuple[Stream, ...]


def read_change(body: bytes, most: int) -> StreamChange:
    """Read ``{"subscribe": ["btcusdt@trade"], "unsubscribe": [...]}``; either may be missing."""
    table = _read_object(body)
    known = ("subscribe", "unsubscribe")
    if strange := [key[:40] for key in table if key not in known]:
        raise invalid(FieldError(key, f"unknown field {key!r}; known: {' '.join(known)}") for key in strange)
    return StreamChange(*(read_names(table.get(key, []), most, key) for key in known))


def read_user(text: str | None, field: str) -> str | None:
    """Read a user's id."""
    if text is None:
        return None
    subject = read_subject(text)
    if subject is None or "\ufffd" in subject:  # what is not UTF-8 is read as
        raise invalid(
            [FieldError(field, f"{field} is 1 to {SUBJECT_LENGTH} printable characters without spaces, in UTF-8")]
        )
    return subject


def read_signal_filter(query: Mapping[str, str], signal_types: Collection[str], most: int) -> SignalFilter:
    """Read ``signal_type=a,b`` and ``coin_name=BTC,ETH``; without a parameter, all of them."""
    errors: list[FieldError] = []
    known = partial(check_type, signal_types=signal_types)
    types = _listed(query.get("signal_type"), "signal_type", known, most, errors)
    coins = _listed(query.get("coin_name"), "coin_name", check_coin, most, errors)
    if errors:
        raise invalid(errors)
    return SignalFilter(types, coins) if types or coins else EVERYTHING  # that everybody shares


def _listed(
    text: str | None, field: str, check: Callable[[str], str], most: int, errors: list[FieldError]
) -> frozenset[str]:
    if text is None:
        return frozenset()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        errors.append(FieldError(field, f"{field} names at least one; without the parameter it is all of them"))
    elif len(names) > most:
        errors.append(FieldError(field, f"{len(names)} names in {field}; at most {most}"))
    else:
        return frozenset(each for name in names if (each := _checked(partial(check, name), errors)) is not None)
    return frozenset()


def check_once(given: Mapping[str, Sequence[str]], names: Collection[str] | None = None) -> None:
    """Refuse what is said twice (of some names, or of all): the second would be lost in silence."""
    twice = [name[:40] for name, values in given.items() if len(values) > 1 and (names is None or name in names)]
    if twice:
        raise invalid(
            FieldError(name, f"{name} is given more than once; several values go with commas") for name in twice
        )


def check_spelling(query: Iterable[str], known: Collection[str]) -> None:
    """Refuse a parameter that is nearly one that there is: what it was meant to say would not count."""
    if wrong := misspelt(query, known):
        raise invalid(FieldError(name[:40], f"{name[:40]}: did you mean {right}?") for name, right in wrong.items())


def read_levels(text: str | None) -> int:
    """Read how many levels a side of order books are shown."""
    return read_count(text, "limit", default=DEPTH_SHOWN, most=BOOK_LEVELS_PUBLISHED)


def read_history(text: str | None) -> int:
    """Read how many past candles come before the live ones."""
    return read_count(text, "history", default=0, least=0, most=MOST_PAST)


def read_rate(text: str | None) -> float | None:
    """Read ``max_rate``, events a second for each symbol; ``None`` when it was not given."""
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not MIN_RATE <= rate <= MAX_RATE:
        raise invalid([FieldError("max_rate", f"max_rate is a number from {MIN_RATE:g} to {MAX_RATE:g}, not {text!r}")])
    return rate


def read_count(text: str | None, field: str, *, default: int, most: int, least: int = 1) -> int:
    """Read a whole number from ``least`` to ``most``."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not least <= int(text) <= most:
        raise invalid([FieldError(field, f"{field} is a whole number from {least} to {most}, not {text[:40]!r}")])
    return int(text)


def _read_object(body: bytes) -> dict[str, object]:
    try:
        table = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"the body is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ProblemError(
            400, 'the body is not a JSON object such as {"symbols": ["BTCUSDT"], "stream_type": "ticker"}'
        )
    return table


def _read_symbols(given: object, max_symbols: int, errors: list[FieldError]) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        errors.append(FieldError("symbols", "symbols is a list with at least one symbol, such as BTCUSDT"))
        return ()
    if len(given) > max_symbols:
        errors.append(FieldError("symbols", f"{len(given)} symbols in one request; at most {max_symbols}"))
        return ()
    symbols = [_checked(partial(_symbol, item), errors) for item in given]
    return tuple(dict.fromkeys(symbol for symbol in symbols if symbol is not None))


def _one_symbol(query: Mapping[str, str], errors: list[FieldError]) -> Sequence[str]:
    symbol = _checked(lambda: parse_symbol(query.get("symbol", "")), errors)
    errors[:] = [FieldError("symbol" if error.field == "symbols" else error.field, error.message) for error in errors]
    return [] if symbol is None else [symbol]


def _single_symbol(query: Mapping[str, str]) -> str:
    errors: list[FieldError] = []
    symbols = _one_symbol(query, errors)
    if errors:
        raise invalid(errors)
    return symbols[0]


def _named(value: object) -> Stream:
    return parse_name(_text(value, "streams"))


def _symbol(value: object) -> str:
    return parse_symbol(_text(value, "symbols"))


def _text(value: object, field: str, default: str | None = None) -> str:
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise CallerError(f"{field}: a text was expected, not {type(value).__name__}", field=field)
    return value


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0", ""):
        return False
    raise CallerError(f"aggregate is true or false, not {text[:40]!r}", field="aggregate")


def _checked(parse: Callable[[], T], errors: list[FieldError]) -> T | None:
    try:
        return parse()
    except CallerError as error:
        errors.append(FieldError(error.field or "body", str(error)))
        return None
