"""What is right of a stream of trades: each once, in order and to the digit, or declared as missing. Sans-I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

NAMES: Final = ("message", "status", "gap", "health", "open", "busy")

Trade = tuple[str, str, bool]  # price, quantity, whether the buyer was the maker; with every digit
Row = Sequence[Any]  # name, id and data of an event, as a client handed it out


class Judge:
    """Holds what one client handed out, in parts, against the exchange's trades by symbol and id."""

    def __init__(self, trades: Mapping[str, Mapping[int, Trade]]) -> None:
        self._trades = trades
        self._last: dict[str, int] = {}
        self._gaps: dict[str, dict[str, Any]] = {}  # declared since the last trade, by symbol
        self.missing = 0  # trades whose loss was declared

    def faults(self, events: Sequence[Row]) -> list[str]:
        """What is wrong with the next part."""
        found = []
        for name, identity, text in events:
            try:
                data = json.loads(text, parse_float=str)
            except ValueError:
                found.append(f"{name} with data that is no JSON: {text[:60]!r}")
                continue
            if name == "gap" and not data["filled"]:
                self._gaps[data["stream"].partition("@")[0].upper()] = data
            elif name == "message":
                found += self._of_trade(identity, data["data"])
            elif name not in NAMES:
                found.append(f"an event {name!r}")
        return found

    def _of_trade(self, identity: str, trade: Mapping[str, Any]) -> Iterator[str]:
        symbol, number = trade["symbol"], trade["trade_id"]
        last, gap = self._last.get(symbol, number - 1), self._gaps.pop(symbol, None)
        self._last[symbol] = max(last, number)
        if not identity:
            yield f"{symbol} {number} has no id"
        if number <= last:
            yield f"{symbol} {number} after {last}"
        elif number > last + 1 and not _covers(gap, last + 1, number - 1):
            yield f"{symbol} {last + 1} to {number - 1} are lost without a word"
        else:
            self.missing += number - last - 1
        if (trade["price"], trade["quantity"], trade["is_buyer_maker"]) != self._trades[symbol].get(number):
            yield f"{symbol} {number} is not the exchange's: {trade}"


def _covers(gap: Mapping[str, Any] | None, first: int, last: int) -> bool:
    """Whether a declared gap has these ids; an end that is not known is open."""
    return (
        gap is not None and (gap["from"] is None or gap["from"] <= first) and (gap["to"] is None or gap["to"] >= last)
    )
