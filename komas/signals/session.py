"""The VIP socket's state machine. Sans-I/O.

::

    CHECKING ──admitted──▶ REPLAYING ──caught up──▶ LIVE
        └──────────────────────┴──── closed ─────────┴──▶ CLOSED

Invariants: ``connected`` is the first message, and what the client said before it is answered after it; a session is
closed once; nothing is sent after that. There are two clocks: ``now_s`` is the wall clock's, in Unix seconds, by which
tokens and grants end; ``at`` is a monotonic clock, in seconds, by which pings are due and messages are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from komas.errors import Closing
from komas.model.signals import Principal, Vip
from komas.signals import messages
from komas.signals.entitlements import vip_until
from komas.signals.tokens import TOKEN_LENGTH

GREETING: Final = "Connected to CryptoTracker real-time signals"  # the user's document
EARLY_BYTES: Final = 4096  # what a client may send before it is admitted
MESSAGE_BYTES: Final = TOKEN_LENGTH + 1024  # a refresh has the longest token in it
EXPIRING_S: Final = 60.0  # so long before its token ends a client is told
MESSAGE_EVERY_S: Final = 30.0  # a ping in JSON, which the contract promises
PING_EVERY_S: Final = 20.0  # one of the protocol: many a proxy cuts after 30 s of silence
SILENCE_S: Final = 90.0
RATE: Final = 10.0  # messages a second
BURST: Final = 20.0


class State(Enum):
    """Where a session stands."""

    CHECKING = "checking"
    REPLAYING = "replaying"
    LIVE = "live"
    CLOSED = "closed"


class On(Enum):
    """What changes the state."""

    ADMITTED = "admitted"
    CAUGHT_UP = "caught up"
    CLOSED = "closed"


TRANSITIONS: Final = {
    (State.CHECKING, On.ADMITTED): State.REPLAYING,
    (State.REPLAYING, On.CAUGHT_UP): State.LIVE,
    (State.CHECKING, On.CLOSED): State.CLOSED,
    (State.REPLAYING, On.CLOSED): State.CLOSED,
    (State.LIVE, On.CLOSED): State.CLOSED,
}


class Send(msgspec.Struct, frozen=True):
    """Send a text message."""

    text: str


class Ping(msgspec.Struct, frozen=True):
    """Send a ping of the WebSocket protocol: clients that know nothing of ours answer those by themselves."""


class Refresh(msgspec.Struct, frozen=True):
    """Check a new token, then say ``refreshed()`` or ``not_refreshed()``."""

    token: str


class Close(msgspec.Struct, frozen=True):
    """Close the socket, and the session with it."""

    closing: Closing


Action: TypeAlias = Send | Ping | Refresh | Close


class Bucket:
    """So many at once, so many a second after that."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, at: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = at

    def take(self, at: float) -> bool:
        """Whether one more is within the rate."""
        self._left = min(self._burst, self._left + (at - self._at) * self._rate)
        self._at = at
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Session:
    """One VIP socket from its handshake to its close."""

    def __init__(self, at: float, ping_every_s: float = PING_EVERY_S) -> None:
        self.state = State.CHECKING
        self.closing: Closing | None = None
        self._principal: Principal | None = None
        self._known: Vip | None = None
        self._early: list[str] = []
        self._revocations = 0
        self._bucket = Bucket(RATE, BURST, at)
        self._heard_at = at
        self._message_at = at + MESSAGE_EVERY_S
        self._ping_every_s = ping_every_s
        self._ping_at = at + ping_every_s
        self._is_refreshing = False
        self._expiring_at_s = math.inf  # when to tell that the token is about to end

    @property
    def is_open(self) -> bool:
        """Whether anything may still be sent."""
        return self.state is not State.CLOSED

    @property
    def next_tick_at(self) -> float:
        """When ``tick()`` has something to do next."""
        return min(self._message_at, self._ping_at, self._heard_at + SILENCE_S)

    @property
    def next_check_s(self) -> float:
        """When ``check()`` has something to do next, by the wall clock."""
        if self._principal is None:
            return math.inf
        return min(self._principal.ends_at, vip_until(self._principal, self._known) or 0, self._expiring_at_s)

    # From outside

    def admitted(
        self,
        principal: Principal,
        known: Vip | None,
        now_s: float,
        position: int | None = None,
        ignored: Sequence[str] = (),
    ) -> list[Action]:
        """Greet a user whose token was verified and of whom the store knows this.

        Who asked for positions is told the one that its signals come after: it can come back before the first of them.
        Who asked for what there is not is told that it was ignored.
        """
        if not self.is_open:
            return []
        self._principal = principal
        self._learn(known)
        if (closing := self._over(now_s)) is not None:
            return self.close(closing)
        self._revocations = 0 if self._known is None else self._known.revoked_version
        self._move(On.ADMITTED)
        self._expect_end(now_s)
        connected = messages.Connected(
            message=GREETING,
            user_id=principal.user_id,
            expires_at=_whole(principal.expires_at),
            position=msgspec.UNSET if position is None else position,
            ignored=tuple(ignored) or msgspec.UNSET,
        )
        greeting: Action = _send(connected)
        early, self._early = self._early, []
        return [greeting, *(action for text in early for action in self._answer(text))]

    def caught_up(self) -> None:
        """What came after ``since_id`` has been sent."""
        if self.is_open:
            self._move(On.CAUGHT_UP)

    def vip_changed(self, known: Vip, now_s: float) -> list[Action]:
        """What the store knows of the user is something else now."""
        self._learn(known)
        return self.end_if_over(now_s)

    def refreshed(self, principal: Principal, known: Vip | None, now_s: float) -> list[Action]:
        """Take a verified new token in place of the old one, if it is the same user's and a VIP's."""
        if not self.is_open or self._principal is None:
            return []
        self._is_refreshing = False
        if principal.subject != self._principal.subject:
            return [_error("refresh_refused", "the token is another user's")]
        self._learn(known)
        before, self._principal = self._principal, principal
        if self._over(now_s) is not None:
            self._principal = before
            return self.end_if_over(now_s) or [_error("refresh_refused", "the token is not an active VIP's")]
        self._expect_end(now_s)
        return [_send(messages.Refreshed(_whole(principal.expires_at)))]

    def not_refreshed(self) -> list[Action]:
        """Say that a new token proves nothing; the old one stays."""
        self._is_refreshing = False
        return [_error("refresh_refused", "the token is not valid")] if self.is_open else []

    def heard(self, at: float) -> None:
        """Something came from the client, were it a pong of the protocol."""
        self._heard_at = max(self._heard_at, at)

    def received(self, message: str | bytes | None, at: float) -> list[Action]:
        """Answer one message; ``None`` is an empty binary one."""
        if not self.is_open:
            return []
        self.heard(at)
        if not self._bucket.take(at):
            return self.close(Closing.RATE_LIMITED)
        if not isinstance(message, str):
            return self.close(Closing.BINARY)
        if _size(message) > MESSAGE_BYTES:
            return self.close(Closing.TOO_BIG)
        if self.state is State.CHECKING:
            self._early.append(message)
            return self.close(Closing.TOO_BIG) if sum(map(_size, self._early)) > EARLY_BYTES else []
        return self._answer(message)

    def check(self, now_s: float) -> list[Action]:
        """End a session whose token or VIP is over; tell a minute before that its token is about to end."""
        if (actions := self.end_if_over(now_s)) or now_s < self._expiring_at_s:
            return actions
        assert self._principal is not None  # whose token it is
        self._expiring_at_s = math.inf
        return [_send(messages.Expiring(_whole(self._principal.expires_at)))]

    def end_if_over(self, now_s: float) -> list[Action]:
        """End a session whose token or VIP is over."""
        if not self.is_open or self._principal is None:
            return []
        closing = self._over(now_s)
        return [] if closing is None else self.close(closing)

    def tick(self, at: float, position: int | None = None) -> list[Action]:
        """Ping in either way when that is due, and drop a peer that has been silent for too long.

        Whose filter leaves signals out is told up to where it has all that it wants: it need not come back from before.
        """
        if not self.is_open:
            return []
        if at >= self._heard_at + SILENCE_S:
            return self.close(Closing.TRY_AGAIN)
        due: list[Action] = []
        if at >= self._message_at:
            self._message_at = at + MESSAGE_EVERY_S
            due.append(_send(messages.Ping(msgspec.UNSET if position is None else position)))
        if at >= self._ping_at:
            self._ping_at = at + self._ping_every_s
            due.append(Ping())
        return [] if self.state is State.CHECKING else due

    def close(self, closing: Closing) -> list[Action]:
        """End the session, the first time for good."""
        if not self.is_open:
            return []
        self._move(On.CLOSED)
        self.closing = closing
        return [Close(closing)]

    # What it is made of

    def _move(self, on: On) -> None:
        self.state = TRANSITIONS[self.state, on]

    def _expect_end(self, now_s: float) -> None:
        """Note when to tell of the token's end; of one that is near, its ``expires_at`` has just been told."""
        assert self._principal is not None
        told_at_s = self._principal.expires_at - EXPIRING_S
        self._expiring_at_s = told_at_s if told_at_s > now_s else math.inf

    def _learn(self, known: Vip | None) -> None:
        """Keep the newer of two things that are known: news may overtake an answer of the store."""
        if known is not None and (self._known is None or known.version > self._known.version):
            self._known = known

    def _over(self, now_s: float) -> Closing | None:
        assert self._principal is not None
        if now_s >= self._principal.ends_at:
            return Closing.UNAUTHORIZED
        until = vip_until(self._principal, self._known)
        if self.state is not State.CHECKING and self._known is not None:
            # Revoked and granted anew in between: the grant is for a new session.
            until = None if self._known.revoked_version > self._revocations else until
        return Closing.VIP_REQUIRED if until is None or now_s >= until else None

    def _answer(self, text: str) -> list[Action]:
        try:
            message = _decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return [_error("malformed", 'a message is a JSON object such as {"type": "ping"}')]
        match message.type:
            case "ping":
                return [_send(messages.Pong())]
            case "pong":
                return []
            case "refresh":
                return [self._begin_refresh(message.token)]
            case _:
                return [_error("unknown_type", "known types: ping pong refresh")]

    def _begin_refresh(self, token: str | None) -> Action:
        if token is None:
            return _error("malformed", 'refresh needs a token: {"type": "refresh", "token": "..."}')
        if self._is_refreshing:
            return _error("refresh_refused", "another token is being checked")
        self._is_refreshing = True
        return Refresh(token)


class _ClientMessage(msgspec.Struct, frozen=True):
    type: str
    token: str | None = None


_decode: Final = msgspec.json.Decoder(_ClientMessage).decode
_encode: Final = msgspec.json.Encoder().encode


def _whole(seconds: float) -> float:
    """A time as a whole number where it is one, as nearly every issuer writes it."""
    return int(seconds) if seconds == int(seconds) else seconds


def _size(message: str) -> int:
    return len(message.encode("utf-8", "surrogatepass"))


def _send(message: msgspec.Struct) -> Send:
    return Send(_encode(message).decode())


def _error(code: str, message: str) -> Send:
    return _send(messages.Refusal(code, message))
