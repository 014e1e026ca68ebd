"""One connection under Hypercorn, over a stream of ours: time is the clock's, and nobody has a socket."""

from __future__ import annotations

import socket
from collections import deque
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, LifespanState, Scope

from komas.web.hypercorn.connection import (
    ANSWER_S,
    LAST_WORDS_S,
    LAST_WRITE_S,
    SEND_DEADLINE_S,
    WRITE_BYTES,
    Connection,
    install,
    is_exposed,
)
from komas.web.hypercorn.request import SCOPE_LEAVING

GRACE_S = 1.0
CHUNKS = 10
LARGE = 5 * WRITE_BYTES


class _Address:
    """As much of a socket as Hypercorn asks for."""

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.1", 40000

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 8000


class _SlowStream(trio.abc.Stream):
    """A client that asks once, takes each write after so many seconds, and leaves when it is told to."""

    def __init__(self, takes_s: float, *pieces: bytes) -> None:
        self.socket = _Address()
        self._takes_s = takes_s
        self._pieces = deque(pieces or [b"GET / HTTP/1.1\r\nHost: komas.test\r\n\r\n"])
        self._closed = trio.Event()
        self.taken = b""
        self.writes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._takes_s):
            await self._closed.wait()
            raise trio.ClosedResourceError
        self.taken += data
        self.writes += 1

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert max_bytes is not None
        await trio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.popleft()
        await self._closed.wait()
        return b""

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


async def _answer(scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A response in many chunks."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
    for number in range(CHUNKS):
        await send({"type": "http.response.body", "body": b"%d;" % number, "more_body": number < CHUNKS - 1})


async def _say_much(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A response in one large piece."""
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
    await send({"type": "http.response.body", "body": bytes(LARGE), "more_body": False})


async def _go_on(scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A response without an end, as ours are: it is cancelled when its client leaves."""
    assert scope["type"] == "http"
    with cast("trio.CancelScope", scope["state"][SCOPE_LEAVING]):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await trio.sleep(0.1)


async def _serve(stream: _SlowStream, app: ASGIFramework = _answer, context: WorkerContext | None = None) -> None:
    config = Config()
    config.graceful_timeout = GRACE_S
    context = context or WorkerContext(None)
    await Connection(ASGIWrapper(app), config, context, LifespanState({}), stream).run()  # type: ignore[arg-type]


async def test_a_client_that_takes_its_time_gets_all(autojump_clock: trio.testing.MockClock) -> None:
    """While nobody stops the server."""
    stream = _SlowStream(0.8)
    install()
    with trio.move_on_after(30):
        await _serve(stream)
    assert b"9;" in stream.taken


@pytest.mark.parametrize("takes_s", [0.05, 0.3, 0.8, 5.0])
async def test_all_writes_after_a_stop_share_one_deadline(
    takes_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """However many are still to come, and however slowly each one is taken."""
    stream, run, context = _SlowStream(takes_s), install(), WorkerContext(None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, stream, _answer, context)
        await trio.sleep(0.2)
        run.drain()
        await context.terminated.set()  # as Hypercorn does, right after
        stopped_at = trio.current_time()
    assert trio.current_time() - stopped_at <= GRACE_S + LAST_WRITE_S
    assert (b"9;" in stream.taken) == (takes_s == 0.05)


async def test_a_large_answer_has_its_deadline_for_each_part(autojump_clock: trio.testing.MockClock) -> None:
    """A line is slow; whoever reads on gets all."""
    stream = _SlowStream(SEND_DEADLINE_S * 0.9)
    install()
    with trio.move_on_after(SEND_DEADLINE_S * 20):
        await _serve(stream, _say_much)
    assert len(stream.taken) > LARGE
    assert stream.writes >= LARGE // WRITE_BYTES


class _HalfClosed(_SlowStream):
    """A client that asks, says that it sends no more, and reads."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.popleft() if self._pieces else b""


@pytest.mark.parametrize(("takes_s", "is_answered"), [(0.0, True), (0.4, True), (3.0, True), (20.0, False)])
async def test_a_client_that_sends_no_more_gets_its_answer(
    takes_s: float,
    is_answered: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As ``nc -N`` waits for it; but not for ever, for it may as well have left."""

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        with cast("trio.CancelScope", scope["state"][SCOPE_LEAVING]):
            await trio.sleep(takes_s)
            await _answer(scope, receive, send)

    stream = _HalfClosed(0)
    install()
    with trio.fail_after(ANSWER_S + 2 * LAST_WORDS_S):
        await _serve(stream, answer)
    assert (b"9;" in stream.taken) is is_answered


async def test_a_stream_ends_soon_for_a_client_that_sends_no_more(autojump_clock: trio.testing.MockClock) -> None:
    """It has most likely left."""
    install()
    with trio.fail_after(2 * LAST_WORDS_S):
        await _serve(_HalfClosed(0), _go_on)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
async def test_a_head_in_pieces_leaves_no_task(size: int, autojump_clock: trio.testing.MockClock) -> None:
    """Also where another protocol was offered, which has h11 wait, in whoever reads, for what the answer will be."""
    head = b"GET /%b HTTP/1.1\r\nHost: komas.test\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
    head %= b"x" * (-len(head % b"") % size)  # the last piece is no shorter
    stream = _SlowStream(0, *(head[at : at + size] for at in range(0, len(head), size)))
    install()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, stream, _go_on)
            await trio.sleep(1)
            assert b"200" in stream.taken
            await stream.aclose()


@pytest.mark.parametrize(
    ("key", "binds", "exposed"),
    [
        ("bind", ["127.0.0.1:8000", "[::1]:8000", "localhost:8000", "unix:/run/komas.sock"], False),
        ("bind", ["127.0.0.1:8000", "0.0.0.0:8000"], True),
        ("bind", ["[::]:8000"], True),
        ("insecure_bind", ["0.0.0.0:8000"], True),
        ("quic_bind", ["192.0.2.1:443"], True),
    ],
)
def test_what_hypercorn_is_bound_to_decides_whether_others_reach_us(key: str, binds: list[str], exposed: bool) -> None:  # noqa: FBT001 - a table
    """Every one of its lists."""
    config = Config()
    setattr(config, key, binds)
    assert is_exposed(config) is exposed


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_that_was_handed_down_is_looked_at(tmp_path: Path) -> None:
    """As systemd does."""
    with socket.socket() as loopback, socket.socket() as everywhere, socket.socket(socket.AF_UNIX) as unix:
        loopback.bind(("127.0.0.1", 0))
        everywhere.bind(("0.0.0.0", 0))
        unix.bind(str(tmp_path / "socket"))
        for listener, exposed in ((loopback, False), (everywhere, True), (unix, False)):
            config = Config()
            config.bind = [f"fd://{listener.fileno()}"]
            assert is_exposed(config) is exposed
