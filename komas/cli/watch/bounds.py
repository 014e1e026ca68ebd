"""How much a server may send before it makes sense: what is read into memory has an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

import httpx

from komas.errors import CallerError

EVENT_BYTES: Final = 2**20  # the largest of ours, a book of 50 levels, has 4 KB
ANSWER_BYTES: Final = 2**26  # a status of 10,000 streams has 3 MB
_EVENTS: Final = "text/event-stream"
_PLAIN: Final = ("", "identity")

Check: TypeAlias = Callable[[bytes], None]


class EventBound:
    """Counts the bytes of the event that has begun; a line without an end is a part of it. Sans-I/O."""

    def __init__(self, most: int = EVENT_BYTES) -> None:
        self._most = most
        self._event = 0  # bytes of lines that have ended
        self._line = 0  # bytes of the line that has not
        self._is_comment = False  # that line, which is kept only until it ends
        self._ends_in_cr = False

    def take(self, chunk: bytes) -> None:
        """Raise ``CallerError`` where one event is too long; comments between events are none."""
        if self._ends_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the rest of an end of line
        self._ends_in_cr = chunk.endswith(b"\r")
        for piece in chunk.splitlines(keepends=True):
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        if self._line == 0:
            self._is_comment = piece.startswith(b":")
        text = piece.rstrip(b"\r\n")
        self._line += len(text)
        if self._event + self._line > self._most:
            raise CallerError(f"the server sends an event of more than {self._most:,} bytes; is it a komas server?")
        if len(text) == len(piece):
            return
        if self._line == 0:
            self._event = 0
        elif not self._is_comment:
            self._event += self._line
        self._line = 0


class AnswerBound:
    """Counts the bytes of one answer. Sans-I/O."""

    def __init__(self, most: int = ANSWER_BYTES) -> None:
        self._most = most
        self._bytes = 0

    def take(self, chunk: bytes) -> None:
        """Raise ``CallerError`` where the answer is too long."""
        self._bytes += len(chunk)
        if self._bytes > self._most:
            raise CallerError(f"the server's answer has more than {self._most:,} bytes; is it a komas server?")


class _Checked(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, check: Check) -> None:
        self._stream = stream
        self._check = check

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._check(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound(response: httpx.Response) -> None:
    """Bound what is read of a response: a hook of ``httpx.AsyncClient``, called before its body is read.

    Raises ``CallerError`` for a body that is compressed, which nobody asked for: a few bytes of it may be gigabytes.
    """
    if response.headers.get("content-encoding", "").strip().lower() not in _PLAIN:
        raise CallerError("the server compresses its answer, though it was asked not to; is it a komas server?")
    assert isinstance(response.stream, httpx.AsyncByteStream)  # that of an AsyncClient
    is_events = response.headers.get("content-type", "").startswith(_EVENTS)
    response.stream = _Checked(response.stream, (EventBound() if is_events else AnswerBound()).take)
