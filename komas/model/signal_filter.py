"""Which signals a reader wants. Sans-I/O.

A filter leaves messages out, never positions: everybody counts the same commits.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import msgspec

from komas.model.signals import SignalEvent

COIN_LENGTH: Final = 64  # characters of a name that a filter may have
_APART: Final = ","  # between the names of a list
_NOT_UTF8: Final = "\ufffd"  # what a query that is not UTF-8 is read as


def coin_key(name: object) -> str | None:
    """What a coin's name is compared by: without blanks around it, in Unicode's composed form (NFC), in any case.

    ``None`` for what no filter can name: a name is 1 to 64 printable characters without a comma.
    """
    if not isinstance(name, str) or not 0 < len(stripped := name.strip()) <= COIN_LENGTH:
        return None
    key = _composed(_composed(stripped).casefold())
    return key if key.isprintable() and _APART not in key and _NOT_UTF8 not in key else None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


class SignalFilter(msgspec.Struct, frozen=True):
    """Signals of some types, and of some coins (by their keys); of all where a set is empty.

    It is a key: readers with equal filters share one encoding.
    """

    signal_types: frozenset[str] = frozenset()
    coins: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything may be left out."""
        return bool(self.signal_types or self.coins)

    def passes(self, event: SignalEvent) -> bool:
        """Whether a reader is to have an event.

        An update that changes the coin passes by the coin before it, too: who has the signal must hear that it changed.
        """
        if self.signal_types and event.signal_type not in self.signal_types:
            return False
        return not self.coins or not self.coins.isdisjoint(event.coins)


EVERYTHING: Final = SignalFilter()
