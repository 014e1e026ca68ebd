"""An order book by the exchange's rules ("How to manage a local order book correctly", 2026-10)."""

from collections.abc import Callable
from typing import Any

Side = dict[str, str]


class OwnBook:
    """Texts as they came. A gap makes it ask for a snapshot again; ``snapshot`` is REST's answer."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self.update_id = 0
        self._sides: tuple[Side, Side] = ({}, {})

    def take(self, first: int, last: int, bids: list[list[str]], asks: list[list[str]]) -> bool:
        """Follow a diff; whether the book is whole, and newer than before."""
        if not self.update_id or first > self.update_id + 1:
            found = self._snapshot()
            self.update_id = found["lastUpdateId"]
            self._sides = (dict(found["bids"]), dict(found["asks"]))
        if last <= self.update_id or first > self.update_id + 1:
            return False
        self.update_id = last
        for side, changes in zip(self._sides, (bids, asks), strict=True):
            for price, quantity in changes:
                if float(quantity):
                    side[price] = quantity
                else:
                    side.pop(price, None)
        return True

    @property
    def levels(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Bids and asks, best first."""
        bids, asks = (sorted(side.items(), key=lambda level: float(level[0])) for side in self._sides)
        return bids[::-1], asks
