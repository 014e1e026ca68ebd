"""Exchanges, or somebody in the middle, that attack komas: rows of section 2 of issue 16, one class for each.

Every one of them lists ``BTCUSDT`` and trades it honestly; the other pair, ``ETHUSDT``, is the bait: read it, and the
attack comes. What each docstring calls right holds for everybody else at the same time: those who read ``BTCUSDT`` lose
nothing and wait for nothing.
"""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator
from typing import Final

import trio

from tests.hostile.exchange import BAIT, Exchange, Reader, aggregate, book, depth, respond, symbol, trade

BAIT_DEPTH: Final = f"{BAIT.lower()}@depth@100ms"
BAIT_TRADES: Final = f"{BAIT.lower()}@trade"
BAIT_AGGREGATES: Final = f"{BAIT.lower()}@aggTrade"
FUSE_S: Final = 1.5  # a server that has just started has other things to do
BOMB_BLOCK: Final = 2**20
BOMB_BLOCKS: Final = 5_600  # 5.6 GB
MILLION: Final = 1_000_000
JUMP: Final = 1_000
JUMPS_A_SECOND: Final = 200
DRIP_S: Final = 1.0
DRIPPED: Final = (symbol(0), symbol(1), symbol(2))  # a host that drips for every book has none to give
BAN_S: Final = 4.0
LAG_S: Final = 2.5
CHANGES_A_SECOND: Final = 20


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class WideDepth(Exchange):
    """One depth frame of 4 MB with 200,000 new levels, twice a second.

    Today: ``/healthz`` 14 s, SIGTERM 22 s, 309 MB. Right: levels for each update and side are bounded, the book is
    gapped, and no handler holds the loop for more than 20 ms.
    """

    levels = 200_000
    every_s = 0.5

    async def misbehave(self) -> None:
        """Send one after another to whoever reads the bait's book."""
        wide = [
            ",".join(f'["{low + place // 100}.{place % 100:02}","{low}"]' for place in range(self.levels))
            for low in range(1, 5)
        ]
        while True:
            for levels in wide:
                await trio.sleep(self.every_s)
                for reader in self.reading(BAIT_DEPTH):
                    if not reader.is_crowded:
                        reader.event(BAIT_DEPTH, depth(BAIT, self.number(BAIT_DEPTH), _now_ms(), levels))
                        self.found["wide frames"] += 1


class FairlyWideDepth(WideDepth):
    """Depth frames of 0.8 MB with 40,000 new levels, ten a second: no message is longer than komas takes.

    Right: as of those of 4 MB.
    """

    levels = 40_000
    every_s = 0.1


class GzipBomb(Exchange):
    """``exchangeInfo`` with ``Content-Encoding: gzip``: 5.4 MB on the wire, 5.6 GB unpacked.

    Today: 2.6 GB of memory, or MemoryError and death. Right: decoded bytes are limited for every REST answer, with a
    clear error.
    """

    async def answer(self, stream: trio.SocketStream, what: str, asked: dict[str, str]) -> None:
        """Answer with the bomb."""
        if what != "exchangeInfo":
            await super().answer(stream, what, asked)
            return
        await trio.sleep(FUSE_S)
        self.found["bombs"] += 1
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
        await stream.send_all(head + b"connection: close\r\n\r\n")
        for piece in _bomb():
            await stream.send_all(piece)
        await stream.aclose()


def _bomb() -> Iterator[bytes]:
    """A block that was packed once stands for itself wherever it comes, after a full flush."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    yield gzip.compress(b"")[:10] + packer.compress(b'{"symbols":[') + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * BOMB_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(BOMB_BLOCKS):
        yield block


class MillionSymbols(Exchange):
    """``exchangeInfo`` with 1,000,000 symbols.

    Today: 565 MB, and the loop is held for 0.5 s. Right: a limit, and decoding in slices or a thread.
    """

    async def answer(self, stream: trio.SocketStream, what: str, asked: dict[str, str]) -> None:
        """Answer with a row for each; they are joined once, piece by piece."""
        if what != "exchangeInfo":
            await super().answer(stream, what, asked)
            return
        await trio.sleep(FUSE_S)
        self.found["listings"] += 1
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
        await stream.send_all(head + b'{"timezone":"UTC","symbols":[{"symbol":"BTCUSDT","status":"TRADING"}')
        for first in range(0, MILLION, 1000):
            rows = (f',{{"symbol":"M{number}USDT","status":"TRADING"}}' for number in range(first, first + 1000))
            await stream.send_all("".join(rows).encode())
        await stream.send_all(b"]}")
        await stream.aclose()


class JumpingIds(Exchange):
    """Ids that jump with every frame: trades, aggregate trades and depth of the bait, 200 times a second each.

    Today: two log lines for each frame, 1 MB/s. Right: complaints of one kind are counted, and logged once a minute.
    """

    async def misbehave(self) -> None:
        """Send trades and changes, each far from the last."""
        while True:
            await trio.sleep(1 / JUMPS_A_SECOND)
            for name, write in ((BAIT_TRADES, trade), (BAIT_AGGREGATES, aggregate), (BAIT_DEPTH, depth)):
                number = self.number(name, JUMP)
                for reader in self.reading(name):
                    reader.event(name, write(BAIT, number, _now_ms()))
                    self.found["jumps"] += 1


class LongPrice(Exchange):
    """One price of 7,000,000 digits, twice a second.

    Today: a log line of 7 MB. Right: every value in a message is cut.
    """

    digits = 7_000_000
    every_s = 0.5

    async def misbehave(self) -> None:
        """Send it as a trade, with ids that follow each other."""
        digits = b"9" * self.digits
        while True:
            await trio.sleep(self.every_s)
            for reader in self.reading(BAIT_TRADES):
                if not reader.is_crowded:
                    payload = trade(BAIT, self.number(BAIT_TRADES), _now_ms())
                    reader.event(BAIT_TRADES, payload.replace(b"61837.63000000", digits))
                    self.found["long prices"] += 1


class FairlyLongPrice(LongPrice):
    """Prices of 900,000 digits, ten a second: no message is longer than komas takes.

    Right: as of those of 7,000,000.
    """

    digits = 900_000
    every_s = 0.1


class DrippingRest(Exchange):
    """A REST host that drips: of the first three books that it is asked for comes a byte a second.

    Today: snapshots wait one behind another, ten seconds each. Right: several at once, within the budget.
    """

    async def answer(self, stream: trio.SocketStream, what: str, asked: dict[str, str]) -> None:
        """Drip for these, for ever."""
        of = asked.get("symbol", "")
        if what != "depth" or of not in DRIPPED:
            await super().answer(stream, what, asked)
            return
        self.found["drips"] += 1
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await trio.sleep(DRIP_S)
            await stream.send_all(b" ")


class BannedInTheBody(Exchange):
    """``418`` whose body alone says "banned until <ms>".

    Today: asked again each 60 s inside the ban. Right: the body's time is obeyed; nothing is asked before, and what is
    wanted is asked for soon after.
    """

    def __init__(self) -> None:
        super().__init__()
        self._until_s = 0.0

    async def answer(self, stream: trio.SocketStream, what: str, asked: dict[str, str]) -> None:
        """Ban whoever asks for the first book."""
        if what == "depth" and not self._until_s:
            self._until_s = time.time() + BAN_S
        elif time.time() < self._until_s:
            self.found["asked inside the ban"] += 1
        if time.time() >= self._until_s:
            await super().answer(stream, what, asked)
            return
        words = f"Way too much request weight used; IP banned until {int(self._until_s * 1000)}."
        await respond(stream, f'{{"code":-1003,"msg":"{words}"}}'.encode(), "418 I'm a teapot")


class OldSnapshot(Exchange):
    """A snapshot older than the buffered updates, by two and a half seconds, while the bait's book changes.

    Today: the buffer is thrown away; true after many seconds, or never. Right: the buffer is kept, and the next
    snapshot tried against it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._history: list[tuple[float, int]] = [(0.0, 0)]

    def snapshot(self, of: str) -> bytes:
        """What the book was."""
        then = trio.current_time() - LAG_S
        return book(max(number for at, number in self._history if at <= then))

    async def misbehave(self) -> None:
        """Change the book."""
        while True:
            await trio.sleep(1 / CHANGES_A_SECOND)
            number = self.number(BAIT_DEPTH)
            self._history.append((trio.current_time(), number))
            for reader in self.reading(BAIT_DEPTH):
                reader.event(BAIT_DEPTH, depth(BAIT, number, _now_ms()))


class LongLevels(Exchange):
    """Depth levels with a third, empty element: ``["1.0","2.0",[]]``.

    Today: unreadable, no book. Right: the first two count.
    """

    def snapshot(self, of: str) -> bytes:
        """With the third element."""
        return book(self.number(f"{of.lower()}@depth@100ms", 0), ",[]")

    async def misbehave(self) -> None:
        """Change the book."""
        while True:
            await trio.sleep(1 / CHANGES_A_SECOND)
            number = self.number(BAIT_DEPTH)
            for reader in self.reading(BAIT_DEPTH):
                reader.event(BAIT_DEPTH, depth(BAIT, number, _now_ms(), f'["60990.00","{number}.0",[]]'))


class QuietDepth(Exchange):
    """A depth stream without changes: halted, of a testnet, illiquid.

    Today: no snapshot is ever asked for; no book, 504. Right: it is asked for once the stream is acknowledged.
    """

    def next_event(self, reader: Reader, name: str) -> None:
        """Send everything but changes of books."""
        if not name.endswith("@depth@100ms"):
            super().next_event(reader, name)
