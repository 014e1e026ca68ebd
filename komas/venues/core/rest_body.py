"""The body of an answer, unpacked and bounded; beside ``rest``, which loads httpx only when something is asked.

httpx unpacks what it is sent to the end: five megabytes of gzip were five gigabytes in memory. Here a body is unpacked
in pieces, other tasks run in between, and it ends where it is longer than any honest answer.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import httpx
import trio

from komas.errors import Cause, VenueError

ACCEPTED: Final = "gzip"  # what a request asks for
LIMIT: Final = "komas.limit"  # the extension of a request that is the ``BodyLimit`` of its answer
_PIECE_BYTES: Final = 2**16  # unpacked in some tenths of a millisecond
_ANY_ZLIB: Final = 32 + zlib.MAX_WBITS  # gzip, or zlib, as the first bytes say
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN: Final = frozenset({"", "identity"})


class BodyLimit:
    """How long an answer may be, packed and unpacked; ``cancel`` ends the request, and ``failure`` says why.

    ``note_head`` is called with an answer whose body is still to come.

    A request that only stops to read leaves httpx's generators where they were, to be found by the garbage collector.
    One that is cancelled ends them where they wait for the socket.
    """

    def __init__(
        self, most_bytes: int, cancel: Callable[[], None], note_head: Callable[[httpx.Response], None]
    ) -> None:
        self.most_bytes = most_bytes
        self.note_head = note_head
        self._cancel = cancel
        self.failure: VenueError | None = None

    def fail(self, words: str) -> None:
        """End the request."""
        self.failure = VenueError(words, cause=Cause.PROTOCOL)
        self._cancel()


async def bound(response: httpx.Response) -> None:
    """Let httpx read no more of an answer than its request allows: a hook, called before the body is read.

    Raises ``VenueError`` where it is packed in a way that was not asked for.
    """
    limit: BodyLimit = response.request.extensions[LIMIT]
    limit.note_head(response)
    encoding = response.headers.pop("content-encoding", "").strip().lower()
    if encoding not in _PACKED | _PLAIN:
        words = f"{response.request.url.path} was answered with an encoding that was not asked for"
        raise VenueError(words, cause=Cause.PROTOCOL)
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    response.stream = _Body(stream, encoding, response.request.url.path, limit)


class _Body(httpx.AsyncByteStream):
    """A body that is unpacked while it is read."""

    def __init__(self, packed: httpx.AsyncByteStream, encoding: str, path: str, limit: BodyLimit) -> None:
        self._packed = packed
        self._path = path
        self._limit = limit
        self._came = self._unpacked = 0
        self._unpack = _Unpacker().unpack if encoding in _PACKED else _as_it_is

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._packed:
            # After a failure nothing is read any more, until the socket is waited for: that is cancelled.
            for piece in () if self._limit.failure else self._pieces(data):
                yield piece
                # Shielded: httpx is to be cancelled where it waits, and nowhere else.
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """What some bytes unpack to, up to the limit."""
        self._came += len(data)  # what follows the end of a gzip unpacks to nothing
        try:
            for piece in self._unpack(data):
                self._unpacked += len(piece)
                if self._unpacked > self._limit.most_bytes:
                    break
                yield piece
        except zlib.error as error:
            self._limit.fail(f"{self._path} answered what cannot be unpacked: {error}")
        if max(self._came, self._unpacked) > self._limit.most_bytes:
            self._limit.fail(f"{self._path} answered more than {self._limit.most_bytes:,} bytes")

    async def aclose(self) -> None:
        await self._packed.aclose()


class _Unpacker:
    """Unpacks in pieces."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_ANY_ZLIB)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """What these bytes add."""
        while piece := self._zlib.decompress(data, _PIECE_BYTES):
            yield piece
            data = self._zlib.unconsumed_tail


def _as_it_is(data: bytes) -> Iterator[bytes]:
    yield data
