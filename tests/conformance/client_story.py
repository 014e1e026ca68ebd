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

WANTED = (("book", 20), ("trade", 10))  # of each symbol, at the start and after each fault
WANTED_OF_FUTURES = (("mark", 4),)
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
    wanted: tuple[tuple[str, int], ...] = WANTED


class Story:
    """Rows of each kind in the order in which they were printed, each with its symbol first."""

    def __init__(self, process: Process, symbols: Sequence[str], client: Client) -> None:
        self._process = process
        self._symbols = symbols
        self._client = client
        self._lines = 0
        self._rows: dict[str, list[list[Any]]] = {"book": [], "trade": [], "mark": []}

    def goes_on(self, after: str, patience_s: float) -> None:
        """Wait until there is more of each symbol."""
        self._read()
        seen = {kind: len(rows) for kind, rows in self._rows.items()}

        def enough() -> bool:
            assert self._process.is_alive(), "the client has ended"
            self._read()
            return all(
                sum(told[0] == symbol for told in self._rows[kind][seen[kind] :]) >= count
                for symbol in self._symbols
                for kind, count in self._client.wanted
            )

        wait_for(enough, f"{' and '.join(kind for kind, _ in self._client.wanted)} after {after}", patience_s)

    def _read(self) -> None:
        lines = self._process.output[self._lines :]
        self._lines += len(lines)
        for line in lines:
            if line.startswith(tuple(f'["{kind}"' for kind in self._rows)):
                kind, *told = json.loads(line, parse_float=Decimal)
                self._rows[kind].append(told)

    def row(self, seed: int, faults: int, cuts: int, *troubles: str) -> Row:
        """A case for each row that was printed and each trouble; trades may be missing once for each cut."""
        client = self._client
        wrong, missed, torn = list(troubles), 0, 0
        for symbol in self._symbols:
            truth = Truth(symbol, seed)
            others = list(_wrong_books(self._of(symbol, "book"), truth, client))
            forgiven = min(len(others), client.torn * faults)
            torn += forgiven
            wrong += others[forgiven:]
            trades = self._of(symbol, "trade")
            wrong += _wrong_trades(trades, truth, client)
            gaps = list(_gaps(trades))
            missed += sum(last - first + 1 for first, last in gaps)
            allowed = 0 if client.is_gapless else cuts
            wrong += [f"{symbol}: trades {first} to {last} are missing" for first, last in gaps[allowed:]]
            wrong += [
                f"{symbol}: mark price {mark} is another, or index {index}"
                for mark, index in self._of(symbol, "mark")
                if not truth.is_mark(mark, index)
            ]
        total = sum(map(len, self._rows.values())) - torn + len(troubles)
        notes = [f"{len(self._rows[kind])} {kind}s" for kind, _ in client.wanted]
        notes.append("digit by digit" if client.digits else "as numbers")
        if self._rows["trade"]:
            notes.append(f"{missed} trades missed over {cuts} cuts")
        if torn:
            notes.append(f"{torn} books after a gap not counted, which the client itself gets wrong")
        passed = max(0, total - len(wrong))
        return Row(client.name, client.version, passed, total, ("; ".join(notes), *wrong[:MOST_NOTES]))

    def _of(self, symbol: str, kind: str) -> list[list[Any]]:
        return [told for name, *told in self._rows[kind] if name == symbol]


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
