"""A connection without a request around it, over real sockets: who is left in it, and how it ends."""

from __future__ import annotations

import gc
import logging
import socket
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from komas.hub.broadcast import Writer
from komas.settings import Settings
from komas.web.hypercorn import lasting_response, socket_writer
from komas.web.hypercorn.install import install
from komas.web.hypercorn.lasting_response import UNASKED_BYTES, LastingResponse
from komas.web.hypercorn.shutdown import Run
from komas.web.hypercorn.socket_writer import SocketWriter
from komas.web.hypercorn.transport import transport_of
from komas.web.sse import framed
from tests.web.hypercorn.clients import serve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are written to as streams there")

REQUEST = b"GET /events HTTP/1.1\r\nHost: komas\r\n\r\n"
CHUNK = b"x" * 2**16


class Body:
    """A body whose test says what waits."""

    heartbeat = framed(b":\n")

    def __init__(self) -> None:
        self.waiting: deque[bytes | BaseException] = deque()
        self.rests = trio.Event()  # nobody writes
        self.has_left = trio.Event()
        self._woken: Callable[[], None] | None = None

    def put(self, *chunks: bytes | BaseException) -> None:
        """Have it written by a task."""
        self.waiting += chunks
        woken, self._woken = self._woken, None
        if woken is not None:
            self.rests = trio.Event()
            woken()

    def rest(self, woken: Callable[[], None]) -> bool:
        """As a subscription does."""
        if self.waiting:
            return False
        self._woken = woken
        self.rests.set()
        return True

    def take(self) -> Iterator[bytes]:
        """One chunk, or what it raises."""
        if not self.waiting:
            return iter(())
        chunk = self.waiting.popleft()
        if isinstance(chunk, BaseException):
            raise chunk
        return iter((framed(chunk),))

    def leave(self) -> None:
        """The end."""
        assert not self.has_left.is_set()
        self.has_left.set()
        self._woken = None


class Reader:
    """A client, its body, and the server's run."""

    def __init__(self, stream: trio.SocketStream, run: Run, is_served: weakref.ref[trio.SocketStream]) -> None:
        self.stream = stream
        self.run = run
        self.body = Body()
        self.writer: Writer
        self._is_served = is_served

    @property
    def is_freed(self) -> bool:
        """Whether nothing of the connection is left."""
        return self._is_served() is None

    async def read(self, size: int) -> bytes:
        """So many bytes, or what there was until the end."""
        found = b""
        while len(found) < size and (data := await self.stream.receive_some()):
            found += data
        return found

    async def app(self, scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """A response that the connection takes over after its greeting."""
        transport = transport_of(scope)
        take_over = transport.take_over
        assert take_over is not None
        assert transport.writer is not None
        self.writer = transport.writer
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        take_over(self.body)


async def _serve(stream: trio.SocketStream, app: ASGIFramework) -> None:
    async with stream:
        await serve(stream, app)


@asynccontextmanager
async def reading() -> AsyncIterator[Reader]:
    """One who has the greeting; the block is left once the server has ended the connection."""
    run = install(Settings())
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    reader = Reader(theirs, run, weakref.ref(ours))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, theirs:
            nursery.start_soon(_serve, ours, reader.app)
            del ours
            await theirs.send_all(REQUEST)
            head = b""
            while not head.endswith(framed(b"hello")):
                head += await theirs.receive_some()
            await reader.body.rests.wait()
            yield reader
    assert reader.body.has_left.is_set()
    assert run.places.statistics().present == 0


async def test_a_reader_that_waits_is_one_task() -> None:
    """Which waits for it to leave: whatever brought it there is gone."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with reading() as reader:
        assert trio.lowlevel.current_statistics().tasks_living - before == 1
        assert reader.run.places.statistics().present == 1


async def test_what_waits_is_written_and_the_task_for_it_ends() -> None:
    """As often as there is something."""
    async with reading() as reader:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for count in (1, 3, 30):
            reader.body.put(*[CHUNK] * count)
            expected = framed(CHUNK) * count
            assert await reader.read(len(expected)) == expected
            await reader.body.rests.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_who_is_woken_for_nothing_writes_a_heartbeat() -> None:
    """A connection that took nothing of one, and is gone, is found out."""
    async with reading() as reader:
        reader.body.put()
        assert await reader.read(len(Body.heartbeat)) == Body.heartbeat


async def test_the_end_of_the_body_is_the_end_of_the_connection() -> None:
    """Behind all that waited."""
    async with reading() as reader:
        reader.body.put(b"last", trio.EndOfChannel())
        assert await reader.read(1000) == framed(b"last") + b"0\r\n\r\n"


async def test_a_connection_is_freed_when_its_client_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collector."""
    monkeypatch.setattr(lasting_response, "LAST_WORDS_S", 0)
    gc.collect()
    gc.disable()
    try:
        async with reading() as reader:
            del reader.writer
        assert reader.is_freed
    finally:
        gc.enable()


async def test_a_connection_is_freed_after_a_response_that_ends() -> None:
    """What it was offered, and had no use for, leads back to it."""

    async def answer(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})

    install(Settings())
    gc.collect()
    gc.disable()
    try:
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        freed = weakref.ref(ours)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, theirs:
                nursery.start_soon(_serve, ours, answer)
                del ours
                await theirs.send_all(REQUEST)
                assert (await theirs.receive_some()).startswith(b"HTTP/1.1 200")
        assert freed() is None
    finally:
        gc.enable()


async def test_where_trio_has_no_such_part_sockets_are_written_to_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written at once is written past Trio."""
    monkeypatch.setattr(socket_writer, "_PART", "none")
    async with reading() as reader:
        assert reader.writer.write_nowait(framed(b"hub")) == 0
        reader.body.put(CHUNK)
        expected = framed(b"hub") + framed(CHUNK)
        assert await reader.read(len(expected)) == expected
        await reader.stream.aclose()
        await reader.body.has_left.wait()
        assert reader.writer.write_nowait(b"x") == 1


async def test_half_a_close_is_given_some_more() -> None:
    """As ``nc -N`` does right after a request."""
    async with reading() as reader:
        await reader.stream.send_eof()
        await trio.sleep(0.05)
        assert not reader.body.has_left.is_set()
        reader.body.put(b"more")
        assert await reader.read(1000) == framed(b"more")


async def test_who_sends_on_is_heard_for_a_while() -> None:
    """Requests behind one whose response has no end; but nobody's sending is read for ever."""
    async with reading() as reader:
        await reader.stream.send_all(REQUEST * 3)
        await trio.sleep(0.05)
        reader.body.put(b"still here")
        assert await reader.read(len(framed(b"still here"))) == framed(b"still here")
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(100):
                await reader.stream.send_all(bytes(UNASKED_BYTES))


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline of one write, whatever it was."""
    monkeypatch.setattr(socket_writer, "SEND_DEADLINE_S", 0.2)
    async with reading() as reader:
        for _ in range(200):
            reader.body.put(CHUNK)
        await reader.body.has_left.wait()
        assert reader.run.cut_off == 1


async def test_a_connection_that_was_closed_at_once_ends_by_itself() -> None:
    """Twice: Trio remembered who waited for the first one's number, -1, and the second one ended the server."""
    run = install(Settings())
    for _ in range(2):
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        async with theirs:
            writer, body = SocketWriter(ours, run, 1.0), Body()
            ours.socket.close()
            with trio.fail_after(10):
                await LastingResponse(body, writer, run, None).run()
            assert body.has_left.is_set()


async def test_a_server_that_stops_hurries_the_write_that_is_under_way() -> None:
    """It waits for no deadline of ten seconds."""
    async with reading() as reader:
        for _ in range(200):
            reader.body.put(CHUNK)
        await trio.sleep(0.1)
        with trio.fail_after(3):
            reader.run.drain()
            await reader.body.has_left.wait()


async def test_a_failure_is_this_connections_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It ends, and that is logged."""
    async with reading() as reader:
        reader.body.put(ZeroDivisionError("of the body"))
        assert await reader.read(1000) == b""
    assert "connection failed" in caplog.text


async def test_the_access_log_has_its_line_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the status that was sent; of a query nothing."""
    monkeypatch.setattr(Config, "accesslog", logging.getLogger("test.access"), raising=False)
    caplog.set_level(logging.INFO)
    async with reading():
        assert "/events" not in caplog.text
    assert '"GET /events 1.1" 200' in caplog.text
