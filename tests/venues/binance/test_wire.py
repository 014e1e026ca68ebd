"""Payloads of the exchange, read into events: real ones, odd ones, broken ones."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.model import market
from komas.model.kinds import Kind, Venue
from komas.model.streams import Stream
from komas.venues.binance import limits
from komas.venues.binance.wire import Reader, head_of, read_error, read_frame, read_list, reader_of
from komas.venues.core.ports import Unreadable

# One payload for each kind, with keys that the exchange sends and komas does not need.
PAYLOADS = {
    "btcusdt@ticker": {
        "e": "24hrTicker", "E": 1672515782136, "s": "BTCUSDT", "p": "-0.00150000", "P": "-3.828", "w": "0.1",
        "x": "0.1", "c": "42500.50000000", "Q": "10", "b": "0.1", "B": "1", "a": "0.1", "A": "1", "o": "42000.00000000",
        "h": "43000.00000000", "l": "41500.00000000", "v": "15000.50000000", "q": "637507500.00000000", "O": 0, "C": 1,
        "F": 0, "L": 1, "n": 2,
    },
    "btcusdt@miniTicker": {
        "e": "24hrMiniTicker", "E": 1672515782136, "s": "BTCUSDT", "c": "0.00250000", "o": "0.00100000",
        "h": "0.00250000", "l": "0.00100000", "v": "10000.00000000", "q": "18.00000000",
    },
    "btcusdt@kline_1m": {
        "e": "kline", "E": 1672515782136, "s": "BTCUSDT",
        "k": {
            "t": 1672515780000, "T": 1672515839999, "s": "BTCUSDT", "i": "1m", "f": -1, "L": -1, "o": "0.00100000",
            "c": "0.00200000", "h": "0.00250000", "l": "0.00150000", "v": "0.00000000", "n": 0, "x": True,
            "q": "0.00000000", "V": "0", "Q": "0", "B": "0",
        },
    },
    "btcusdt@trade": {
        "e": "trade", "E": 1723161255343, "s": "BTCUSDT", "t": 3735683259, "p": "61837.63000000", "q": "0.02000000",
        "b": 1, "a": 2, "T": 1723161255342, "m": True, "M": True,
    },
    "btcusdt@aggTrade": {
        "e": "aggTrade", "E": 1672515782136, "s": "BTCUSDT", "a": 6680000000, "p": "0.00100000", "q": "100.00000000",
        "f": 100, "l": 105, "T": 1672515782136, "m": False, "M": True,
    },
    "btcusdt@bookTicker": {
        "u": 50093239212, "s": "BTCUSDT", "b": "61837.63000000", "B": "3.78826000", "a": "61837.64000000",
        "A": "1.54698000",
    },
    "btcusdt@markPrice@1s": {
        "e": "markPriceUpdate", "E": 1562305380000, "s": "BTCUSDT", "p": "11794.15000000", "i": "11784.62659091",
        "P": "11784.25641265", "r": "0.00038167", "T": 1562306400000,
    },
}  # fmt: skip

_VENUES = {"btcusdt@markPrice@1s": Venue.BINANCE_USDM}


def _event(name: str, payload: object) -> market.Incoming:
    return _read(name, json.dumps(payload))


def _read(name: str, payload: str) -> market.Incoming:
    reader = reader_of(name, _VENUES.get(name, Venue.BINANCE))
    assert reader is not None
    return _one(reader, f'{{"stream":"{name}","data":{payload}}}'.encode())


def _one(reader: Reader, text: bytes) -> market.Incoming:
    def complain(error: Unreadable) -> None:
        raise error

    (event,) = reader.read([text], 77, complain)
    return event


def test_a_ticker() -> None:
    """The last price is ``c``; times are the exchange's."""
    assert _event("btcusdt@ticker", PAYLOADS["btcusdt@ticker"]) == market.Ticker(
        symbol="BTCUSDT",
        price=Decimal("42500.50000000"),
        open=Decimal("42000.00000000"),
        high=Decimal("43000.00000000"),
        low=Decimal("41500.00000000"),
        volume=Decimal("15000.50000000"),
        quote_volume=Decimal("637507500.00000000"),
        price_change=Decimal("-0.00150000"),
        price_change_percent=Decimal("-3.828"),
        timestamp=1672515782136,
    )


def test_a_candle_without_a_trade() -> None:
    """Its trade ids are -1; its time is its open time."""
    event = _event("btcusdt@kline_1m", PAYLOADS["btcusdt@kline_1m"])
    assert isinstance(event, market.Kline)
    assert (event.timestamp, event.interval, event.is_closed, event.trades) == (1672515780000, "1m", True, 0)
    assert str(event.volume) == "0E-8"


def test_trades() -> None:
    """Single and aggregate; old captures still carry order ids, which are ignored."""
    single = _event("btcusdt@trade", PAYLOADS["btcusdt@trade"])
    assert isinstance(single, market.Trade)
    assert (single.trade_id, single.timestamp, single.is_buyer_maker) == (3735683259, 1723161255343, True)
    aggregate = _event("btcusdt@aggTrade", PAYLOADS["btcusdt@aggTrade"])
    assert isinstance(aggregate, market.AggTrade)
    assert (aggregate.trade_id, aggregate.first_trade_id, aggregate.last_trade_id) == (6680000000, 100, 105)


def test_a_book_ticker_is_stamped_by_us() -> None:
    """Spot sends no time with it."""
    event = _event("btcusdt@bookTicker", PAYLOADS["btcusdt@bookTicker"])
    assert isinstance(event, market.BookTicker)
    assert (event.update_id, event.timestamp, str(event.ask_price)) == (50093239212, 77, "61837.64000000")


@pytest.mark.parametrize("name", PAYLOADS)
def test_unknown_keys_are_ignored(name: str) -> None:
    """Binance adds keys without notice."""
    payload = PAYLOADS[name] | {"nq": "1", "st": 1, "zz": {"deep": [None]}}
    assert _event(name, payload) == _event(name, PAYLOADS[name])


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("bad", ["NaN", "Infinity", "1E+99999", "", "1,5", None, []])
def test_a_number_that_is_none_is_unreadable(name: str, bad: object) -> None:
    """In any price or quantity of any kind; nothing of it is ever sent on."""
    text = json.dumps(PAYLOADS[name])
    for key in ("c", "q", "p", "b"):
        value = PAYLOADS[name].get(key)
        if isinstance(value, str):
            broken = text.replace(json.dumps(value), json.dumps(bad), 1)
            with pytest.raises(Unreadable):
                _read(name, broken)
            return


@pytest.mark.parametrize("name", ["btcusdt@depth20@100ms", "!miniTicker@arr", "btcusdt@news", "x"])
def test_streams_that_komas_does_not_know_are_nothing(name: str) -> None:
    """Counted, not fatal."""
    assert reader_of(name, _VENUES.get(name, Venue.BINANCE)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "\x00",
        '{"stream": 5}',
        '{"id": {}}',
        b"\xff\xfe{}",
        "[" * 100_000,
        '{"zz":' + "[" * 100_000,
    ],
)
def test_a_frame_that_is_none_is_unreadable(text: str | bytes) -> None:
    """Broken JSON, another shape, not UTF-8, nesting without end."""
    with pytest.raises(Unreadable):
        read_frame(text)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """It is a frame or it is unreadable."""
    try:
        frame = read_frame(text)
    except Unreadable:
        return
    assert frame.stream is None or isinstance(frame.stream, str)


@pytest.mark.parametrize(
    "text",
    [
        '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":1}',
        '{"code":2,"msg":"Invalid request: invalid stream","id":1}',
    ],
)
def test_errors_come_in_two_shapes(text: str) -> None:
    """Nested on the wire, flat in the documents."""
    assert read_error(read_frame(text)) == (2, "Invalid request: invalid stream")


def test_a_stream_is_read_from_the_wrapper() -> None:
    """The name decides, whatever the order of the keys."""
    payload = json.dumps(PAYLOADS["btcusdt@trade"])
    text = f'{{"data":{payload},"stream":"btcusdt@trade","new":1}}'.encode()
    assert read_frame(text).stream == "btcusdt@trade"
    reader = reader_of("btcusdt@trade")
    assert reader is not None
    assert head_of(text) != reader.head
    assert reader.stream == Stream(Kind.TRADE, "BTCUSDT")
    assert _one(reader, text) == _event("btcusdt@trade", PAYLOADS["btcusdt@trade"])


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        (b'{"stream":"btcusdt@trade","data":{}}', True),
        (b'{"stream":"btcusdt@trade2","data":{}}', False),
        (b'{"stream":"","data":{}}', False),
        (b'{"stream": "btcusdt@trade","data":{}}', False),
        (b'{"result":null,"id":1}', False),
        (b"{}", False),
        (b"", False),
    ],
)
def test_how_a_frame_begins_tells_its_reader(text: bytes, *, is_plain: bool) -> None:
    """As the exchange writes it, without taking the frame apart; any other spelling takes the longer way."""
    reader = reader_of("btcusdt@trade")
    assert reader is not None
    assert (head_of(text) == reader.head) == text.startswith(reader.head) == is_plain


def test_a_broken_frame_costs_no_other() -> None:
    """What can be read is, in order; the rest is complained of, each."""
    reader, complaints = reader_of("btcusdt@trade"), list[Unreadable]()
    assert reader is not None
    good = [json.dumps({**PAYLOADS["btcusdt@trade"], "t": number}) for number in (1, 2, 3)]
    other = json.dumps({**PAYLOADS["btcusdt@trade"], "s": "ETHUSDT"})
    texts = [
        f'{{"stream":"btcusdt@trade","data":{data}}}'.encode() for data in (good[0], other, good[1], "{}", good[2])
    ]
    events = reader.read(texts, 77, complaints.append)
    assert [event["trade_id"] for event in events if isinstance(event, market.Trade)] == [1, 2, 3]
    assert len(complaints) == 2


def test_a_candle_that_has_not_begun_is_garbage() -> None:
    """It would make every candle before it an old one; clocks may differ by a little."""
    payload = PAYLOADS["btcusdt@kline_1m"]
    bar = payload["k"]
    assert isinstance(bar, dict)
    for ahead_ms, is_read in ((60_000, True), (60_001, False)):
        frame = json.dumps({**payload, "k": {**bar, "t": 1672515782136 + ahead_ms}})
        if is_read:
            _read("btcusdt@kline_1m", frame)
        else:
            with pytest.raises(Unreadable, match="future"):
                _read("btcusdt@kline_1m", frame)


@pytest.mark.parametrize("name", ["btcusdt@ticker", "btcusdt@miniTicker", "btcusdt@bookTicker", "btcusdt@markPrice@1s"])
def test_of_states_that_came_together_the_newest_is_a_fact(name: str) -> None:
    """By the exchange's own number, and the later of two that share it; a broken one gives way to the one before."""
    reader, complaints = reader_of(name, _VENUES.get(name, Venue.BINANCE)), list[Unreadable]()
    assert reader is not None
    number, price = ("u", "b") if name == "btcusdt@bookTicker" else ("E", "p" if "p" in PAYLOADS[name] else "c")
    rows = [(7, "1.0"), (9, "2.0"), (9, "3.0"), (8, "4.0"), (10, "NaN"), (2, "NaN")]
    texts = [
        f'{{"stream":"{name}","data":{json.dumps({**PAYLOADS[name], number: count, price: digits})}}}'.encode()
        for count, digits in rows
    ]
    (event,) = reader.read([*texts, b'{"stream":"%b","data":{}}' % name.encode()], 77, complaints.append)
    assert event == _event(name, {**PAYLOADS[name], number: 9, price: "3.0"})
    assert len(complaints) == 2
    (event,) = reader.read(texts[:1], 77, complaints.append)  # whether it is older is not this room's business
    assert event == _event(name, {**PAYLOADS[name], number: 7, price: "1.0"})


def test_a_number_that_is_as_it_was_is_not_read_again() -> None:
    """The event holds the same object; what has changed is read, whatever frames could not be in between."""
    reader, complaints = reader_of("btcusdt@trade"), list[Unreadable]()
    assert reader is not None
    rows = [("1.50", "2"), ("1.50", "3"), ("NaN", "3"), ("1.50", "x"), ("1.5", "3"), ("1.50", "3")]
    texts = [
        f'{{"stream":"btcusdt@trade","data":{json.dumps({**PAYLOADS["btcusdt@trade"], "p": p, "q": q})}}}'.encode()
        for p, q in rows
    ]
    trades = [event for event in reader.read(texts, 77, complaints.append) if isinstance(event, market.Trade)]
    assert [(str(trade.price), str(trade.quantity)) for trade in trades] == [rows[0], rows[1], rows[4], rows[5]]
    assert trades[0].price is trades[1].price
    assert trades[1].quantity is trades[2].quantity is trades[3].quantity
    assert len(complaints) == 2


@pytest.mark.parametrize(
    ("text", "is_number"),
    [
        ("0", True),
        ("-0.10", True),
        ("1e5", True),
        ("0" * 70 + "1", True),
        ("0" * 1_000 + "1", True),
        ("9" * 41, False),
        ("9" * 40, True),
        ("1e50", False),
        ("0E-60", False),
        ("1E+999999", False),
        ("NaN", False),
        ("-Infinity", False),
        ("²", False),
        ("1.2.3", False),
        ("", False),
        (" ", False),
    ],
)
def test_what_a_number_is(text: str, *, is_number: bool) -> None:
    """Bounded, and finite; the quick look and the long one agree."""
    payload = {**PAYLOADS["btcusdt@trade"], "p": text}
    if is_number:
        event = _event("btcusdt@trade", payload)
        assert isinstance(event, market.Trade)
        assert event.price == Decimal(text)
    else:
        with pytest.raises(Unreadable, match="is not a price or a quantity"):
            _event("btcusdt@trade", payload)


def test_a_change_of_an_order_book() -> None:
    """Levels keep their digits; one side may be empty, and what is no level is unreadable."""
    payload = {"e": "depthUpdate", "E": 7, "s": "BTCUSDT", "U": 157, "u": 160, "b": [["0.00240", "10.0"]], "a": []}
    update = _event("btcusdt@depth@100ms", payload)
    assert isinstance(update, market.DepthUpdate)
    assert (update.first, update.last, update.timestamp, update.asks) == (157, 160, 7, ())
    assert [(str(price), str(size)) for price, size in update.bids] == [("0.00240", "10.0")]
    for levels in ([["x", "1"]], [["1"]], [["1", "NaN"]]):
        with pytest.raises(Unreadable):
            _event("btcusdt@depth@100ms", payload | {"b": levels})


def _depth(bids: object, asks: object = ()) -> str:
    payload = {"e": "depthUpdate", "E": 7, "s": "BTCUSDT", "U": 157, "u": 160, "b": bids, "a": asks}
    return json.dumps(payload, separators=(",", ":"))


@pytest.mark.parametrize("more", [[[]], ["x", 1]])
def test_a_level_may_go_on_after_price_and_quantity(more: list[object]) -> None:
    """Some deployments still write an empty list there; the first two count."""
    update = _read("btcusdt@depth@100ms", _depth([["1.0", "2.0", *more], ["0.9", "0"]], [["1.1", "3.0", *more]]))
    assert isinstance(update, market.DepthUpdate)
    assert update.bids == ((Decimal("1.0"), Decimal("2.0")), (Decimal("0.9"), Decimal(0)))
    assert update.asks == ((Decimal("1.1"), Decimal("3.0")),)


@pytest.mark.parametrize(("levels", "is_read"), [(limits.DEPTH_CHANGES, True), (limits.DEPTH_CHANGES + 1, False)])
def test_the_changes_of_one_update_are_bounded(levels: int, *, is_read: bool) -> None:
    """On each side; the book learns that something is missing."""
    side = [[f"{61837 + place}.63000000", "3.78826000"] for place in range(levels)]
    for bids, asks in ((side, ()), ((), side), (side, side)):
        reader, complaints = reader_of("btcusdt@depth@100ms"), list[Unreadable]()
        assert reader is not None
        text = f'{{"stream":"btcusdt@depth@100ms","data":{_depth(bids, asks)}}}'.encode()
        assert len(reader.read([text], 0, complaints.append)) == is_read
        assert [error.stream for error in complaints] == ([] if is_read else [reader.stream])


def test_an_update_that_is_too_long_is_not_read_at_all() -> None:
    """Reading 200,000 levels took longer than everybody else may wait; the size alone decides."""
    text = _depth([["1.0", "2.0"]] * 200_000)
    with pytest.raises(Unreadable, match="bytes are more than") as caught:
        _read("btcusdt@depth@100ms", text)
    assert caught.value.stream == Stream(Kind.DEPTH, "BTCUSDT")


@pytest.mark.parametrize("key", ["p", "q"])
@pytest.mark.parametrize("text", ["9" * 1_000_000, "0." + "0" * 1_000_000 + "1", "x" * 1_000_000, "1." + "9" * 4000])
def test_a_number_of_a_million_digits_is_a_short_complaint(key: str, text: str) -> None:
    """It was a line of seven megabytes in the log."""
    with pytest.raises(Unreadable) as caught:
        _event("btcusdt@trade", PAYLOADS["btcusdt@trade"] | {key: text})
    assert len(str(caught.value)) < 120
    with pytest.raises(Unreadable) as caught:
        _read("btcusdt@depth@100ms", _depth([[text[:100_000], "1"]]))
    assert len(str(caught.value)) < 120


def test_the_words_of_a_refusal_are_cut() -> None:
    """And a code that is no code is not one."""
    code, words = read_error(read_frame(json.dumps({"error": {"code": 2, "msg": "x" * 10_000}, "id": 1})))
    assert code == 2
    assert len(words) < 250
    with pytest.raises(Unreadable):
        read_frame('{"code":1' + "0" * 4000 + ',"msg":"x","id":1}')


def test_a_list_of_subscriptions_is_bounded() -> None:
    """No connection holds so many."""
    names = [f"s{number}usdt@trade" for number in range(limits.LIST_NAMES + 1)]
    assert read_list(read_frame(json.dumps({"result": names[:-1], "id": 1}))) == names[:-1]
    assert read_list(read_frame(json.dumps({"result": names, "id": 1}))) is None
    assert read_list(read_frame(json.dumps({"result": ["x" * limits.LIST_BYTES], "id": 1}))) is None
