"""The REST calls that the door answers, one row each: what may be sent, what it weighs, how long an answer is true.

Weights and parameters are those of binance-spot-api-docs, rest-api.md (2026-07-21), and of Binance's USD-M connector
18.1.0 (2026-10-23). Sans-I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from komas.model.streams import INTERVALS
from komas.venues.binance import limits, limits_usdm
from komas.venues.binance.door import refusals

Query = Mapping[str, str]

SYMBOLS: Final = "symbols"
SYMBOL: Final = "symbol"
_SYMBOL_PATTERN: Final = "^[A-Z0-9-_.]{1,20}$"
_SYMBOLS_PATTERN: Final = r'^\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\]$'
_SYMBOL_LENGTH: Final = 40  # newer symbols have letters that the pattern above does not (CHANGELOG, 2025-12-02)
_LISTED: Final = re.compile(r'\["[^"\\\s]*"(?:,"[^"\\\s]*")*\]|\[\]')
_QUERY_BYTES: Final = 16_384
_NUMBERS: Final = frozenset({"limit", "startTime", "endTime", "fromId"})
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_ANSWER_BYTES: Final = 2**20  # of one symbol: the largest are 5,000 levels a side, or 1,500 candles
_WHOLE_MARKET_BYTES: Final = 2**24


class Truth(Enum):
    """How long an answer is true, beside a number of seconds."""

    CANDLES = "candles"  # those that are closed for ever, the open one for a moment
    PAGE = "page"  # rows from a number on never change, once there are as many as were asked for


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One call. ``fresh_s`` is how many seconds any answer is good, ``truth`` which of them are good for longer.

    ``most_symbols`` bounds the parameter ``symbols``. ``depth_limits`` are the only values of ``limit``, of futures.
    """

    parameters: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    weigh: Callable[[Query], int] = lambda _query: 1
    fresh_s: float = 0.0
    truth: Truth | None = None
    most_symbols: int = 0
    depth_limits: tuple[int, ...] = ()
    default_limit: int = 500
    most_rows: int = 1_000
    most_bytes: int = _ANSWER_BYTES


class Product(msgspec.Struct, frozen=True):
    """One of the exchange's products: where its calls are, and what an address may use of them in a minute.

    ``signed`` are the first parts of paths that are for one account.
    """

    prefix: str
    ping_path: str
    time_path: str
    weight_per_minute: int
    endpoints: Mapping[str, Endpoint]
    signed: frozenset[str]


class Question(msgspec.Struct, frozen=True):
    """A call in one way of writing it, so that who asks the same shares an answer."""

    path: str
    parameters: tuple[tuple[str, str], ...]
    is_in_microseconds: bool = False


def _flat(weight: int) -> Callable[[Query], int]:
    return lambda _query: weight


def _one_or_more(one: int, more: int) -> Callable[[Query], int]:
    return lambda query: one if SYMBOL in query else more


def _by_limit(steps: tuple[tuple[int, int], ...], default: int) -> Callable[[Query], int]:
    """Steps are ``(most rows, weight)``; more than the last are clipped to it."""

    def weigh(query: Query) -> int:
        limit = int(query.get("limit", default))
        return next((weight for most, weight in steps if limit <= most), steps[-1][1])

    return weigh


def _of_symbols(each: int, most: int) -> Callable[[Query], int]:
    return lambda query: min(most, each * _count(query))


def _count(query: Query) -> int:
    return 1 if SYMBOL in query else query.get(SYMBOLS, "").count(",") + 1


def _day_weight(query: Query) -> int:
    if SYMBOL in query:
        return 2
    if SYMBOLS not in query:
        return 80
    count = _count(query)
    return 2 if count <= 20 else 40 if count <= 100 else 80  # noqa: PLR2004 - the steps of the documents


def _rules_weight(query: Query) -> int:
    return min(40, 2 * _count(query)) if SYMBOL in query or SYMBOLS in query else 40


_MOMENT_S: Final = 1.0  # how often the exchange itself tells the same over its streams
_MARKET_S: Final = 2.0  # what is asked of every symbol
_SLOW_S: Final = 60.0
_TIMES: Final = ("startTime", "endTime", "limit")
_STATUS: Final = "symbolStatus"


def _candles(subject: str, *more: str, weigh: Callable[[Query], int], default: int = 500, most: int) -> Endpoint:
    return Endpoint(
        parameters=(subject, "interval", *_TIMES, *more),
        needs=(subject, "interval"),
        weigh=weigh,
        truth=Truth.CANDLES,
        default_limit=default,
        most_rows=most,
    )


def _tickers(weigh: Callable[[Query], int], *more: str, most_symbols: int, needs_one: bool = False) -> Endpoint:
    return Endpoint(
        parameters=(SYMBOL, SYMBOLS, "type", _STATUS, *more),
        needs=(SYMBOL,) if needs_one else (),
        weigh=weigh,
        fresh_s=_MOMENT_S,
        most_symbols=most_symbols,
        most_bytes=_WHOLE_MARKET_BYTES,
    )


_MANY: Final = 10_000  # no bound of its own: as many as a query holds

_SPOT: Final = {
    "ping": Endpoint(),
    "time": Endpoint(),
    "exchangeInfo": Endpoint(
        parameters=(SYMBOL, SYMBOLS, "permissions", _STATUS, "showPermissionSets"),
        weigh=_flat(20),
        fresh_s=_SLOW_S,
        most_symbols=_MANY,
        most_bytes=_WHOLE_MARKET_BYTES,
    ),
    "depth": Endpoint(
        parameters=(SYMBOL, "limit", _STATUS),
        needs=(SYMBOL,),
        weigh=_by_limit(((100, 5), (500, 25), (1_000, 50), (5_000, 250)), 100),
    ),
    "trades": Endpoint(parameters=(SYMBOL, "limit"), needs=(SYMBOL,), weigh=_flat(25)),
    "historicalTrades": Endpoint(
        parameters=(SYMBOL, "limit", "fromId"), needs=(SYMBOL,), weigh=_flat(25), truth=Truth.PAGE
    ),
    "aggTrades": Endpoint(parameters=(SYMBOL, "fromId", *_TIMES), needs=(SYMBOL,), weigh=_flat(4), truth=Truth.PAGE),
    "klines": _candles(SYMBOL, "timeZone", weigh=_flat(2), most=1_000),
    "uiKlines": _candles(SYMBOL, "timeZone", weigh=_flat(2), most=1_000),
    "avgPrice": Endpoint(parameters=(SYMBOL,), needs=(SYMBOL,), weigh=_flat(2), fresh_s=_MOMENT_S),
    "ticker/24hr": _tickers(_day_weight, most_symbols=_MANY),
    "ticker/tradingDay": _tickers(_of_symbols(4, 200), "timeZone", most_symbols=100),
    "ticker": _tickers(_of_symbols(4, 200), "windowSize", most_symbols=100),
    "ticker/price": _tickers(_one_or_more(2, 4), most_symbols=_MANY),
    "ticker/bookTicker": _tickers(_one_or_more(2, 4), most_symbols=_MANY),
    "referencePrice": Endpoint(parameters=(SYMBOL,), needs=(SYMBOL,), weigh=_flat(2), fresh_s=_MOMENT_S),
    "executionRules": Endpoint(
        parameters=(SYMBOL, SYMBOLS, _STATUS),
        weigh=_rules_weight,
        fresh_s=_SLOW_S,
        most_symbols=_MANY,
        most_bytes=_WHOLE_MARKET_BYTES,
    ),
}

_FUTURES_CANDLES: Final = _by_limit(((99, 1), (499, 2), (1_000, 5), (1_500, 10)), 500)
_DEPTH_LIMITS: Final = (5, 10, 20, 50, 100, 500, 1_000)


def _futures_candles(subject: str, *needs: str) -> Endpoint:
    candles = _candles(subject, *needs, weigh=_FUTURES_CANDLES, most=1_500)
    return msgspec.structs.replace(candles, needs=(*candles.needs, *needs))


def _futures_tickers(one: int, more: int) -> Endpoint:
    return Endpoint(
        parameters=(SYMBOL,), weigh=_one_or_more(one, more), fresh_s=_MOMENT_S, most_bytes=_WHOLE_MARKET_BYTES
    )


_USDM: Final = {
    "v1/ping": Endpoint(),
    "v1/time": Endpoint(),
    "v1/exchangeInfo": Endpoint(fresh_s=_SLOW_S, most_bytes=_WHOLE_MARKET_BYTES),
    "v1/depth": Endpoint(
        parameters=(SYMBOL, "limit"),
        needs=(SYMBOL,),
        weigh=_by_limit(((50, 2), (100, 5), (500, 10), (1_000, 20)), 500),
        depth_limits=_DEPTH_LIMITS,
    ),
    "v1/trades": Endpoint(parameters=(SYMBOL, "limit"), needs=(SYMBOL,), weigh=_flat(5)),
    "v1/aggTrades": Endpoint(
        parameters=(SYMBOL, "fromId", *_TIMES), needs=(SYMBOL,), weigh=_flat(20), truth=Truth.PAGE
    ),
    "v1/klines": _futures_candles(SYMBOL),
    "v1/continuousKlines": _futures_candles("pair", "contractType"),
    "v1/indexPriceKlines": _futures_candles("pair"),
    "v1/markPriceKlines": _futures_candles(SYMBOL),
    "v1/premiumIndexKlines": _futures_candles(SYMBOL),
    "v1/premiumIndex": _futures_tickers(1, 10),
    "v1/fundingRate": Endpoint(parameters=(SYMBOL, *_TIMES), fresh_s=_SLOW_S),
    "v1/fundingInfo": Endpoint(fresh_s=_SLOW_S),
    "v1/openInterest": Endpoint(parameters=(SYMBOL,), needs=(SYMBOL,), fresh_s=_MOMENT_S),
    "v1/ticker/24hr": _futures_tickers(1, 40),
    "v1/ticker/price": _futures_tickers(1, 2),
    "v2/ticker/price": _futures_tickers(1, 2),
    "v1/ticker/bookTicker": _futures_tickers(2, 5),
}

# For one account, or with its key: rest-api.md, "TRADE", "USER_DATA" and "USER_STREAM"; the same of the connector.
_SPOT_SIGNED: Final = frozenset(
    {
        "account", "allOrderList", "allOrders", "myAllocations", "myFilters", "myPreventedMatches", "myTrades",
        "openOrderList", "openOrders", "order", "orderList", "rateLimit", "sor", "userDataStream",
    }
)  # fmt: skip
_USDM_SIGNED: Final = frozenset(
    {
        "account", "accountConfig", "algoOrder", "allAlgoOrders", "allOpenOrders", "allOrders", "apiReferralClient",
        "balance", "batchOrders", "commissionRate", "countdownCancelAll", "feeBurn", "forceOrders", "historicalTrades",
        "income", "leverage", "leverageBracket", "listenKey", "marginType", "multiAssetsMargin", "openAlgoOrders",
        "openOrder", "openOrders", "order", "orderAmendment", "positionMargin", "positionRisk", "positionSide",
        "rateLimit", "symbolConfig", "userTrades",
    }
)  # fmt: skip

SPOT: Final = Product("/api/v3/", "/api/v3/ping", "/api/v3/time", limits.WEIGHT_PER_MINUTE, _SPOT, _SPOT_SIGNED)
USD_M: Final = Product("/fapi/", "/fapi/v1/ping", "/fapi/v1/time", limits_usdm.WEIGHT_PER_MINUTE, _USDM, _USDM_SIGNED)
PRODUCTS: Final = (SPOT, USD_M)


def endpoint_of(product: Product, method: str, path: str, query: bytes) -> Endpoint:
    """The call that a path means; raises ``Refusal`` for what is for one account, or is none."""
    name = path.removeprefix(product.prefix)
    first = name.removeprefix("v1/").removeprefix("v2/").removeprefix("v3/").partition("/")[0]
    if first in product.signed or b"signature=" in query:
        raise refusals.keys_stay_out()
    endpoint = product.endpoints.get(name)
    if endpoint is None or method not in ("GET", "HEAD"):
        raise refusals.no_such_path(path[:100], method)
    return endpoint


def question(endpoint: Endpoint, path: str, query: bytes, *, is_in_microseconds: bool) -> Question:
    """What is asked, in one way of writing it; raises ``Refusal`` for what the exchange would refuse."""
    if len(query) > _QUERY_BYTES:
        raise refusals.illegal(SYMBOLS, _SYMBOLS_PATTERN)
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    given = dict(pairs)
    if len(given) < len(pairs):
        raise refusals.duplicate_parameter()
    read = [name for name in given if name in endpoint.parameters]
    if len(read) < len(given):
        raise refusals.too_many_read(len(read), len(given))
    for name in endpoint.needs:
        if not given.get(name):
            raise refusals.missing(name)
    if SYMBOL in given and SYMBOLS in given:
        raise refusals.either_or(SYMBOL, SYMBOLS)
    for name, value in given.items():
        if not value:
            raise refusals.empty(name)
        _check(endpoint, name, value)
    return Question(path, tuple(sorted(given.items())), is_in_microseconds)


def _check(endpoint: Endpoint, name: str, value: str) -> None:
    if name in (SYMBOL, "pair"):
        if not _is_symbol(value):
            raise refusals.illegal(name, _SYMBOL_PATTERN)
    elif name == SYMBOLS:
        _check_list(endpoint, value)
    elif name == "interval" and value not in INTERVALS:
        raise refusals.invalid_interval()
    elif name in _NUMBERS and not _NUMBER.fullmatch(value):
        raise refusals.not_a_number(name)
    elif name == "limit" and endpoint.depth_limits and int(value) not in endpoint.depth_limits:
        raise refusals.invalid_depth_limit(value)


def _check_list(endpoint: Endpoint, text: str) -> None:
    if not _LISTED.fullmatch(text):
        raise refusals.illegal(SYMBOLS, _SYMBOLS_PATTERN)
    symbols = listed(text)
    if not all(map(_is_symbol, symbols)):
        raise refusals.illegal(SYMBOLS, _SYMBOLS_PATTERN)
    if len(set(symbols)) < len(symbols):
        raise refusals.duplicate_symbol()
    if len(symbols) > endpoint.most_symbols:
        raise refusals.too_many_values(SYMBOLS, endpoint.most_symbols)


def listed(text: str) -> list[str]:
    """The symbols of a list that was checked."""
    return text[2:-2].split('","') if text != "[]" else []


def _is_symbol(text: str) -> bool:
    return 0 < len(text) <= _SYMBOL_LENGTH and text.upper() == text and all(map(_may_stand_in_a_symbol, text))


def _may_stand_in_a_symbol(letter: str) -> bool:
    return letter.isalnum() or letter in "-_."
