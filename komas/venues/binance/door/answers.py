"""Answers that are still true, by what was asked; those that nobody asked for longest go first. Sans-I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from komas.venues.binance.door.endpoints import Endpoint, Question, Truth

KEPT_BYTES: Final = 2**26  # of all answers of one product
KEPT_S: Final = 3600.0  # what is true for ever is forgotten, too
OF_AN_ANSWER: Final = 512  # bytes beside its body
ERROR_S: Final = 5.0  # a symbol that is none may be listed at any time
# A candle is told to be closed up to so long after it is (binance-spot-api-docs: its update comes within two seconds).
SETTLED_MS: Final = 5_000
OPEN_S: Final = 2.0  # how long the newest candle of an answer may be behind
BOUNDARY_S: Final = 0.25  # while the exchange does not list the candle that has begun

_CLOSE_TIME: Final = 6  # of a candle's row
_MICROSECONDS: Final = 10**14  # a time of more than this is in them
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_candle = msgspec.json.Decoder(list[msgspec.Raw])
_number = msgspec.json.Decoder(int)


class Kept(msgspec.Struct, frozen=True):
    """One answer, and until when, on the caller's clock in seconds, it is good."""

    body: bytes
    status: int
    good_until: float


class Answers:
    """Answers of one product."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Question, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, question: Question, now: float) -> Kept | None:
        """One that is still good."""
        kept = self._kept.get(question)
        if kept is None:
            return None
        if now >= kept.good_until:
            self._forget(question)
            return None
        self._kept.move_to_end(question)
        return kept

    def keep(self, question: Question, kept: Kept) -> None:
        """Keep one in the place of an older one."""
        self._forget(question)
        self._kept[question] = kept
        self._bytes += _size(question, kept)
        while self._bytes > KEPT_BYTES:
            self._forget(next(iter(self._kept)))

    def _forget(self, question: Question) -> None:
        kept = self._kept.pop(question, None)
        if kept is not None:
            self._bytes -= _size(question, kept)


def _size(question: Question, kept: Kept) -> int:
    return OF_AN_ANSWER + len(kept.body) + sum(len(value) for _, value in question.parameters)


def true_for_s(endpoint: Endpoint, question: Question, body: bytes, now_ms: int) -> float:
    """How long, in seconds, an answer that was asked for at ``now_ms`` of the exchange's clock is true."""
    given = dict(question.parameters)
    try:
        if endpoint.truth is Truth.CANDLES:
            return _of_candles(endpoint, given, _rows.decode(body), now_ms)
        if endpoint.truth is Truth.PAGE:
            limit = min(int(given.get("limit", endpoint.default_limit)), endpoint.most_rows)
            return KEPT_S if "fromId" in given and len(_rows.decode(body)) >= limit > 0 else 0.0
    except (msgspec.MsgspecError, IndexError):
        return 0.0  # no rows: whatever it is, it is passed on, and not kept
    return endpoint.fresh_s


def _of_candles(endpoint: Endpoint, given: dict[str, str], rows: list[msgspec.Raw], now_ms: int) -> float:
    limit = min(int(given.get("limit", endpoint.default_limit)), endpoint.most_rows)
    is_bounded = "endTime" in given or ("startTime" in given and len(rows) >= limit > 0)
    if not rows:
        return 0.0
    closes_ms = _ms(_number.decode(_candle.decode(rows[-1])[_CLOSE_TIME]))
    if closes_ms + SETTLED_MS < now_ms:
        if is_bounded and ("endTime" not in given or _ms(int(given["endTime"])) + SETTLED_MS < now_ms):
            return KEPT_S
        return OPEN_S
    left_s = (closes_ms + 1 - now_ms) / 1000
    return min(OPEN_S, left_s) if left_s > 0 else BOUNDARY_S


def _ms(time: int) -> int:
    """The exchange takes, and with a header gives, microseconds, too."""
    return time // 1_000 if time >= _MICROSECONDS else time
