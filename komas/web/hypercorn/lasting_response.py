"""A response without an end, once it has begun: its connection does without a request, and one task waits in it.

* A reader that waits for the next event kept what had brought it there: Hypercorn's protocol and h11's, the request as
  ASGI and as Quart have it, and a task that waited for events beside the one that waited for it to leave. Here all of
  that ends once the greeting is out. What is left is what writes, the subscription, and a task that waits for the end.

Who writes: the hub, while the connection takes everything (``hub/broadcast.py``). Once it does not, a task is begun
here, which writes what waits at the connection's pace, and ends when nothing does.

Replaces: nothing; ``TCPConnection`` ends in it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/e2e/test_lasting_response.py::test_a_reader_that_waits_is_one_task
and when ``python -m benchmarks fanout`` shows as little memory for an idle client without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

from komas.hub.broadcast import Writer
from komas.reading import CLIENT_LEFT, read_now
from komas.web.hypercorn.shutdown import Run
from komas.web.hypercorn.socket_writer import LAST_WORDS_S, LEFT_S, SocketWriter
from komas.web.hypercorn.transport import Ended, LastingBody

LAST_CHUNK: Final = b"0\r\n\r\n"  # RFC 9112, 7.1
UNASKED_BYTES: Final = 2**16  # that a client may send behind its request, which nobody will read
READ_BYTES: Final = 2**12


class WaitingWriter(Writer, Protocol):
    """A connection that can be written to with and without waiting."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing more is written."""

    async def write(self, data: bytes) -> None:
        """Write all of it, or lose the connection."""

    async def close(self) -> None:
        """End the connection, behind all that was written."""


class BodyWriter:
    """Writes a body to a connection while the block lasts, together with the hub; fails for this connection alone."""

    __slots__ = ("_body", "_complain", "_is_over", "_nursery", "_writer")

    def __init__(self, body: LastingBody, writer: WaitingWriter, complain: Callable[[BaseException], None]) -> None:
        self._body = body
        self._writer = writer
        self._complain = complain
        self._is_over = False
        self._nursery: trio.Nursery | None = None

    def __enter__(self) -> None:
        self._nursery = trio.lowlevel.current_task().parent_nursery  # where the connection's own task is
        if not self._body.rest(self._write_on):
            self._write_on()

    def __exit__(self, *_failure: object) -> None:
        self._is_over = True
        self._body.leave()

    def _write_on(self) -> None:
        if not self._is_over and self._nursery is not None:
            self._nursery.start_soon(self._catch_up)

    async def _catch_up(self) -> None:
        """Write what waits, at the connection's pace, until nothing does."""
        body, writer = self._body, self._writer
        try:
            if not await self._write_waiting() and not await writer.flush():
                await writer.write(body.heartbeat)  # a connection that is gone shows it here
            while not (self._is_over or writer.is_lost or body.rest(self._write_on)):
                if not await self._write_waiting():
                    await trio.lowlevel.checkpoint()
        except trio.EndOfChannel:
            await writer.write(LAST_CHUNK)
            await writer.close()
        except Exception as error:  # noqa: BLE001 - it is this connection's alone
            self._complain(error)
            await writer.close()

    async def _write_waiting(self) -> bool:
        """Write what waits now; whether there was anything."""
        has_written = False
        for chunk in self._body.take():
            if chunk and not self._writer.is_lost and not self._is_over:
                has_written = True
                await self._writer.write(chunk)
            del chunk  # before the next one is joined
        return has_written


class LastingResponse:
    """One client's connection from the greeting on; ``run()`` in the task that served it until then."""

    __slots__ = ("_body", "_ended", "_run", "_writer")

    def __init__(self, body: LastingBody, writer: SocketWriter, run: Run, ended: Ended | None) -> None:
        self._body = body
        self._writer = writer
        self._run = run
        self._ended = ended

    async def run(self) -> None:
        """Wait until the client leaves, or the body ends."""
        try:
            with BodyWriter(self._body, self._writer, self._run.complain):
                if await self._has_left():
                    # Half a close may come right after a request.
                    self._writer.hurry_parts(LEFT_S)
                    await trio.sleep(LAST_WORDS_S)
        finally:
            self._run.places.leave(self._writer)
            self._writer.let_go()
            if self._ended is not None:
                with trio.CancelScope(shield=True):
                    await self._ended()

    async def _has_left(self) -> bool:
        """Wait until the client sends no more, and drop what it sends; ``False`` where it is gone, or sends a lot."""
        writer, unasked = self._writer, 0
        data: bytes | bytearray | None
        try:
            while unasked < UNASKED_BYTES:
                if writer.is_plain:  # as the stream would, in fewer steps, all of which are kept while nothing comes
                    # Of a socket that was closed no number is left. Trio would remember who waited for -1, and call the
                    # next one's resource busy.
                    if (number := writer.stream.socket.fileno()) < 0:
                        return False
                    await trio.lowlevel.wait_readable(number)
                    data = read_now(writer.stream.socket.fileno(), READ_BYTES)
                else:
                    data = await writer.stream.receive_some(READ_BYTES)
                if data is not None and not data:
                    return True
                unasked += len(data or b"")
        except (*CLIENT_LEFT, OSError):
            pass
        return False
