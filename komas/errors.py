"""The error tree: whose fault it was, and the evidence.

``CallerError`` is the caller's to mend, ``VenueError`` is the exchange's or the network's, ``Dismissed`` is a
listener that fell behind. What is none of these is a bug, travels up, and stops the process.
"""

from __future__ import annotations

from enum import Enum


class KomasError(Exception):
    """The root of every error that komas raises on purpose."""


class CallerError(KomasError):
    """The caller asked for something that cannot be: ``field`` names what was wrong, when one field was."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class SettingError(CallerError):
    """A setting has a value that komas cannot use; the message names the key, the value and what is accepted."""


class Dismissed(KomasError):
    """A listener could not keep up with facts that must not be dropped, and was let go."""


class Cause(Enum):
    """Why a conversation with a venue failed; it decides how long to wait before the next try."""

    NETWORK = "network"  # DNS, refused, cut, time-out, TLS, 5xx: the road is bad, the venue did not say no
    REFUSED = "refused"  # 403, 418, 429, 451, other 4xx: the venue said no
    PROTOCOL = "protocol"  # what came was not the protocol
    SILENT = "silent"  # connected, and nothing comes
    CLOSED = "closed"  # the venue ended the conversation


class VenueError(KomasError):
    """The exchange, or the road to it, failed.

    ``status`` is the HTTP status of the refusal, ``retry_after_s`` what the venue asked for in ``Retry-After``
    (seconds), ``code`` the venue's own error code or the WebSocket close code; each is ``None`` where there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: Cause,
        status: int | None = None,
        retry_after_s: float | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.retry_after_s = retry_after_s
        self.code = code
