"""Names of streams: read, written, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.errors import CallerError
from komas.model.kinds import Kind
from komas.model.streams import (
    INTERVALS,
    MONTH,
    Stream,
    next_open_ms,
    parse_interval,
    parse_kind,
    parse_symbol,
    previous_open_ms,
    stream,
)
from komas.venues.binance.names import parse_name

SYMBOLS = st.text("ABCXYZ0189币安人生", min_size=1, max_size=20)
STREAMS = st.builds(
    lambda kind, symbol, interval: Stream.of(kind, symbol, interval if kind is Kind.KLINE else None),
    st.sampled_from(Kind),
    SYMBOLS,
    st.sampled_from(tuple(INTERVALS)),
)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Stream(Kind.TICKER, "BTCUSDT"), "btcusdt@ticker"),
        (Stream(Kind.MINI_TICKER, "BTCUSDT"), "btcusdt@miniTicker"),
        (Stream(Kind.KLINE, "BTCUSDT", "1m"), "btcusdt@kline_1m"),
        (Stream(Kind.KLINE, "BTCUSDT", "1M"), "btcusdt@kline_1M"),
        (Stream(Kind.TRADE, "BTCUSDT"), "btcusdt@trade"),
        (Stream(Kind.AGG_TRADE, "BTCUSDT"), "btcusdt@aggTrade"),
        (Stream(Kind.BOOK_TICKER, "币安人生USDT"), "币安人生usdt@bookTicker"),
    ],
)
def test_names_are_the_exchanges(wanted: Stream, name: str) -> None:
    """Symbols are lower case in a name, suffixes keep their case."""
    assert wanted.name == name
    assert parse_name(name) == wanted


@given(STREAMS)
def test_every_name_reads_back(wanted: Stream) -> None:
    """What is written can be read."""
    assert parse_name(wanted.name, wanted.venue) == wanted


@pytest.mark.parametrize("name", ["", "@", "@trade", "btcusdt", "btcusdt@", "btcusdt@kline_7m", "btcusdt@depth5"])
def test_names_of_other_streams_are_not_ours(name: str) -> None:
    """An unknown stream is nothing, not an error: the exchange adds streams."""
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("written", "read"),
    [("btcusdt", "BTCUSDT"), (" BtcUsdt ", "BTCUSDT"), ("币安人生usdt", "币安人生USDT"), ("1000SATS", "1000SATS")],
)
def test_symbols_are_taken_in_any_case(written: str, read: str) -> None:
    """Users write symbols as they like."""
    assert parse_symbol(written) == read


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "missing"),
        ("   ", "missing"),
        ("BTC_USDT", "write 'BTCUSDT'"),
        ("BTC-USDT", "write 'BTCUSDT'"),
        ("BTC/USDT", "write 'BTCUSDT'"),
        ("BTC USDT", "letters and digits"),
        ("BTC@TRADE", "letters and digits"),
        ("BTC\nUSDT", "letters and digits"),
        ("A" * 41, "longer than 40"),
    ],
)
def test_a_symbol_that_would_break_a_name_is_refused(written: str, words: str) -> None:
    """The error names the field and says what to write."""
    with pytest.raises(CallerError, match=words) as caught:
        parse_symbol(written)
    assert caught.value.field == "symbols"


@given(st.text(max_size=60))
def test_any_text_is_a_symbol_or_a_clear_error(text: str) -> None:
    """No text breaks the reader, and what passes survives the exchange's lower case."""
    try:
        symbol = parse_symbol(text)
    except CallerError:
        return
    assert parse_name(Stream(Kind.TRADE, symbol).name) == Stream(Kind.TRADE, symbol)


def test_kinds_and_intervals_list_what_there_is() -> None:
    """The error of an unknown kind or interval lists the known ones."""
    with pytest.raises(CallerError, match="ticker mini_ticker kline trade agg_trade book_ticker"):
        parse_kind("tickr")
    with pytest.raises(CallerError, match="1s 1m 3m"):
        parse_interval("1X")


def test_interval_is_for_candles_alone() -> None:
    """A ticker with an interval is a mistake; a candle without one is of a minute."""
    assert stream("kline", "BTCUSDT").interval == "1m"
    assert stream("trade", "btcusdt") == Stream(Kind.TRADE, "BTCUSDT")
    with pytest.raises(CallerError, match="for kline alone"):
        stream("ticker", "BTCUSDT", "1m")


@given(st.sampled_from(tuple(INTERVALS)), st.integers(0, 900))
def test_candles_follow_each_other(interval: str, months: int) -> None:
    """The candle before the next one is this one, months included."""
    opened = 0
    for _ in range(months if interval == MONTH else 1):
        opened = next_open_ms(interval, opened)
    assert previous_open_ms(interval, next_open_ms(interval, opened)) == opened


def test_months_have_their_own_lengths() -> None:
    """February 2024 had 29 days, December is followed by January."""
    day = 86_400_000
    february = 1_706_745_600_000
    assert next_open_ms(MONTH, february) - february == 29 * day
    december = 1_733_011_200_000
    assert next_open_ms(MONTH, december) - december == 31 * day
    assert previous_open_ms(MONTH, next_open_ms(MONTH, december)) == december


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [
        ("btc-usdt", "write 'BTCUSDT'"),
        ("BTC/USDT", "write 'BTCUSDT'"),
        ("BTCUSDT_261225", "spot pairs and USD-M perpetuals"),
        ("BTCUSD_PERP", "spot pairs and USD-M perpetuals"),
        ("BTC-261225-60000-C", "spot pairs and USD-M perpetuals"),
        ("BTC/USDT:USDT", "spot pairs and USD-M perpetuals"),
        ("_", "spot pairs and USD-M perpetuals"),
    ],
)
def test_a_hint_names_no_symbol_that_does_not_exist(symbol: str, hint: str) -> None:
    """A dated future was answered with "write 'BTCUSDT261225'"."""
    with pytest.raises(CallerError) as refused:
        parse_symbol(symbol)
    assert hint in str(refused.value)
    assert "261225'" not in str(refused.value).partition(";")[2]
