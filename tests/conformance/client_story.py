"""What an exchange client printed, and whether it is true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from tests.conformance.counterparts import Row
from tests.conformance.market_truth import Truth
from tests.e2e.processes import Process, wait_for

BOOKS, TRADES = 20, 10  # of each symbol, at the start and after each fault
MOST_NOTES = 10


class Client(msgspec.Struct, frozen=True):
    """One client. ``digits``: it keeps the exchange's, not floats. ``is_gapless``: its trades are, over cuts, too.

    ``torn`` is how many books after each fault may be wrong, by a mistake of its own that is known.
    """

    name: str
    version: str
    digits: bool
    is_gapless: bool = False
    torn: int = 0


class Story:
    """Books and trades in the order in which they were printed, each with its symbol first."""

    def __init__(self, process: Process, symbols: Sequence[str]) -> None:
        self._process = process
        self._symbols = symbols
        self._lines = 0
        self.books: list[list[Any]] = []
        self.trades: list[list[Any]] = []

    def goes_on(self, after: str, patience_s: float) -> None:
        """Wait until there is more of each symbol."""
        self._read()
        seen = len(self.books), len(self.trades)

        def enough() -> bool:
            assert self._process.is_alive(), "the client has ended"
            self._read()
            return all(
                sum(told[0] == symbol for told in rows[begin:]) >= wanted
                for symbol in self._symbols
                for rows, begin, wanted in ((self.books, seen[0], BOOKS), (self.trades, seen[1], TRADES))
            )

        wait_for(enough, f"books and trades after {after}", patience_s)

    def _read(self) -> None:
        lines = self._process.output[self._lines :]
        self._lines += len(lines)
        for line in lines:
            if line.startswith(('["book"', '["trade"')):
                kind, *told = json.loads(line, parse_float=Decimal)
                (self.books if kind == "book" else self.trades).append(told)

    def row(self, client: Client, seed: int, faults: int, cuts: int, *troubles: str) -> Row:
        """A case for each book, each trade and each trouble; trades may be missing once for each cut."""
        wrong, missed, torn = list(troubles), 0, 0
        for symbol in self._symbols:
            truth = Truth(symbol, seed)
            others = list(_wrong_books(self._of(symbol, self.books), truth, client))
            forgiven = min(len(others), client.torn * faults)
            torn += forgiven
            wrong += others[forgiven:]
            trades = self._of(symbol, self.trades)
            wrong += _wrong_trades(trades, truth, client)
            gaps = list(_gaps(trades))
            missed += sum(last - first + 1 for first, last in gaps)
            wrong += [
                f"{symbol}: trades {first} to {last} are missing" for first, last in gaps[_allowed(client, cuts) :]
            ]
        total = len(self.books) - torn + len(self.trades) + len(troubles)
        how = "digit by digit" if client.digits else "as numbers"
        told = f"{len(self.books)} books {how}; {len(self.trades)} trades, {missed} missed over {cuts} cuts"
        if torn:
            told += f"; {torn} books after a gap not counted, which the client itself gets wrong"
        return Row(client.name, client.version, max(0, total - len(wrong)), total, (told, *wrong[:MOST_NOTES]))

    @staticmethod
    def _of(symbol: str, rows: Sequence[list[Any]]) -> list[list[Any]]:
        return [told for name, *told in rows if name == symbol]


def _allowed(client: Client, cuts: int) -> int:
    return 0 if client.is_gapless else cuts


def _wrong_books(books: Sequence[list[Any]], truth: Truth, client: Client) -> Iterator[str]:
    for update_id, bids, asks in books:
        if not truth.is_book(update_id, bids, asks, digits=client.digits):
            yield f"{truth.symbol}: the book at {update_id} is another"


def _wrong_trades(trades: Sequence[list[Any]], truth: Truth, client: Client) -> Iterator[str]:
    last = 0
    for trade in trades:
        if not truth.is_trade(*trade, digits=client.digits):
            yield f"{truth.symbol}: trade {trade[0]} is another"
        if trade[0] <= last:
            yield f"{truth.symbol}: trade {trade[0]} came after {last}"
        last = trade[0]


def _gaps(trades: Sequence[list[Any]]) -> Iterator[tuple[int, int]]:
    for (earlier, *_), (later, *_) in pairwise(trades):
        if later > earlier + 1:
            yield earlier + 1, later - 1
