"""Who is connected: signal sockets in all, from each address and of each user (sans-I/O)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Final, Protocol

import msgspec

from komas.model.signals import Vip
from komas.settings import Settings

_ALL: Final = "sockets"
_OF_ADDRESS: Final = "sockets_per_address"
_OF_USER: Final = "sockets_per_user"
_NAME: Final = re.compile(r"[0-9a-f]{1,16}-[0-9]{1,18}")  # of a session: the process and a number


class RegistryStatistics(msgspec.Struct, frozen=True):
    """Sockets now, users now, sockets since the start, and those turned away, by what there were too many of."""

    sockets: int
    users: int
    admitted: int
    refused: Mapping[str, int]


class ConnectedSession(Protocol):
    """One signal socket that was let in, as an administrator sees it."""

    @property
    def user_id(self) -> int | str:
        """Whose it is."""

    @property
    def address(self) -> str:
        """The address that it is counted by."""

    @property
    def since_ms(self) -> int:
        """When it was let in, milliseconds since the epoch."""

    @property
    def behind(self) -> int:
        """How many signals and updates it has not been sent."""

    def disconnect(self) -> None:
        """Close it."""


class ConnectionRegistry:
    """The places for signal sockets; a user's own hear when what is known of the user changes."""

    def __init__(self, settings: Settings, process: str = "0") -> None:
        self._settings = settings
        self._process = process
        self._addresses: Counter[str] = Counter()
        self._users: dict[str, list[Callable[[Vip], None]]] = {}
        self._sockets = 0
        self._admitted = 0
        self._refused: Counter[str] = Counter({_ALL: 0, _OF_ADDRESS: 0, _OF_USER: 0})
        self._numbers = count(1)
        # By a name that an administrator may close one by; no other process that is behind the same proxy has it, too.
        self.sessions: dict[str, ConnectedSession] = {}

    def show(self, session: ConnectedSession) -> str:
        """Show one that was let in to administrators until ``hide()``; returns its name."""
        name = f"{self._process}-{next(self._numbers)}"
        self.sessions[name] = session
        return name

    def hide(self, name: str) -> None:
        """Show it no more."""
        del self.sessions[name]

    def disconnect(self, name: str) -> bool:
        """Close one by its name; whether it is here."""
        session = self.sessions.get(name)
        if session is not None:
            session.disconnect()
        return session is not None

    def is_foreign(self, name: str) -> bool:
        """Whether a name is of another process."""
        return _NAME.fullmatch(name) is not None and not name.startswith(f"{self._process}-")

    @contextmanager
    def socket(self, address: str) -> Iterator[bool]:
        """Count one socket from its handshake on; yields whether there is room for it."""
        settings = self._settings
        has_place = self._sockets < settings.max_sockets
        has_room = has_place and self._addresses[address] < settings.max_sockets_per_address
        self._admitted += has_room
        self._refused[_OF_ADDRESS if has_place else _ALL] += not has_room
        self._sockets += 1
        self._addresses[address] += 1
        try:
            yield has_room
        finally:
            self._sockets -= 1
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    @contextmanager
    def user(self, subject: str, changed: Callable[[Vip], None]) -> Iterator[bool]:
        """Count one socket of a user; yields whether there is room for it."""
        theirs = self._users.setdefault(subject, [])
        has_room = len(theirs) < self._settings.max_sockets_per_user
        self._refused[_OF_USER] += not has_room
        theirs.append(changed)
        try:
            yield has_room
        finally:
            theirs.remove(changed)
            if not theirs:
                del self._users[subject]

    def tell(self, vip: Vip) -> None:
        """Tell a user's sockets what is known now; they act on it at once."""
        for changed in tuple(self._users.get(vip.user_id, ())):
            changed(vip)

    def statistics(self) -> RegistryStatistics:
        """Counts, for metrics."""
        return RegistryStatistics(self._sockets, len(self._users), self._admitted, self._refused)
