"""The control messages of one connection: what a text asks for, what is answered, and how often it may be asked.

Replies are bare JSON even on ``/stream``. A name that does not exist is acknowledged and stays silent; acknowledged
names form a set, so a duplicate changes nothing and one UNSUBSCRIBE ends it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from komas.simulator.options import Limits

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
ID = re.compile(r"[A-Za-z0-9_-]{1,36}")  # the official SDK for Python sends a UUID, hyphens and all (2026-10)
INT64 = 1 << 63
COMBINED = "combined"
POLICY = 1008
BAD_ID = "Invalid request: request ID must be an unsigned integer"
BAD_PROPERTY = "Invalid request: property name must be a string"
TOO_MANY_PARAMETERS = "Invalid request: too many parameters"

RequestId = int | str | None


class RollingWindow:
    """At most ``limit`` in any ``width_s`` seconds: a strict rolling window, not a bucket (nautilus_trader#5012)."""

    def __init__(self, limit: int, width_s: float) -> None:
        self.limit = limit
        self.width_s = width_s
        self._times: deque[float] = deque()

    def admit(self, now_s: float) -> bool:
        """Count one more; false when it is one too many."""
        while self._times and self._times[0] <= now_s - self.width_s:
            self._times.popleft()
        self._times.append(now_s)
        return len(self._times) <= self.limit


class Request(NamedTuple):
    """A control message that could be read."""

    method: str
    params: tuple[object, ...]
    id: RequestId


class Reply(NamedTuple):
    """What a control message leads to. ``close`` is a code and a reason; ``method`` is empty where none was read."""

    body: bytes | None
    method: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    close: tuple[int, str] | None = None


class Refused(Exception):
    """A request that gets an error reply."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Session:
    """What one connection has subscribed to, and whether its events are wrapped."""

    def __init__(self, limits: Limits, known: Callable[[str], bool] = bool, *, combined: bool) -> None:
        self.limits = limits
        self._known = known
        self.combined = combined
        self.names: dict[str, None] = {}  # a set that keeps the order of LIST_SUBSCRIPTIONS

    def start(self, names: list[str]) -> Reply:
        """The names in the URL, which cost no message and get no reply."""
        return self._added(names, None, body=None)

    def read(self, text: str) -> Request | Reply:
        """What a text message asks for; a reply where that cannot be understood."""
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return Reply(self._refusal(3, "Invalid JSON: expected value at line 1 column 1", None))
        identity: RequestId = None
        try:
            body = _object(found)
            method = _method(body)
            identity = _identity(body)
            return Request(method, tuple(_params(body)), identity)
        except Refused as refused:
            return Reply(self._refusal(refused.code, refused.message, identity))

    def perform(self, request: Request) -> Reply:
        """Do what is asked, and answer."""
        try:
            return self._perform(request.method, list(request.params), request.id)
        except Refused as refused:
            return self.refuse(request, refused.code, refused.message)

    def refuse(self, request: Request, code: int, message: str, close: tuple[int, str] | None = None) -> Reply:
        """Answer with an error."""
        return Reply(self._refusal(code, message, request.id), request.method, close=close)

    def _perform(self, method: str, params: list[object], identity: RequestId) -> Reply:
        match method:
            case "SUBSCRIBE":
                return self._added(_names(params), identity, body=_result(None, identity))
            case "UNSUBSCRIBE":
                return self._removed(_names(params), identity)
            case "LIST_SUBSCRIPTIONS":
                if params:
                    raise Refused(2, TOO_MANY_PARAMETERS)
                return Reply(_result(list(self.names), identity), method)
            case "SET_PROPERTY":
                self.combined = _switch(params)
                return Reply(_result(None, identity), method)
            case _:
                _property(params, 1)
                return Reply(_result(self.combined, identity), method)

    def _added(self, names: list[str], identity: RequestId, body: bytes | None) -> Reply:
        if self.limits.strict_names and not all(map(self._known, names)):
            refusal = self._refusal(2, "Invalid request: invalid stream", identity)
            return Reply(refusal, "SUBSCRIBE", close=(POLICY, "Invalid request"))
        fresh = tuple(dict.fromkeys(name for name in names if name not in self.names))
        if len(self.names) + len(fresh) > self.limits.streams:
            refusal = self._refusal(4, "Too many subscriptions", identity)
            return Reply(refusal, "SUBSCRIBE", close=(POLICY, "Invalid request"))
        self.names.update(dict.fromkeys(fresh))
        return Reply(body, "SUBSCRIBE", added=fresh)

    def _removed(self, names: list[str], identity: RequestId) -> Reply:
        gone = tuple(dict.fromkeys(name for name in names if name in self.names))
        for name in gone:
            del self.names[name]
        return Reply(_result(None, identity), "UNSUBSCRIBE", removed=gone)

    def _refusal(self, code: int, message: str, identity: RequestId) -> bytes:
        """An error reply in the shape that the limits ask for."""
        error = {"code": code, "msg": message}
        if self.limits.flat_errors:
            return msgspec.json.encode(error | {"id": identity})
        return msgspec.json.encode({"error": error, "id": identity})


def _result(result: object, identity: RequestId) -> bytes:
    return msgspec.json.encode({"result": result, "id": identity})


def _object(request: object) -> dict[str, object]:
    if not isinstance(request, dict):
        raise Refused(2, "Invalid request: expected a JSON object at line 1 column 1")
    return request


def _method(body: dict[str, object]) -> str:
    if "method" not in body:
        raise Refused(2, "Invalid request: missing field `method` at line 1 column 1")
    method = body["method"]
    if method not in METHODS or not isinstance(method, str):
        accepted = ", ".join(f"`{each}`" for each in METHODS)
        raise Refused(2, f"Invalid request: unknown variant `{method}`, expected one of {accepted} at line 1 column 1")
    return method


def _identity(body: dict[str, object]) -> RequestId:
    identity = body.get("id", False)
    if identity is None:
        return None
    if isinstance(identity, str) and ID.fullmatch(identity):
        return identity
    if isinstance(identity, int) and not isinstance(identity, bool) and -INT64 <= identity < INT64:
        return identity
    raise Refused(2, BAD_ID)


def _params(body: dict[str, object]) -> list[object]:
    params = body.get("params", [])
    if not isinstance(params, list):
        raise Refused(2, "Invalid request: invalid type for `params`, expected a sequence at line 1 column 1")
    return params


def _names(params: list[object]) -> list[str]:
    names = [name for name in params if isinstance(name, str) and is_stream_text(name)]
    if len(names) != len(params):
        raise Refused(2, "Invalid request: invalid stream")
    return names


def is_stream_text(name: str) -> bool:
    """Whether a text has the form of a stream's name, known or not."""
    return ("@" in name and " " not in name) or name.startswith("!")


def _property(params: list[object], accepted: int) -> None:
    if not params or not isinstance(params[0], str):
        raise Refused(2, BAD_PROPERTY)
    if params[0] != COMBINED:
        raise Refused(0, "Unknown property")
    if len(params) > accepted:
        raise Refused(2, TOO_MANY_PARAMETERS)


def _switch(params: list[object]) -> bool:
    _property(params, 2)
    value = params[1] if len(params) > 1 else None
    if not isinstance(value, bool):
        raise Refused(1, "Invalid value type: expected Boolean")
    return value
