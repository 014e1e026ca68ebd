"""How long an answer is true, and which ones are kept."""

from __future__ import annotations

import json

import pytest

from komas.venues.binance.door.answers import (
    BOUNDARY_S,
    KEPT_BYTES,
    KEPT_S,
    OPEN_S,
    SETTLED_MS,
    Answers,
    Kept,
    true_for_s,
)
from komas.venues.binance.door.endpoints import SPOT, Question

MINUTE = 60_000
NOW_MS = 1_796_078_640_000 + 30_000  # half a minute after a candle has opened
OPEN_MS = NOW_MS - 30_000
KLINES, TRADES = SPOT.endpoints["klines"], SPOT.endpoints["aggTrades"]


def asked(**given: object) -> Question:
    """A question about candles."""
    return Question("/api/v3/klines", tuple(sorted((name, str(value)) for name, value in given.items())))


def candles(*opens_ms: int, scale: int = 1) -> bytes:
    """Rows, as the exchange writes them."""
    rows = [
        [at * scale, "1.1", "1", "1", "1", "2", (at + MINUTE) * scale - 1, "2", 3, "1", "1", "0"] for at in opens_ms
    ]
    return json.dumps(rows).encode()


def test_an_open_candle_is_true_for_a_moment_and_never_beyond_its_end() -> None:
    """The last row of an answer is the open candle: freqtrade drops it without looking."""
    body = candles(OPEN_MS - MINUTE, OPEN_MS)
    assert true_for_s(KLINES, asked(limit=2), body, NOW_MS) == OPEN_S
    assert true_for_s(KLINES, asked(limit=2), body, OPEN_MS + MINUTE - 700) == 0.7
    assert true_for_s(KLINES, asked(limit=2), body, OPEN_MS + MINUTE + 200) == BOUNDARY_S


def test_candles_that_are_over_are_true_for_ever() -> None:
    """Once the exchange itself has had time to finish them, and none can follow."""
    old = OPEN_MS - 10 * MINUTE
    body = candles(old, old + MINUTE)
    assert true_for_s(KLINES, asked(endTime=old + MINUTE), body, NOW_MS) == KEPT_S
    assert true_for_s(KLINES, asked(startTime=old, limit=2), body, NOW_MS) == KEPT_S
    assert true_for_s(KLINES, asked(startTime=old, limit=3), body, NOW_MS) == OPEN_S  # a third one may come
    assert true_for_s(KLINES, asked(limit=2), body, NOW_MS) == OPEN_S  # of a symbol that is halted
    assert true_for_s(KLINES, asked(endTime=NOW_MS + MINUTE), body, NOW_MS) == OPEN_S
    last = candles(OPEN_MS - MINUTE)
    assert true_for_s(KLINES, asked(endTime=OPEN_MS - 1), last, OPEN_MS + SETTLED_MS - 1) <= OPEN_S
    assert true_for_s(KLINES, asked(endTime=OPEN_MS - 1), last, OPEN_MS + SETTLED_MS) == KEPT_S


def test_microseconds_are_understood() -> None:
    """A header asks for them; times of a question may be in them with or without it."""
    old = OPEN_MS - 10 * MINUTE
    assert true_for_s(KLINES, asked(endTime=old * 1000), candles(old, scale=1000), NOW_MS) == KEPT_S
    assert true_for_s(KLINES, asked(endTime=(NOW_MS + MINUTE) * 1000), candles(old), NOW_MS) == OPEN_S


def test_a_full_page_of_trades_by_number_is_true_for_ever() -> None:
    """One that is not full grows, and the newest ones are others at once."""
    rows = json.dumps([{"a": number} for number in range(5)]).encode()
    assert true_for_s(TRADES, asked(fromId=0, limit=5), rows, NOW_MS) == KEPT_S
    assert true_for_s(TRADES, asked(fromId=0, limit=6), rows, NOW_MS) == 0
    assert true_for_s(TRADES, asked(limit=5), rows, NOW_MS) == 0


@pytest.mark.parametrize("body", [b"", b"{}", b"[[]]", b"[[1,2]]", b'["x"]', b"[", b"\xff", b"[]"])
def test_what_is_no_candle_is_not_kept(body: bytes) -> None:
    """It is passed on as it came."""
    assert true_for_s(KLINES, asked(endTime=1, limit=1), body, NOW_MS) == 0


def test_the_oldest_go_first_where_there_is_no_room() -> None:
    """By the time of their last use; and what is not true any more is gone."""
    answers = Answers()
    size = KEPT_BYTES // 3
    for number in range(3):
        answers.keep(asked(limit=number), Kept(bytes(size - 1000), 200, 10.0))
    assert answers.find(asked(limit=0), 5.0) is not None
    answers.keep(asked(limit=3), Kept(bytes(size), 200, 10.0))
    assert [answers.find(asked(limit=number), 5.0) is not None for number in range(4)] == [True, False, True, True]
    assert answers.find(asked(limit=0), 10.0) is None
    assert len(answers) == 2
