"""What Binance says no with: codes and words that its clients match on (binance-spot-api-docs, errors.md, 2026-07-21).

Sans-I/O.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import msgspec

from komas.errors import KomasError, VenueError

_BANNED: Final = 418
_TIMED_OUT: Final = 408
_SERVER_ERRORS: Final = 500


class Refusal(KomasError):
    """A call is answered with an error; ``retry_after_s`` is whole seconds."""

    def __init__(self, status: int, code: int, words: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """``{"code":-1121,"msg":"Invalid symbol."}``."""
        return msgspec.json.encode({"code": self.code, "msg": str(self)})


def invalid_interval() -> Refusal:
    """No length of a candle."""
    return Refusal(HTTPStatus.BAD_REQUEST, -1120, "Invalid interval.")


def illegal(name: str, pattern: str) -> Refusal:
    """A parameter is not written as it must be."""
    words = f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'."
    return Refusal(HTTPStatus.BAD_REQUEST, -1100, words)


def missing(name: str) -> Refusal:
    """A parameter was not sent."""
    words = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    return Refusal(HTTPStatus.BAD_REQUEST, -1102, words)


def empty(name: str) -> Refusal:
    """A parameter that need not be sent was sent without a value."""
    return Refusal(HTTPStatus.BAD_REQUEST, -1105, f"Parameter '{name}' was empty.")


def too_many_read(read: int, sent: int) -> Refusal:
    """Parameters that the call does not have."""
    words = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'."
    return Refusal(HTTPStatus.BAD_REQUEST, -1104, words)


def duplicate_parameter() -> Refusal:
    """One parameter twice."""
    return Refusal(HTTPStatus.BAD_REQUEST, -1101, "Duplicate values for a parameter detected.")


def too_many_values(name: str, most: int) -> Refusal:
    """More symbols than one call may ask for."""
    words = f"Too many values sent for parameter '{name}', maximum allowed up to {most}."
    return Refusal(HTTPStatus.BAD_REQUEST, -1101, words)


def duplicate_symbol() -> Refusal:
    """One symbol twice in a list of them."""
    return Refusal(HTTPStatus.BAD_REQUEST, -1151, "Symbol is present multiple times in the list.")


def either_or(one: str, other: str) -> Refusal:
    """Two parameters of which one may be sent."""
    words = f"Combination of optional parameters invalid. Send either '{one}' or '{other}'."
    return Refusal(HTTPStatus.BAD_REQUEST, -1128, words)


def not_a_number(name: str) -> Refusal:
    """A parameter must be a whole number."""
    return illegal(name, "^[0-9]{1,20}$")


def invalid_depth_limit(limit: str) -> Refusal:
    """Futures have books of certain sizes only; the code is the exchange's (ccxt 4.5.90), the words are ours."""
    return Refusal(HTTPStatus.BAD_REQUEST, -4021, f"Limit {limit} is not valid.")


def no_such_path(path: str, method: str) -> Refusal:
    """Nothing is there."""
    return Refusal(HTTPStatus.NOT_FOUND, -5000, f"Path {path}, Method {method} is invalid")


def keys_stay_out() -> Refusal:
    """A call for one account."""
    words = "komas serves public market data: calls with an API key or a signature go to the exchange itself."
    return Refusal(HTTPStatus.FORBIDDEN, -2015, words)


def out_of_weight(limit: int, retry_after_s: int) -> Refusal:
    """The client has used up its minute."""
    words = (
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
        " Please use WebSocket Streams for live updates to avoid polling the API."
    )
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, -1003, words, retry_after_s=retry_after_s)


def no_budget(retry_after_s: float) -> Refusal:
    """The exchange may not be asked now, for anybody."""
    words = "Too many requests; komas may not ask the exchange more at present."
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, -1003, words, retry_after_s=max(1, math.ceil(retry_after_s)))


def of_venue(error: VenueError) -> Refusal:
    """What the exchange, or the road to it, said no with: its own words, where there are any."""
    if error.status in (HTTPStatus.TOO_MANY_REQUESTS, _BANNED) or (error.status is None and error.retry_after_s):
        return no_budget(error.retry_after_s or 1)
    if error.status is None or error.status == _TIMED_OUT:
        words = "Internal error; unable to process your request. Please try again."
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, -1001, words)
    code = error.code if error.code is not None else -1000
    words = error.words or "An unknown error occurred while processing the request."
    return Refusal(error.status, code, words)
