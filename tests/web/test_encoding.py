"""The bytes that leave: once for everybody, and as their protocols have it."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from komas.model.codec import Envelope, NoticeEnvelope, encode
from komas.model.kinds import Kind
from komas.model.market import AggTrade, FeedState, FeedStatus, Gap, Trade
from komas.model.signals import SignalEnvelope, SignalEvent
from komas.web.encoding import EventMessage, SignalFrames, message, multiplexed_event, named_event, server_sent_event
from tests.builders import KLINE, TICKER, TRADE, enveloped, kline, ticker, trade


def test_the_envelope_is_the_users() -> None:
    """Type, data with its type, and the moment of receipt."""
    envelope = enveloped(TICKER, ticker("42500.50"), 1_766_664_000_000, "e")
    assert message(envelope).startswith(
        b'{"type":"ticker","data":{"type":"ticker","symbol":"BTCUSDT","price":42500.50,"open":'
    )
    assert message(envelope).endswith(b'"timestamp":1},"timestamp":"2025-12-25T12:00:00.000Z"}')


_NUMBERS = st.decimals(min_value=0, max_value=10**12, allow_nan=False, places=None) | st.sampled_from(
    [Decimal("0E-8"), Decimal("1E+3"), Decimal("0.00000001"), Decimal("42500.50"), Decimal("-0")]
)
_SYMBOLS = st.text(min_size=1, max_size=12) | st.sampled_from(["ETHUSDT", "BTCUSDT_261225", "币安人生USDT", 'A"B\\C'])


_TRADES = st.builds(
    Trade,
    symbol=_SYMBOLS,
    trade_id=st.integers(0, 2**53),
    price=_NUMBERS,
    quantity=_NUMBERS,
    timestamp=st.integers(0, 2**53),
    is_buyer_maker=st.booleans(),
)


@given(one=_TRADES, number=st.integers(0, 2**53), is_backfilled=st.booleans())
def test_a_trade_is_what_the_encoder_makes_of_it(one: Trade, number: int, *, is_backfilled: bool) -> None:
    """Byte for byte, whatever its digits."""
    several = AggTrade(**msgspec.structs.asdict(one), first_trade_id=number, last_trade_id=number + 2)
    for stream, event in ((TRADE, one), (msgspec.structs.replace(TRADE, kind=Kind.AGG_TRADE), several)):
        envelope = Envelope(stream, event, 1_766_664_000_123, number, "abcd", is_backfilled)
        whole = EventMessage(str(stream.kind), event, "2025-12-25T12:00:00.123Z", is_backfilled)
        assert message(envelope) == encode(whole)


def test_a_fact_is_encoded_once() -> None:
    """Everybody who listens gets the same bytes object."""
    envelope = enveloped(TRADE, trade(7), 0, "e")
    assert server_sent_event(envelope) is server_sent_event(envelope)


def test_only_resumable_facts_carry_an_id() -> None:
    """Trades and closed candles do, tickers and open candles do not."""
    assert server_sent_event(enveloped(TRADE, trade(7), 0, "abc")).endswith(b"}\nid: abc-7\n\n")
    assert server_sent_event(enveloped(KLINE, kline(1, closed=True), 0, "abc")).endswith(b"}\nid: abc-60000\n\n")
    assert server_sent_event(enveloped(KLINE, kline(1), 0, "abc")).endswith(b"}\n\n")
    assert server_sent_event(enveloped(TICKER, ticker(), 0, "abc")).endswith(b"}\n\n")


def test_an_id_comes_after_what_it_is_the_id_of() -> None:
    """@microsoft/fetch-event-source counts an id as soon as it is there: cut off before the data, it lost the event."""
    envelope = enveloped(TRADE, trade(7), 0, "abc")
    envelope.publication = 5
    for event in (server_sent_event(envelope), multiplexed_event(envelope, "def")):
        data, place, *end = event.split(b"\n")
        assert json.loads(data.removeprefix(b"data: "))["data"]["trade_id"] == 7
        assert place in (b"id: abc-7", b"id: def-5")
        assert end == [b"", b""]


def test_an_event_is_one_line_of_data() -> None:
    """No newline inside a text may end the event early."""
    status = FeedStatus(state=FeedState.RECONNECTING, reason="one\ntwo\r\nthree")
    assert server_sent_event(NoticeEnvelope(status)).count(b"\n") == 3
    assert server_sent_event(NoticeEnvelope(Gap(stream="s", first=1, last=None))) == (
        b'event: gap\ndata: {"stream":"s","from":1,"to":null,"filled":false}\n\n'
    )
    assert named_event("busy", {"reason": "x"}) == b'event: busy\ndata: {"reason":"x"}\n\n'


@pytest.mark.parametrize("length", [0, 1, 60, 70, 1000, 65_450, 65_500, 70_000])
def test_a_frame_is_what_the_library_would_have_sent(length: int) -> None:
    """Byte for byte, whatever the length."""
    data = msgspec.json.encode({"note": "ä" * length})
    envelope = SignalEnvelope(SignalEvent(7, 1, "mexc_dex", is_new=True, data=msgspec.Raw(data)))
    sent = Connection(ConnectionType.SERVER).send(TextMessage(data=envelope.text(positions=False)))
    assert SignalFrames(positions=False).new_encoding()([envelope]) == sent


def test_json_is_json() -> None:
    """A parser agrees with the digits."""
    data = json.loads(message(enveloped(TRADE, trade(7, "0.00000001"), 0, "e")), parse_float=Decimal)
    assert data["data"]["price"] == Decimal("0.00000001")


def test_a_fact_that_was_asked_for_says_so() -> None:
    """And nothing else does."""
    live, late = enveloped(TRADE, trade(1), 0), enveloped(TRADE, trade(1), 0, backfilled=True)
    assert b"backfilled" not in message(live)
    assert message(late) == message(live)[:-1] + b',"backfilled":true}'
