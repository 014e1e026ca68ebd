"""Captures: lines of ``<local receive time, ns> <raw JSON frame>``, played back byte for byte.

The tape inside a capture (its trades and its book) also drives what was not captured. A capture that is played again
goes on where it ended: ids and times move on by a whole pass, so that they keep rising.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from komas.errors import CallerError
from komas.simulator.book import Diff, Top
from komas.simulator.candles import Trade
from komas.simulator.fixed_point import parsed

PREFIX = b'{"stream":"'
DATA = b'","data":'
GZIP_MAGIC = b"\x1f\x8b"
NS_PER_MS = 1_000_000
SECOND_MS = 1_000
NUMBERS = re.compile(rb'"(t|a|f|l|F|L|u|U|lastUpdateId|E|T|O|C)":(\d+)')
TIME_KEYS = frozenset({b"E", b"T", b"O", b"C"})
BOOK_KEYS = frozenset({b"u", b"U", b"lastUpdateId"})
FIRST_TIME = 10**12  # `t` from here on is a time in ms (a candle's); ids of trades are below (6.7e9 in 2026)


# Told how long work goes on: what is done, how much of it, and of how much.
Report: TypeAlias = Callable[[str, float, float], None]
LINES_OF_A_REPORT = 10_000


def silent(_what: str, _done: float, _total: float) -> None:
    """Nobody is told."""


class Line(NamedTuple):
    """One captured frame: when it was received, its stream (empty for a REST answer), and the bytes as they came."""

    ns: int
    symbol: str
    stream: str
    raw: bytes


class TradeText(msgspec.Struct):
    """``{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",...}``."""

    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool

    def fact(self) -> Trade:
        """The trade that the text tells of."""
        return Trade(self.t, parsed(self.p), parsed(self.q), self.T, self.m)


class DepthText(msgspec.Struct):
    """``{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":1,"u":2,"b":[["1.0","2.0"]],"a":[]}``."""

    E: int
    s: str
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]

    def diff(self) -> Diff:
        """The change that the text tells of."""
        return Diff(self.U, self.u, levels(self.b), levels(self.a))


class TopText(msgspec.Struct):
    """``{"u":50093239212,"s":"BTCUSDT","b":"61837.63","B":"3.78","a":"61837.64","A":"1.54"}``."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str

    def top(self) -> Top:
        """The best levels that the text tells of."""
        return Top(parsed(self.b), parsed(self.B), parsed(self.a), parsed(self.A))


class SnapshotText(msgspec.Struct):
    """``{"lastUpdateId":50093239218,"bids":[["61837.63","3.78"]],"asks":[]}``."""

    lastUpdateId: int  # noqa: N815  # the exchange's key
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


TRADE = msgspec.json.Decoder(TradeText)
DEPTH = msgspec.json.Decoder(DepthText)
TOP = msgspec.json.Decoder(TopText)
SNAPSHOT = msgspec.json.Decoder(SnapshotText)


EVENT_TIME = re.compile(rb'"E":(\d+)')


def levels(texts: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """Price levels, in 1e-8."""
    return [(parsed(price), parsed(quantity)) for price, quantity in texts]


def payload(line: Line) -> bytes:
    """The frame without its wrapper."""
    if not line.stream:
        return line.raw
    return line.raw[line.raw.index(DATA) + len(DATA) : -1]


class Capture:
    """One or more captures, in the order in which their frames were received.

    Each pass begins with the first snapshot of every book that has one: what came before it is older, and changes
    nothing. Without, whoever asks early would be given the few levels that had changed since the beginning.
    """

    def __init__(self, lines: list[Line]) -> None:
        snapshots = {line.symbol: line._replace(ns=lines[0].ns) for line in reversed(lines) if not line.stream}
        self.with_book = frozenset(snapshots)
        self.lines = lines
        self.one_pass = [*snapshots.values(), *lines]
        self.streams = frozenset(line.stream for line in lines if line.stream)
        self.symbols = tuple(dict.fromkeys(line.symbol for line in lines))
        self.first_ms, self.last_ms = _event_span(lines)
        self.span_ms = (self.last_ms - self.first_ms) // SECOND_MS * SECOND_MS + SECOND_MS
        self.span_ns = self.span_ms * NS_PER_MS
        self._spans: dict[tuple[str, str], int] = {}

    def passes(self, *, loop: bool) -> Iterator[Line]:
        """Every line once; with ``loop`` for ever, ids and times rising from pass to pass."""
        yield from self.one_pass
        if not loop:
            return
        self._spans = _id_spans(self.lines)
        done = 1
        while True:
            for line in self.one_pass:
                yield self._moved(line, done)
            done += 1

    def _moved(self, line: Line, passes: int) -> Line:
        def later(found: re.Match[bytes]) -> bytes:
            kind = _kind(found[1], int(found[2]), line.stream)
            span = self.span_ms if kind == "time" else self._spans[line.symbol, kind]
            return b'"%b":%d' % (found[1], int(found[2]) + passes * span)

        return Line(line.ns + passes * self.span_ns, line.symbol, line.stream, NUMBERS.sub(later, line.raw))


def read_captures(paths: Iterable[Path], report: Report = silent) -> Capture:
    """Read whole files, gzip or plain; ``CallerError`` names the file, and the line where one is at fault."""
    files = [_read(path, report) for path in paths]
    return Capture(list(merge(*files, key=lambda line: line.ns)))


def _read(path: Path, report: Report) -> list[Line]:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as fault:
        raise CallerError(f"replay: {path} cannot be read: {fault}", field="replay") from fault
    texts = content.splitlines()
    lines = []
    for number, text in enumerate(texts, 1):
        if text.strip():
            lines.append(_line(path, number, text))
        if not number % LINES_OF_A_REPORT:
            report(f"reading {path.name}", number, len(texts))
    symbol = next((line.symbol for line in lines if line.stream), "")
    if not symbol:
        raise CallerError(f"replay: {path} holds no stream frames", field="replay")
    return [line if line.stream else line._replace(symbol=symbol) for line in lines]


def _line(path: Path, number: int, text: bytes) -> Line:
    ns, _, raw = text.partition(b" ")
    raw = raw.strip()
    if not ns.isdigit() or not raw.startswith(b"{") or not raw.endswith(b"}"):
        raise CallerError(
            f"replay: {path} line {number} is {text[:60]!r}, accepted is '<nanoseconds> <JSON frame>'", field="replay"
        )
    if not raw.startswith(PREFIX) or DATA not in raw:
        return Line(int(ns), "", "", raw)
    stream = raw[len(PREFIX) : raw.index(b'"', len(PREFIX))].decode(errors="replace")
    return Line(int(ns), stream.partition("@")[0].upper(), stream, raw)


def _event_span(lines: list[Line]) -> tuple[int, int]:
    """First and last event time; by the time of receipt where no frame carries one."""
    times = [event_ms(line) for line in lines]
    known = [time_ms for time_ms in times if time_ms]
    if not known:
        return lines[0].ns // NS_PER_MS, lines[-1].ns // NS_PER_MS
    return known[0], max(known)


def event_ms(line: Line) -> int:
    """The event time of a frame, 0 where it has none."""
    place = line.raw.find(b'"E":')
    found = EVENT_TIME.match(line.raw, place) if place >= 0 else None
    return int(found[1]) if found else 0


def _kind(key: bytes, number: int, stream: str) -> str:
    """What a number of a frame counts: time, updates of the book, aggregates or trades."""
    if key in TIME_KEYS or (key == b"t" and number >= FIRST_TIME):
        return "time"
    if key in BOOK_KEYS:
        return "book"
    return "aggregate" if key == b"a" else "block" if stream.endswith("@blockTrade") else "trade"


def _id_spans(lines: list[Line]) -> dict[tuple[str, str], int]:
    """How far the ids of each kind go in one pass."""
    bounds: dict[tuple[str, str], tuple[int, int]] = {}
    for line in lines:
        for key, digits in NUMBERS.findall(line.raw):
            number = int(digits)
            kind = line.symbol, _kind(key, number, line.stream)
            low, high = bounds.get(kind, (number, number))
            bounds[kind] = min(low, number), max(high, number)
    return {kind: high - low + 1 for kind, (low, high) in bounds.items()}
