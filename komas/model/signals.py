"""Signals, their updates, and who may read or publish them. Sans-I/O.

``data`` is a JSON object of the producer's, with the server's ``id`` and ``created_at`` in it. It travels as the text
that was committed, so that every digit leaves as it came.
"""

from __future__ import annotations

from typing import Final

import msgspec

DAY_S: Final = 86_400
MOST_DAYS: Final = 36_500  # of one grant

_encoder = msgspec.json.Encoder()  # data is text already: there is no number left to encode


class Principal(msgspec.Struct, frozen=True):
    """Who a verified token speaks for; times are Unix seconds, and may have a fraction (RFC 7519, 2).

    ``leeway_s`` is allowed past ``expires_at``, for clocks that differ. ``vip_until`` is what the token says; what the
    store says of the user goes before it.
    """

    subject: str
    expires_at: float
    vip_until: float | None = None
    scopes: frozenset[str] = frozenset()
    leeway_s: float = 0.0

    @property
    def ends_at(self) -> float:
        """When the token proves nothing any more."""
        return self.expires_at + self.leeway_s

    @property
    def user_id(self) -> int | str:
        """The subject as users see it: an integer when it is one."""
        is_integer = self.subject.isascii() and self.subject.isdecimal() and str(int(self.subject)) == self.subject
        return int(self.subject) if is_integer else self.subject


class Signal(msgspec.Struct, frozen=True):
    """A signal as it stands now, all its updates applied."""

    id: int
    signal_type: str
    data: msgspec.Raw
    created_at: str
    updated_at: str


class SignalInsert(msgspec.Struct, frozen=True):
    """A signal to be published; ``key`` makes a retry return the first answer."""

    signal_type: str
    data: dict[str, object]
    publisher: str
    key: str | None = None


class Vip(msgspec.Struct, frozen=True):
    """What the store knows of one user's VIP; ``until_s`` is in Unix seconds.

    ``version`` rises with each change of any user; ``revoked_version`` is that of the last revocation, 0 for none.
    """

    user_id: str
    until_s: int
    revoked: bool
    version: int
    revoked_version: int = 0

    def is_active(self, now_s: float) -> bool:
        """Whether the grant holds at a moment."""
        return not self.revoked and now_s < self.until_s


class Counters(msgspec.Struct, frozen=True):
    """The last position, and the last change of any VIP."""

    position: int
    vip: int


class SignalEvent(msgspec.Struct, frozen=True):
    """One commit: a signal's birth, or an update with the changed fields; positions rise by one.

    ``coins`` are the keys (``coin_key()``) of the signal's coin, and of the one that it had before an update that
    changed it.
    """

    position: int
    signal_id: int
    signal_type: str
    is_new: bool
    data: msgspec.Raw
    coins: tuple[str, ...] = ()


class NewSignalMessage(msgspec.Struct, frozen=True, tag_field="type", tag="new_signal", omit_defaults=True):
    """A signal was published; ``position`` is there for those who asked for it."""

    signal_type: str
    data: msgspec.Raw
    position: int = 0


class SignalUpdateMessage(msgspec.Struct, frozen=True, tag_field="type", tag="signal_update", omit_defaults=True):
    """Fields of a signal that have changed; ``position`` is there for those who asked for it."""

    signal_type: str
    signal_id: int
    data: msgspec.Raw
    position: int = 0


class SignalEnvelope:
    """One commit on its way to VIPs: encoded once for each representation, not for each session."""

    __slots__ = ("_texts", "event")

    def __init__(self, event: SignalEvent) -> None:
        self.event = event
        self._texts: dict[bool, str] = {}

    def text(self, *, positions: bool) -> str:
        """The message as in the user's document, or with its ``position``, from which a session can be resumed."""
        if positions not in self._texts:
            self._texts[positions] = self._encode(self.event.position if positions else 0).decode()
        return self._texts[positions]

    def _encode(self, position: int) -> bytes:
        event = self.event
        if event.is_new:
            return _encoder.encode(NewSignalMessage(event.signal_type, event.data, position))
        return _encoder.encode(SignalUpdateMessage(event.signal_type, event.signal_id, event.data, position))
