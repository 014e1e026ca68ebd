"""What PostgreSQL carries from the process that commits to all others: a wake-up. Sans-I/O."""

from __future__ import annotations

from typing import Final

import msgspec

CHANNEL: Final = "komas"
DIGITS: Final = 18  # of a number, at most

POSITION: Final = "position"  # the newest one, of a signal or an update
VIP: Final = "vip"  # the newest change of any user
SESSION: Final = "session"  # a socket that is to be closed, by its name


class Notification(msgspec.Struct, frozen=True):
    """A kind, and a number or a name; a kind that is unknown may be a later release's."""

    kind: str
    value: str

    @property
    def number(self) -> int | None:
        """A counter's new value, or ``None``: whoever has access to the database may notify of anything."""
        is_number = self.value.isascii() and self.value.isdecimal() and len(self.value) <= DIGITS
        return int(self.value) if is_number else None

    @property
    def text(self) -> str:
        """As PostgreSQL carries it."""
        return f"{self.kind} {self.value}"


def read_notification(text: str) -> Notification:
    """What a text says."""
    kind, _, value = text.partition(" ")
    return Notification(kind, value)
