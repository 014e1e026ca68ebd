"""The error tree: whose fault it was, and the evidence.

``CallerError`` is the caller's to mend, ``VenueError`` is the exchange's or the network's, ``SlowConsumer`` is a
subscriber that fell behind, ``StoreUnavailable`` is the database's; ``Unauthorized`` is a token that proves nothing,
``Forbidden`` a caller who may not. What is none of these is a bug, travels up, and stops the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class KomasError(Exception):
    """The root of every error that komas raises on purpose.

    It survives ``pickle`` and ``copy`` with all its attributes, whatever its constructor asks for; as with every
    exception of Python, ``__cause__`` stays behind.
    """

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[KomasError], args: tuple[object, ...], attributes: dict[str, object]) -> KomasError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class CallerError(KomasError):
    """The caller asked for something that cannot be: ``field`` names what was wrong, when one field was."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class CallerErrors(CallerError):
    """Several things were wrong with what the caller sent: ``fields`` has each, its field and the words for it."""

    def __init__(self, errors: Sequence[CallerError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.fields = tuple((error.field, str(error)) for error in errors)


class KeyReused(CallerError):
    """An idempotency key came back with another draft."""


class SettingError(CallerError):
    """A setting has a value that komas cannot use; the message names the key, the value and what is accepted."""


class SlowConsumer(KomasError):
    """A subscriber could not keep up with events that must not be dropped, and was let go."""


class StoreUnavailable(KomasError):
    """The store of signals could not be read or written; the message has the database's own words."""


class Unauthorized(KomasError):
    """A token proves nothing; the message is for the log alone, the caller is told no more than that."""


class Forbidden(KomasError):
    """The caller is known, and may not do this; the message says what it would need."""


class Closing(Enum):
    """How a signal socket is closed: close code, reason, and whether the client should come back by itself.

    Codes are RFC 6455's and the IANA registry's; a browser shows both in ``onclose``.
    """

    NORMAL = (1000, "", False)
    SHUTTING_DOWN = (1001, "Server shutting down", True)
    PROTOCOL = (1002, "", False)
    BINARY = (1003, "", False)
    NOT_UTF8 = (1007, "", False)
    UNAUTHORIZED = (1008, "Unauthorized", False)
    VIP_REQUIRED = (1008, "VIP subscription required", False)
    RATE_LIMITED = (1008, "Rate limit exceeded", False)
    DISCONNECTED = (1008, "Disconnected by an administrator", False)
    ORIGIN_NOT_ALLOWED = (1008, "Origin not allowed", False)
    WRONG_SINCE = (1008, "Invalid since_id", False)
    WRONG_REQUEST = (1008, "Invalid request", False)
    TOO_BIG = (1009, "", False)
    FAILED = (1011, "Internal error", True)
    TRY_AGAIN = (1013, "Try again later", True)

    @property
    def code(self) -> int:
        """The close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The reason, as the client sees it."""
        return self.value[1]

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether a client may come back as it was, after a while."""
        return self.value[2]


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
    ``words`` are the venue's own, without ours.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: Cause,
        status: int | None = None,
        retry_after_s: float | None = None,
        code: int | None = None,
        words: str = "",
    ) -> None:
        super().__init__(message)
        self.words = words
        self.cause = cause
        self.status = status
        self.retry_after_s = retry_after_s
        self.code = code


def words_of(error: BaseException) -> str:
    """What an error says; where it says nothing, its name and what its cause says."""
    if words := str(error):
        return words
    cause = error.__cause__ or error.__context__
    return type(error).__name__ if cause is None else f"{type(error).__name__}: {words_of(cause)}"


def alone(error: BaseException) -> BaseException:
    """What a group of groups holds where that is one error; the whole group where it holds several.

    ``SystemExit`` and ``KeyboardInterrupt`` end the program, so one of them stands for all that ended beside it.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    errors = [alone(each) for each in error.exceptions]
    ending = [each for each in errors if isinstance(each, SystemExit | KeyboardInterrupt)]
    return ending[0] if ending else errors[0] if len(errors) == 1 else error


def first_of(error: BaseException) -> BaseException:
    """The first error in a group of groups, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
