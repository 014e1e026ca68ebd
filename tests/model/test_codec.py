"""Bytes of facts: every digit, once for everybody."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model.codec import NoticeEnvelope, Position, encode, iso_ms, named_event, parse_position
from komas.model.market import FeedState, FeedStatus, Gap
from tests.builders import KLINE, TICKER, TRADE, enveloped, kline, ticker, trade


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18))
def test_a_number_keeps_its_digits(number: Decimal) -> None:
    """What leaves is the plain notation of what came, never an exponent."""
    text = encode({"price": number}).decode()
    assert text == f'{{"price":{number:f}}}'


@pytest.mark.parametrize(
    "digits", ["0.00000000", "0.00000001", "61737.63000000", "-0.00000120", "18446744073709551616.10"]
)
def test_digits_of_the_exchange_are_digits_of_ours(digits: str) -> None:
    """Trailing zeros stay, small numbers are written out."""
    assert encode([Decimal(digits)]) == f"[{digits}]".encode()


def test_the_envelope_is_the_users() -> None:
    """Type, data with its type, and the moment of receipt."""
    envelope = enveloped(TICKER, ticker("42500.50"), 1_766_664_000_000, "e")
    assert envelope.json.startswith(
        b'{"type":"ticker","data":{"type":"ticker","symbol":"BTCUSDT","price":42500.50,"open":'
    )
    assert envelope.json.endswith(b'"timestamp":1},"timestamp":"2025-12-25T12:00:00.000Z"}')


def test_a_fact_is_encoded_once() -> None:
    """Everybody who listens gets the same bytes object."""
    envelope = enveloped(TRADE, trade(7), 0, "e")
    assert envelope.sse is envelope.sse


def test_only_resumable_facts_carry_an_id() -> None:
    """Trades and closed candles do, tickers and open candles do not."""
    assert enveloped(TRADE, trade(7), 0, "abc").sse.startswith(b"id: abc-7\ndata: {")
    assert enveloped(KLINE, kline(1, closed=True), 0, "abc").sse.startswith(b"id: abc-60000\ndata: {")
    assert enveloped(KLINE, kline(1), 0, "abc").sse.startswith(b"data: {")
    assert enveloped(TICKER, ticker(), 0, "abc").sse.startswith(b"data: {")


def test_an_event_is_one_line_of_data() -> None:
    """No newline inside a text may end the event early."""
    status = FeedStatus(state=FeedState.RECONNECTING, reason="one\ntwo\r\nthree")
    assert NoticeEnvelope(status).sse.count(b"\n") == 3
    assert NoticeEnvelope(Gap(stream="s", first=1, last=None)).sse == (
        b'event: gap\ndata: {"stream":"s","from":1,"to":null,"filled":false}\n\n'
    )
    assert named_event("busy", {"reason": "x"}) == b'event: busy\ndata: {"reason":"x"}\n\n'


@given(st.integers(0, 4_102_444_800_000))
def test_moments_are_iso_with_milliseconds(epoch_ms: int) -> None:
    """ISO 8601 in UTC, to the millisecond."""
    text = iso_ms(epoch_ms)
    assert len(text) == 24
    assert text.endswith(f"{epoch_ms % 1000:03}Z")


def test_positions_read_back() -> None:
    """What komas wrote as an id can be read; nothing else can."""
    assert parse_position(str(Position("00ff00ff", 12))) == Position("00ff00ff", 12)
    for nonsense in (
        "",
        "-",
        "abc",
        "abc-",
        "-5",
        "a-b",
        "abc--5",
        "abc-5 ",
        "é-",
        "abc-٣",
        "x" * 50 + "-1",
        "a-" + "9" * 60,
    ):
        assert parse_position(nonsense) is None


def test_json_is_json() -> None:
    """A parser agrees with the digits."""
    data = json.loads(enveloped(TRADE, trade(7, "0.00000001"), 0, "e").json, parse_float=Decimal)
    assert data["data"]["price"] == Decimal("0.00000001")


def test_a_fact_that_was_asked_for_says_so() -> None:
    """And nothing else does."""
    live, late = enveloped(TRADE, trade(1), 0), enveloped(TRADE, trade(1), 0, backfilled=True)
    assert b"backfilled" not in live.json
    assert late.json == live.json[:-1] + b',"backfilled":true}'
