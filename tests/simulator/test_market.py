"""One tape drives every stream: what they say agrees."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from komas.simulator.book import Book
from komas.simulator.candles import MINUTE_MS, WIDTH_MS, Trade
from komas.simulator.fixed_point import UNIT, parsed, written
from komas.simulator.market import Market
from komas.simulator.options import SimOptions
from komas.simulator.player import SyntheticPlayer
from komas.simulator.streams import Stream, understood
from komas.simulator.symbol_state import Pair

START_MS = 1_767_225_600_000  # midnight


def heard(player: SyntheticPlayer, seconds: float) -> dict[str, list[Any]]:
    """Everything that is said in so many seconds, by stream."""
    found: dict[str, list[Any]] = {}
    until_ms = player.market.now_ms + seconds * 1000
    while player.due_ms() + player.start_ms < until_ms:
        for event in player.step():
            found.setdefault(event.stream, []).append(json.loads(event.payload))
    return found


def wanting(*names: str, start_ms: int = START_MS) -> SyntheticPlayer:
    """A market in which somebody listens."""
    player = SyntheticPlayer(SimOptions().symbols, 1, start_ms)
    for name in names:
        player.market.want(name)
    return player


def test_aggregates_partition_the_trades() -> None:
    """Every trade is in one aggregate, quantities add up, ids have no gap."""
    found = heard(wanting("btcusdt@trade", "btcusdt@aggTrade"), 30)
    trades = {trade["t"]: trade for trade in found["btcusdt@trade"]}
    rows = found["btcusdt@aggTrade"]
    assert all(later["a"] == earlier["a"] + 1 and later["f"] == earlier["l"] + 1 for earlier, later in pairwise(rows))
    for row in rows[1:]:
        parts = [trades[number] for number in range(row["f"], row["l"] + 1)]
        assert written(sum(parsed(part["q"]) for part in parts)) == row["q"]
        assert {(part["p"], part["T"], part["m"]) for part in parts} == {(row["p"], row["T"], row["m"])}
        assert row["E"] >= row["T"]


def test_closed_candles_agree_with_the_trades() -> None:
    """A closing message for every minute, traded or not, 4 ms late; updates between, none in vain."""
    names = ("btcusdt@trade", "btcusdt@kline_1m", "bifiusdt@trade", "bifiusdt@kline_1m")
    found = heard(wanting(*names), 301)
    for symbol in ("btcusdt", "bifiusdt"):
        trades = found.get(f"{symbol}@trade", [])
        messages = found[f"{symbol}@kline_1m"]
        closed = [message for message in messages if message["k"]["x"]]
        assert [message["k"]["t"] for message in closed] == [START_MS + n * MINUTE_MS for n in range(5)]
        assert {message["E"] - message["k"]["T"] for message in closed} == {5}
        for message in closed[1:]:
            agrees(message["k"], trades)
        times = [message["E"] for message in messages if not message["k"]["x"]]
        assert all(later - earlier >= 2000 for earlier, later in pairwise(times))
    flat = [message["k"] for message in found["bifiusdt@kline_1m"] if message["k"]["x"] and not message["k"]["n"]]
    assert flat
    assert all((k["f"], k["L"], k["v"], k["o"]) == (-1, -1, "0.00000000", k["c"]) for k in flat)


def agrees(candle: dict[str, Any], trades: list[Any]) -> None:
    """The candle is what its trades make of it."""
    inside = [trade for trade in trades if candle["t"] <= trade["T"] <= candle["T"]]
    assert candle["n"] == len(inside)
    if inside:
        prices = [parsed(trade["p"]) for trade in inside]
        assert (candle["f"], candle["L"]) == (inside[0]["t"], inside[-1]["t"])
        shown = [parsed(candle[key]) for key in ("o", "c", "h", "l")]
        assert shown == [prices[0], prices[-1], max(prices), min(prices)]
        assert parsed(candle["v"]) == sum(parsed(trade["q"]) for trade in inside)


def test_the_first_update_of_a_candle_comes_after_2700_ms() -> None:
    """Even where nothing has traded."""
    found = heard(wanting("bifiusdt@kline_1m", start_ms=START_MS + 59_000), 130)
    opened = [message for message in found["bifiusdt@kline_1m"] if not message["k"]["x"]]
    assert [message["E"] - message["k"]["t"] for message in opened if message["k"]["n"] == 0][:2] == [2700, 2700]


@pytest.mark.parametrize("interval", sorted(WIDTH_MS))
def test_every_interval_closes_at_its_boundary(interval: str) -> None:
    """All of them at the end of a month that is a Monday's eve, in one burst."""
    monday = 1_769_904_000_000 - MINUTE_MS  # 2026-01-31T23:59, the month's last minute
    player = wanting(f"btcusdt@kline_{interval}", start_ms=monday)
    closed = [m for m in heard(player, 61)[f"btcusdt@kline_{interval}"] if m["k"]["x"]]
    ends = interval not in {"1w", "3d"}
    assert bool(closed) is ends
    if ends:
        assert closed[-1]["k"]["T"] == 1_769_904_000_000 - 1
        assert closed[-1]["k"]["i"] == interval


def test_candles_in_utc8() -> None:
    """A day closes at 16:00 UTC; the payload does not say why."""
    name = "btcusdt@kline_1d@+08:00"
    found = heard(wanting(name, start_ms=START_MS + 16 * 3_600_000 - 5_000), 10)
    [closed] = [message for message in found[name] if message["k"]["x"]]
    assert closed["k"]["T"] == START_MS + 16 * 3_600_000 - 1
    assert closed["k"]["i"] == "1d"


def test_tickers_come_once_a_second_and_only_on_change() -> None:
    """A busy symbol each second, a quiet one when it traded; arrays hold only what changed."""
    names = ("btcusdt@ticker", "bifiusdt@miniTicker", "!miniTicker@arr", "bifiusdt@trade", "btcusdt@ticker_1h")
    found = heard(wanting(*names), 120)
    tickers = found["btcusdt@ticker"]
    assert 110 < len(tickers) <= 120
    assert all(ticker["C"] - ticker["O"] == 86_400_000 for ticker in tickers)
    assert all(later["n"] > earlier["n"] or later["E"] > earlier["E"] for earlier, later in pairwise(tickers))
    quiet = {trade["T"] // 1000 for trade in found.get("bifiusdt@trade", [])}
    assert len(found.get("bifiusdt@miniTicker", [])) == len(quiet)
    assert {row["s"] for rows in found["!miniTicker@arr"] for row in rows} >= {"BTCUSDT", "币安人生USDT"}
    assert min(map(len, found["!miniTicker@arr"])) < max(map(len, found["!miniTicker@arr"]))
    assert all(ticker["O"] % MINUTE_MS == 0 for ticker in found["btcusdt@ticker_1h"])


def test_a_ticker_is_what_its_window_holds() -> None:
    """Change, percent, mean and counts agree with each other and with the last trade."""
    found = heard(wanting("btcusdt@ticker", "btcusdt@trade"), 20)
    ticker = found["btcusdt@ticker"][-1]
    last = [trade for trade in found["btcusdt@trade"] if trade["T"] <= ticker["C"]][-1]
    assert (ticker["c"], ticker["Q"], ticker["L"]) == (last["p"], last["q"], last["t"])
    assert parsed(ticker["p"]) == parsed(ticker["c"]) - parsed(ticker["o"])
    assert float(ticker["P"]) == pytest.approx(100 * float(ticker["p"]) / float(ticker["o"]), abs=0.001)
    assert len(ticker["P"].partition(".")[2]) == 3
    assert ticker["L"] - ticker["F"] + 1 == ticker["n"]
    assert float(ticker["l"]) <= float(ticker["w"]) <= float(ticker["h"])


def test_depth_and_best_price_are_one_book() -> None:
    """Diffs join; what they build is the partial depth and the top."""
    names = ("ethusdt@depth@100ms", "ethusdt@depth20@100ms", "ethusdt@bookTicker", "ethusdt@depth", "ethusdt@depth5")
    player = wanting(*names)
    player.market.advance(player.market.now_ms + 1000)  # the first diffs hold all that happened before
    book = Book()
    pair = player.market.pairs["ETHUSDT"]
    book.replace(pair.book.update_id, pair.book.bids.items(), pair.book.asks.items())
    found = heard(player, 20)
    diffs = found["ethusdt@depth@100ms"]
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(diffs))
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(found["ethusdt@depth"]))
    tickers = found["ethusdt@bookTicker"]
    assert all(later["u"] > earlier["u"] for earlier, later in pairwise(tickers))
    assert all({**later, "u": 0} != {**earlier, "u": 0} for earlier, later in pairwise(tickers))
    assert set(tickers[0]) == {"u", "s", "b", "B", "a", "A"}
    partial = found["ethusdt@depth20@100ms"]
    assert set(partial[0]) == {"lastUpdateId", "bids", "asks"}
    assert partial[-1]["lastUpdateId"] == diffs[-1]["u"]
    assert len(partial[-1]["bids"]) == len(partial[-1]["asks"]) == 20


def test_averages_references_and_blocks() -> None:
    """The rarer streams have their shapes."""
    player = wanting("btcusdt@avgPrice", "btcusdt@referencePrice", "btcusdt@blockTrade")
    found = heard(player, 5)
    assert set(found["btcusdt@avgPrice"][0]) == {"e", "E", "s", "i", "w", "T"}
    assert set(found["btcusdt@referencePrice"][0]) == {"e", "s", "r", "t"}
    pair = player.market.pairs["BTCUSDT"]
    [event] = player.market.block(pair, pair.trades[-1])
    assert set(json.loads(event.payload)) == {"e", "E", "s", "t", "p", "q", "T", "m"}


def test_what_nobody_wants_is_not_said() -> None:
    """Nor what is unknown, nor what comes from a capture."""
    player = wanting("nope@trade", "BTCUSDT@trade", "!ticker@arr", "btcusdt@kline_7m")
    assert heard(player, 5) == {}
    market = Market([Pair("BTCUSDT", Book())], START_MS, frozenset({"btcusdt@trade"}))
    market.want("btcusdt@trade")
    assert market.wanted == {}


def test_unwanting_ends_a_stream() -> None:
    """And wanting it again begins where the market is."""
    player = wanting("btcusdt@kline_1m", "btcusdt@ticker")
    assert len(heard(player, 10)) == 2
    player.market.unwant("btcusdt@kline_1m")
    player.market.unwant("btcusdt@ticker")
    player.market.unwant("never@wanted")
    assert heard(player, 10) == {}
    player.market.want("btcusdt@kline_1m")
    candle = heard(player, 10)["btcusdt@kline_1m"][-1]["k"]
    trades = [trade for trade in player.market.pairs["BTCUSDT"].trades if trade.time_ms >= candle["t"]]
    assert candle["f"] == trades[0].id


def test_a_trade_past_the_boundary_does_not_wait_for_the_wheel() -> None:
    """The bar that it opens is its own; the old one is closed without it."""
    market = Market([Pair("BTCUSDT", Book())], START_MS)
    market.want("btcusdt@kline_1m")
    pair = market.pairs["BTCUSDT"]
    market.trade(pair, Trade(1, UNIT, UNIT, START_MS + 59_999, buyer_is_maker=True), START_MS + 60_000)
    market.trade(pair, Trade(2, 2 * UNIT, UNIT, START_MS + 60_001, buyer_is_maker=True), START_MS + 60_002)
    [closing] = [json.loads(event.payload)["k"] for event in market.advance(START_MS + 60_200)]
    assert (closing["f"], closing["L"], closing["x"]) == (1, 1, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("btcusdt@trade", Stream("btcusdt@trade", "trade", "BTCUSDT")),
        ("币安人生usdt@aggTrade", Stream("币安人生usdt@aggTrade", "aggTrade", "币安人生USDT")),
        ("a@kline_1M", Stream("a@kline_1M", "kline", "A", "1M")),
        ("a@kline_1h@+08:00", Stream("a@kline_1h@+08:00", "kline", "A", "1h", 28_800_000)),
        ("a@depth", Stream("a@depth", "depth", "A")),
        ("a@depth20@100ms", Stream("a@depth20@100ms", "depth", "A", levels=20, fast=True)),
        ("a@ticker_4h", Stream("a@ticker_4h", "rolling", "A", "4h")),
        ("!miniTicker@arr", Stream("!miniTicker@arr", "miniTicker")),
        ("!ticker_1d@arr", Stream("!ticker_1d@arr", "rolling", interval="1d")),
        ("!ticker@arr", None),
        ("!bookTicker", None),
        ("A@trade", None),
        ("a@Trade", None),
        ("a@kline_7m", None),
        ("a@kline_1m@+09:00", None),
        ("a@depth7", None),
        ("trade", None),
        ("@trade", None),
        ("", None),
    ],
)
def test_stream_names(name: str, expected: Stream | None) -> None:
    """What is understood, and what is not."""
    assert understood(name) == expected


def test_mark_prices_come_each_second_traded_or_not() -> None:
    """The slow form each third; funding is due at the next of 00, 08 and 16 h, and its rate is a fraction."""
    found = heard(wanting("bifiusdt@markPrice@1s", "btcusdt@markPrice"), 30)
    fast, slow = found["bifiusdt@markPrice@1s"], found["btcusdt@markPrice"]
    assert 28 <= len(fast) <= 30
    assert {later["E"] - earlier["E"] for earlier, later in pairwise(fast)} == {1000}
    assert {later["E"] - earlier["E"] for earlier, later in pairwise(slow)} == {3000}
    for row in (*fast, *slow):
        assert row["T"] == START_MS + 8 * 3_600_000
        assert abs(parsed(row["r"])) < UNIT // 100
        assert abs(parsed(row["p"]) - parsed(row["i"])) < parsed(row["i"]) // 10
