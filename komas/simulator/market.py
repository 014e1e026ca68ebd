"""The market: what happens goes in, events for the wanted streams come out, in the order of market time.

Real-time streams answer what happened; the others hang on a wheel with a slot for every 100 ms of market time:

====================  ==========================================================================================
every slot            ``depth@100ms`` and partial depth at that speed
each full second      candles that ended are closed (4 ms late), then ``1s`` candles, tickers, averages, slow depth,
                      and the futures' mark prices, changed or not (each third second where no speed is named)
even seconds + 700 ms  updates of open candles that changed, and the first update of a new one, 2.7 s after its start
====================  ==========================================================================================

Nothing is sent on subscribing: a quiet symbol's first ticker comes when it trades.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from komas.simulator import payloads
from komas.simulator.book import Diff
from komas.simulator.candles import DAY_MS, MINUTE_MS, Bar, Trade, ending, flat
from komas.simulator.payloads import Aggregate
from komas.simulator.streams import ROLLING_MS, Stream, understood
from komas.simulator.symbol_state import Pair

SLOT_MS = 100
LATE_MS = 4  # closed bars arrived 4 to 5 ms after their boundary (capture, 2023)
SECOND_SLOTS = 10
MARK_SLOTS = 30
KLINE_SLOTS, KLINE_SLOT = 20, 7  # every two seconds, so that a minute's first update comes 2.7 s after its start
AVERAGE_MS = 5 * MINUTE_MS


class Event(NamedTuple):
    """The stream's name and the payload, without the wrapper."""

    stream: str
    payload: bytes


class Watch:
    """One kline stream: the open bar, the bars that wait to be closed, and what was sent last."""

    def __init__(self, stream: Stream, bar: Bar) -> None:
        self.stream = stream
        self.bar = bar
        self.end_ms = ending(stream.interval, bar.open_ms, stream.offset_ms)
        self.ended: list[tuple[Bar, int]] = []
        self.sent = bar.count

    def add(self, trade: Trade) -> None:
        """Take a trade; one past the end opens the next bar, which an event of its own will close later."""
        self.roll(trade.time_ms)
        self.bar.add(trade)

    def roll(self, now_ms: int) -> None:
        """Put every bar that ended by ``now_ms`` aside."""
        while now_ms >= self.end_ms:
            self.ended.append((self.bar, self.end_ms))
            self.bar = flat(self.end_ms, self.bar.close)
            self.end_ms = ending(self.stream.interval, self.bar.open_ms, self.stream.offset_ms)
            self.sent = -1


class Market:
    """Every symbol, and which of their streams anybody wants.

    ``captured`` streams come from elsewhere as raw frames: nothing is derived for them.
    """

    def __init__(self, pairs: Iterable[Pair], now_ms: int, captured: frozenset[str] = frozenset()) -> None:
        self.pairs = {pair.symbol: pair for pair in pairs}
        self.now_ms = now_ms
        self.captured = captured
        self.wanted: dict[str, Stream] = {}
        self._slot = now_ms // SLOT_MS
        self._watches: dict[str, dict[str, Watch]] = {symbol: {} for symbol in self.pairs}
        self._sent: dict[tuple[str, str], int] = {}
        self._block_id = 0

    def want(self, name: str) -> None:
        """Derive this stream from now on; what is unknown, captured or wanted already changes nothing."""
        stream = understood(name)
        if stream is None or name in self.captured or name in self.wanted:
            return
        if stream.symbol and stream.symbol not in self.pairs:
            return
        self.wanted[name] = stream
        for pair in self._of(stream):
            self._sent[name, pair.symbol] = pair.version
            if stream.kind == "kline":
                bar = pair.current(stream.interval, self.now_ms, stream.offset_ms)
                self._watches[pair.symbol][name] = Watch(stream, bar)

    def unwant(self, name: str) -> None:
        """Nobody wants it any more."""
        stream = self.wanted.pop(name, None)
        for pair in self._of(stream) if stream else ():
            self._sent.pop((name, pair.symbol), None)
            self._watches[pair.symbol].pop(name, None)

    def _of(self, stream: Stream) -> Iterable[Pair]:
        return (self.pairs[stream.symbol],) if stream.symbol else self.pairs.values()

    def trade(self, pair: Pair, fact: Trade, event_ms: int) -> list[Event]:
        """One trade happened."""
        events: list[Event] = []
        done = pair.take(fact)
        if done is not None:
            events += self._aggregated(pair, done, event_ms)
        name = f"{pair.name}@trade"
        if name in self.wanted:
            events.append(Event(name, payloads.trade(pair.symbol, fact, event_ms)))
        for watch in self._watches[pair.symbol].values():
            watch.add(fact)
        return events

    def _aggregated(self, pair: Pair, done: Aggregate, event_ms: int) -> list[Event]:
        name = f"{pair.name}@aggTrade"
        if name not in self.wanted:
            return []
        return [Event(name, payloads.agg_trade(pair.symbol, done, max(event_ms, done.time_ms)))]

    def block(self, pair: Pair, fact: Trade) -> list[Event]:
        """A block trade happened: outside the book, outside the tape."""
        name = f"{pair.name}@blockTrade"
        self._block_id += 1
        if name not in self.wanted:
            return []
        return [Event(name, payloads.block_trade(pair.symbol, fact._replace(id=self._block_id), fact.time_ms + 1))]

    def quoted(self, pair: Pair) -> list[Event]:
        """The book may have moved."""
        name = f"{pair.name}@bookTicker"
        top = pair.retop()
        if top is None or name not in self.wanted:
            return []
        return [Event(name, payloads.book_ticker(pair.symbol, pair.book.update_id, top))]

    def finish_aggregates(self) -> list[Event]:
        """The tape has ended: nothing will complete what is open."""
        done = [(pair, pair.complete()) for pair in self.pairs.values()]
        return [event for pair, each in done if each for event in self._aggregated(pair, each, self.now_ms)]

    @property
    def next_slot_ms(self) -> int:
        """When the wheel turns next."""
        return (self._slot + 1) * SLOT_MS + LATE_MS

    def advance(self, to_ms: int) -> list[Event]:
        """Let market time pass; it never runs backwards."""
        if to_ms <= self.now_ms:
            return []
        events: list[Event] = []
        while self.next_slot_ms <= to_ms:
            self._slot += 1
            events += self._turn(self._slot * SLOT_MS)
        self.now_ms = max(self.now_ms, to_ms)
        for pair in self.pairs.values():
            done = pair.due(to_ms)
            if done is not None:
                events += self._aggregated(pair, done, to_ms)
        return events

    def _turn(self, at_ms: int) -> list[Event]:
        self.now_ms = max(self.now_ms, at_ms + LATE_MS)
        events = self._depths(fast=True)
        if self._slot % SECOND_SLOTS == 0:
            events += self._close_bars(at_ms)
            events += self._seconds(at_ms + LATE_MS)
            events += self._depths(fast=False)
        if self._slot % KLINE_SLOTS == KLINE_SLOT:
            events += self._update_bars(at_ms)
        return events

    def _close_bars(self, at_ms: int) -> list[Event]:
        events: list[Event] = []
        for symbol, watches in self._watches.items():
            for name, watch in watches.items():
                watch.roll(at_ms)
                for bar, end_ms in watch.ended:
                    interval = watch.stream.interval
                    text = payloads.kline(symbol, interval, bar, end_ms, end_ms + LATE_MS, closed=True)
                    events.append(Event(name, text))
                watch.ended.clear()
        return events

    def _update_bars(self, at_ms: int) -> list[Event]:
        events: list[Event] = []
        for symbol, watches in self._watches.items():
            for name, watch in watches.items():
                if watch.sent == watch.bar.count or at_ms - watch.bar.open_ms < KLINE_SLOTS * SLOT_MS:
                    continue
                watch.sent = watch.bar.count
                text = payloads.kline(symbol, watch.stream.interval, watch.bar, watch.end_ms, at_ms, closed=False)
                events.append(Event(name, text))
        return events

    def _seconds(self, at_ms: int) -> list[Event]:
        events: list[Event] = []
        for name, stream in self.wanted.items():
            if stream.kind not in ON_SECOND:
                continue
            if stream.kind == "markPrice":
                if stream.fast or self._slot % MARK_SLOTS == 0:
                    events.append(Event(name, self._mark_price(self.pairs[stream.symbol], at_ms)))
                continue
            rows = [self._row(stream, pair, at_ms) for pair in self._of(stream) if self._changed(name, pair)]
            if not rows:
                continue
            payload = rows[0] if stream.symbol else b"[" + b",".join(rows) + b"]"
            events.append(Event(name, payload))
        return events

    @staticmethod
    def _mark_price(pair: Pair, at_ms: int) -> bytes:
        """The index is the last price; its distance from the mark decides the funding."""
        return payloads.mark_price(pair.symbol, pair.mark_price, pair.last_price, at_ms)

    def _changed(self, name: str, pair: Pair) -> bool:
        if self._sent[name, pair.symbol] == pair.version:
            return False
        self._sent[name, pair.symbol] = pair.version
        return True

    def _row(self, stream: Stream, pair: Pair, at_ms: int) -> bytes:
        symbol = pair.symbol
        match stream.kind:
            case "ticker":
                last = pair.trades[-1].quantity if pair.trades else 0
                return payloads.ticker(symbol, pair.window(DAY_MS, at_ms), pair.top, last, at_ms + 2)
            case "miniTicker":
                return payloads.mini_ticker(symbol, pair.window(DAY_MS, at_ms).bar, at_ms + 2)
            case "rolling":
                window = pair.window(ROLLING_MS[stream.interval], at_ms)
                return payloads.rolling_ticker(symbol, stream.interval, window, at_ms + 2)
            case "avgPrice":
                bar = pair.window(AVERAGE_MS, at_ms).bar
                return payloads.avg_price(symbol, bar, pair.trades[-1].time_ms, at_ms + 2)
            case _:
                return payloads.reference_price(symbol, pair.last_price if pair.trades else None, at_ms)

    def _depths(self, *, fast: bool) -> list[Event]:
        streams = [stream for stream in self.wanted.values() if stream.kind == "depth" and stream.fast is fast]
        looked_at = {stream.symbol for stream in streams}
        for pair in self.pairs.values():
            if pair.symbol not in looked_at:
                pair.skip_changes(fast=fast)
        diffs = {symbol: self.pairs[symbol].book.taken(fast=fast) for symbol in looked_at}
        return [self._depth(stream, diff) for stream in streams if (diff := diffs[stream.symbol]) is not None]

    def _depth(self, stream: Stream, diff: Diff) -> Event:
        if not stream.levels:
            return Event(stream.name, payloads.depth_update(stream.symbol, diff, self.now_ms))
        book = self.pairs[stream.symbol].book
        return Event(stream.name, payloads.partial_depth(book.update_id, *book.best(stream.levels)))


ON_SECOND = frozenset({"ticker", "miniTicker", "rolling", "avgPrice", "referencePrice", "markPrice"})
