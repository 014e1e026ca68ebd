"""Captures: read whole, played byte for byte, and played again."""

from __future__ import annotations

import gzip
import json
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from komas.errors import CallerError
from komas.simulator.player import ReplayPlayer
from komas.simulator.replay import Capture, Line, event_ms, payload, read_captures
from komas.simulator.request_params import Call
from komas.simulator.rest import PREFIX, answered

CAPTURE = Path(__file__).parents[2].parent / "shared" / "captures" / "btcusdt_20240808.gz"
needs_capture = pytest.mark.skipif(not CAPTURE.exists(), reason=f"the capture {CAPTURE} is not here")

T0 = 1_723_161_255_000
TRADES = [
    {"e": "trade", "E": T0 + n, "s": "BTCUSDT", "t": 10 + n, "p": "100.5", "q": "2.0", "T": T0 + n, "m": n % 2 == 0}
    for n in range(4)
]


def text(ns: int, stream: str, data: object) -> bytes:
    """A captured line."""
    frame = json.dumps({"stream": stream, "data": data} if stream else data, separators=(",", ":"))
    return f"{ns} {frame}\n".encode()


def written(path: Path, *lines: bytes) -> Path:
    """A capture file."""
    path.write_bytes(gzip.compress(b"".join(lines)))
    return path


def small(tmp_path: Path) -> Path:
    """Four trades, a snapshot and two diffs that overlap it."""
    diffs = [
        {
            "e": "depthUpdate",
            "E": T0,
            "s": "BTCUSDT",
            "U": 1,
            "u": 6,
            "b": [["100.0", "0.0"], ["99.0", "3.0"]],
            "a": [],
        },
        {"e": "depthUpdate", "E": T0 + 3, "s": "BTCUSDT", "U": 7, "u": 9, "b": [], "a": [["101.0", "4.5"]]},
    ]
    snapshot = {"lastUpdateId": 4, "bids": [["100.0", "1.0"]], "asks": [["101.0", "1.0"]]}
    return written(
        tmp_path / "small.gz",
        text(1_000_000, "btcusdt@depth@100ms", diffs[0]),
        text(2_000_000, "", snapshot),
        *(text(3_000_000 + n, "btcusdt@trade", trade) for n, trade in enumerate(TRADES)),
        text(4_000_000, "btcusdt@depth@100ms", diffs[1]),
    )


def played(player: ReplayPlayer) -> dict[str, list[Any]]:
    """Everything that a player plays, by stream."""
    found: dict[str, list[Any]] = {}
    while player.due_ms() is not None:
        for event in player.step():
            found.setdefault(event.stream, []).append(json.loads(event.payload))
    return found


def test_reading_a_long_capture_is_told(tmp_path: Path) -> None:
    """How many lines of how many."""
    told: list[tuple[str, float, float]] = []
    line = text(
        5, "btcusdt@trade", {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": 1, "m": True}
    )
    read_captures([written(tmp_path / "long.gz", *[line] * 25_000)], lambda *each: told.append(each))
    assert told == [("reading long.gz", 10_000, 25_000), ("reading long.gz", 20_000, 25_000)]


def test_playing_a_capture_is_told(tmp_path: Path) -> None:
    """Again from the beginning with each pass."""
    told: list[float] = []
    capture = read_captures([small(tmp_path)])
    player = ReplayPlayer(capture, loop=True, report=lambda _what, done, total: told.append(done / total))
    for _ in range(2 * len(capture.one_pass)):
        player.step()
    assert all(0 <= share < 1 for share in told)
    assert sum(later < earlier for earlier, later in pairwise(told)) == 2


def test_plays_captured_frames_and_derives_the_others(tmp_path: Path) -> None:
    """Trades go out as they came; aggregates of the same tape are derived from them."""
    player = ReplayPlayer(read_captures([small(tmp_path)]), loop=False)
    for name in ("btcusdt@trade", "btcusdt@aggTrade"):
        player.market.want(name)
    found = played(player)
    assert found["btcusdt@trade"] == TRADES
    assert [(row["f"], row["l"]) for row in found["btcusdt@aggTrade"]] == [(10, 10), (11, 11), (12, 12), (13, 13)]
    assert [trade.id for trade in player.market.pairs["BTCUSDT"].trades] == [10, 11, 12, 13]


def test_the_book_follows_snapshot_and_diffs(tmp_path: Path) -> None:
    """A diff that arrived before the snapshot but is newer than it counts."""
    player = ReplayPlayer(read_captures([small(tmp_path)]), loop=False)
    played(player)
    book = player.market.pairs["BTCUSDT"].book
    assert book.update_id == 9
    assert book.best(5) == ([(99 * 10**8, 3 * 10**8)], [(101 * 10**8, 450_000_000)])


def test_the_book_is_whole_from_the_beginning(tmp_path: Path) -> None:
    """Before the capture's own snapshot REST gave the levels that had changed: a best ask that was not the best.

    In each pass of a loop: its first snapshot is there before its first frame.
    """
    diff = {"e": "depthUpdate", "E": T0, "s": "BTCUSDT", "U": 1, "u": 3, "b": [], "a": [["103.0", "1.0"]]}
    first = {"lastUpdateId": 4, "bids": [["100.0", "1.0"]], "asks": [["101.0", "1.0"]]}
    second = {"lastUpdateId": 5, "bids": [["100.0", "1.0"]], "asks": [["102.0", "1.0"]]}
    path = written(
        tmp_path / "early.gz",
        text(1_000_000, "btcusdt@depth@100ms", diff),
        text(2_000_000, "btcusdt@trade", TRADES[0]),
        text(3_000_000, "", first),
        text(4_000_000, "", second),
    )
    player = ReplayPlayer(read_captures([path]), loop=True)
    seen = []
    for _ in range(2 * len(player.capture.one_pass)):
        answer = json.loads(answered(f"{PREFIX}depth", Call(player.market, {"symbol": "BTCUSDT"}, T0)).body)
        seen.append((answer["lastUpdateId"], [price for price, _ in answer["asks"]]))
        player.step()
    once = [(4, ["101.00000000"])] * 4 + [(5, ["102.00000000"])]
    again = [(9, ["101.00000000"])] * 4 + [(10, ["102.00000000"])]
    assert seen == once + again


@pytest.mark.parametrize("has_quotes", [True, False])
def test_the_best_prices_are_there_from_the_beginning(tmp_path: Path, has_quotes: bool) -> None:  # noqa: FBT001 - a table
    """REST gave zeros until the first quote, and for ever where none was captured."""
    snapshot = {"lastUpdateId": 4, "bids": [["100.0", "1.0"]], "asks": [["101.0", "1.0"]]}
    quote = {"u": 5, "s": "BTCUSDT", "b": "100.5", "B": "1.0", "a": "100.75", "A": "1.0"}
    diff = {"e": "depthUpdate", "E": T0, "s": "BTCUSDT", "U": 5, "u": 6, "b": [], "a": [["100.75", "1.0"]]}
    news = text(2, "btcusdt@bookTicker", quote) if has_quotes else text(2, "btcusdt@depth@100ms", diff)
    player = ReplayPlayer(read_captures([written(tmp_path / "quotes.gz", news, text(3, "", snapshot))]), loop=False)

    def best_ask() -> str:
        answer = answered(f"{PREFIX}ticker/bookTicker", Call(player.market, {"symbol": "BTCUSDT"}, T0))
        return str(json.loads(answer.body)["askPrice"])

    assert best_ask() == "101.00000000"
    played(player)
    assert best_ask() == "100.75000000"


def test_a_book_without_a_snapshot_is_not_there(tmp_path: Path) -> None:
    """Its changes alone are no book; whoever asks is told to come later."""
    diff = {"e": "depthUpdate", "E": T0, "s": "BTCUSDT", "U": 1, "u": 3, "b": [], "a": [["103.0", "1.0"]]}
    path = written(tmp_path / "none.gz", text(1, "btcusdt@depth@100ms", diff))
    player = ReplayPlayer(read_captures([path]), loop=False)
    played(player)
    answer = answered(f"{PREFIX}depth", Call(player.market, {"symbol": "BTCUSDT"}, T0))
    assert (answer.status, json.loads(answer.body)["code"]) == (503, -1008)


def test_other_depth_streams_are_derived_from_the_captured_book(tmp_path: Path) -> None:
    """A capture of diffs at 100 ms also serves those at a second, and the best levels."""
    later = {"e": "depthUpdate", "E": T0 + 5000, "s": "BTCUSDT", "U": 10, "u": 12, "b": [["98.0", "1.0"]], "a": []}
    path = small(tmp_path)
    capture = read_captures([path, written(tmp_path / "later.gz", text(9_000_000, "btcusdt@depth@100ms", later))])
    player = ReplayPlayer(capture, loop=False)
    for name in ("btcusdt@depth", "btcusdt@depth5", "btcusdt@depth5@100ms"):
        player.market.want(name)
    found = played(player)
    assert found["btcusdt@depth5"][-1]["bids"] == [["99.00000000", "3.00000000"]]
    assert [diff["u"] for diff in found["btcusdt@depth"]] == [9]
    assert found["btcusdt@depth5@100ms"]


def test_a_second_pass_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    """Ids and times of a looped capture never fall back, and trade ids have no gap."""
    capture = read_captures([small(tmp_path)])
    lines = list(islice(capture.passes(loop=True), 3 * len(capture.one_pass)))
    trades = [json.loads(payload(line)) for line in lines if line.stream == "btcusdt@trade"]
    assert [trade["t"] for trade in trades] == list(range(10, 22))
    assert [trade["T"] for trade in trades] == sorted(trade["T"] for trade in trades)
    diffs = [json.loads(payload(line)) for line in lines if line.stream.endswith("@depth@100ms")]
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(diffs))
    assert [line.ns for line in lines] == sorted(line.ns for line in lines)


def test_a_pass_moves_candle_times_and_trade_ids_apart(tmp_path: Path) -> None:
    """``t`` is a time in a candle and an id in a trade."""
    candle = {"e": "kline", "E": T0, "s": "BTCUSDT", "k": {"t": T0, "T": T0 + 59_999, "f": 7, "L": 9, "o": "1.0"}}
    capture = read_captures([written(tmp_path / "k.gz", text(5, "btcusdt@kline_1m", candle))])
    again = json.loads(payload(list(islice(capture.passes(loop=True), 2))[1]))
    assert again["k"] == {"t": T0 + 1000, "T": T0 + 60_999, "f": 10, "L": 12, "o": "1.0"}


def test_several_captures_are_merged_by_time(tmp_path: Path) -> None:
    """Frames of two files come in the order in which they were received."""
    one = written(tmp_path / "one.gz", text(1, "btcusdt@trade", TRADES[0]), text(5, "btcusdt@trade", TRADES[1]))
    two = written(tmp_path / "two.gz", text(3, "ethusdt@trade", TRADES[0] | {"s": "ETHUSDT"}))
    capture = read_captures([one, two])
    assert [line.symbol for line in capture.lines] == ["BTCUSDT", "ETHUSDT", "BTCUSDT"]
    assert capture.symbols == ("BTCUSDT", "ETHUSDT")


def test_reads_plain_files_too(tmp_path: Path) -> None:
    """A capture need not be compressed."""
    path = tmp_path / "plain"
    path.write_bytes(text(1, "btcusdt@trade", TRADES[0]))
    assert len(read_captures([path]).lines) == 1


def test_a_frame_that_cannot_be_understood_is_played_all_the_same(tmp_path: Path) -> None:
    """Bytes are the capture's business; the derived state just does not learn from them."""
    path = written(tmp_path / "odd.gz", text(1, "btcusdt@trade", {"e": "trade", "t": "what"}))
    player = ReplayPlayer(read_captures([path]), loop=False)
    assert played(player)["btcusdt@trade"] == [{"e": "trade", "t": "what"}]
    assert player.market.pairs["BTCUSDT"].trades == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no stream frames"),
        (b"1 {}\n", "no stream frames"),
        (b"hello world\n", "line 1"),
        (b'1 {"stream":"a@trade","data":{}}\n2 {"stream":"a@tr', "line 2"),
        (gzip.compress(b"1 {}")[:-9], "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """The error names the file, and what is wrong in it."""
    path = tmp_path / "wrong.gz"
    path.write_bytes(content)
    with pytest.raises(CallerError, match=words) as caught:
        read_captures([path])
    assert str(path) in str(caught.value)
    assert caught.value.field == "replay"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So is one that is not there."""
    with pytest.raises(CallerError, match=r"nowhere\.gz cannot be read"):
        read_captures([tmp_path / "nowhere.gz"])


def test_event_times() -> None:
    """Spot book tickers have none."""
    assert event_ms(Line(1, "A", "a@trade", b'{"E":5}')) == 5
    assert event_ms(Line(1, "A", "a@bookTicker", b'{"u":5}')) == 0
    assert Capture([Line(7_000_000, "A", "a@bookTicker", b'{"u":5}')]).first_ms == 7


@needs_capture
def test_the_capture_is_played_byte_for_byte() -> None:
    """Every frame, once, in order, with its own wrapper; candles agree with the trades."""
    raw = [line.split(b" ", 1)[1] for line in gzip.decompress(CAPTURE.read_bytes()).splitlines()]
    player = ReplayPlayer(read_captures([CAPTURE]), loop=False)
    player.market.want("btcusdt@kline_1m")
    sent: list[bytes] = []
    candles: list[dict[str, dict[str, int]]] = []
    while player.due_ms() is not None:
        for event in player.step():
            if event.stream in player.capture.streams:
                sent.append(b'{"stream":"%b","data":%b}' % (event.stream.encode(), event.payload))
            else:
                candles.append(json.loads(event.payload))
    assert sent == [frame for frame in raw if frame.startswith(b'{"stream"')]
    closed = [candle["k"] for candle in candles if candle["k"]["x"]]
    ids = [trade.id for trade in player.market.pairs["BTCUSDT"].trades]
    assert ids == list(range(ids[0], ids[0] + 9757))
    assert closed[0]["f"] == ids[0]
    assert all(later["f"] == earlier["L"] + 1 for earlier, later in pairwise(closed))
    assert len(closed) == 6
