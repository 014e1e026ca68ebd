"""One connection under Hypercorn, over a stream of ours: time is the clock's, and nobody has a socket."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import trio
import trio.testing
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from komas.settings import Settings
from komas.web.hypercorn.install import install
from komas.web.hypercorn.lasting_socket import LINGER_S
from komas.web.hypercorn.shutdown import LAST_WRITE_S
from komas.web.hypercorn.socket_writer import LAST_WORDS_S, LEFT_S, SEND_DEADLINE_S, WRITE_BYTES
from komas.web.hypercorn.tcp_connection import ANSWER_S
from komas.web.hypercorn.transport import transport_of
from tests.web.hypercorn.clients import GRACE_S, Idle, SlowClient, serve

CHUNKS = 10
LARGE = 5 * WRITE_BYTES


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


def _leaving(scope: Scope) -> trio.CancelScope:
    leaving = transport_of(scope).leaving
    assert leaving is not None
    return leaving


async def _go_on(scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A response without an end, as ours are: it is cancelled when its client leaves."""
    assert scope["type"] == "http"
    with _leaving(scope):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await trio.sleep(0.1)


async def test_a_client_that_takes_its_time_gets_all(autojump_clock: trio.testing.MockClock) -> None:
    """While nobody stops the server."""
    stream = SlowClient(0.8)
    install(Settings())
    with trio.move_on_after(30):
        await serve(stream, _answer)
    assert b"9;" in stream.taken


@pytest.mark.parametrize("takes_s", [0.05, 0.3, 0.8, 5.0])
async def test_all_writes_after_a_stop_share_one_deadline(
    takes_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """However many are still to come, and however slowly each one is taken."""
    stream, run, context = SlowClient(takes_s), install(Settings()), WorkerContext(None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, stream, _answer, context)
        await trio.sleep(0.2)
        run.drain()
        await context.terminated.set()  # as Hypercorn does, right after
        stopped_at = trio.current_time()
    assert trio.current_time() - stopped_at <= GRACE_S + LAST_WRITE_S
    assert (b"9;" in stream.taken) == (takes_s == 0.05)


async def test_a_large_answer_has_its_deadline_for_each_part(autojump_clock: trio.testing.MockClock) -> None:
    """A line is slow; whoever reads on gets all."""
    stream = SlowClient(SEND_DEADLINE_S * 0.9)
    install(Settings())
    with trio.move_on_after(SEND_DEADLINE_S * 20):
        await serve(stream, _say_much)
    assert len(stream.taken) > LARGE
    assert stream.writes >= LARGE // WRITE_BYTES


class _HalfClosed(SlowClient):
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
        with _leaving(scope):
            await trio.sleep(takes_s)
            await _answer(scope, receive, send)

    stream = _HalfClosed(0)
    install(Settings())
    with trio.fail_after(ANSWER_S + 2 * LAST_WORDS_S):
        await serve(stream, answer)
    assert (b"9;" in stream.taken) is is_answered


@pytest.mark.parametrize("answer", [_answer, _go_on])
async def test_a_connection_is_freed_when_it_ends(
    answer: ASGIFramework, autojump_clock: trio.testing.MockClock
) -> None:
    """It led back to itself: forty objects each, which the collector had to find, in 100 ms at a time."""
    stream = _HalfClosed(0)
    freed = weakref.ref(stream)
    install(Settings())
    gc.collect()
    gc.disable()
    try:
        await serve(stream, answer)
        del stream
        assert freed() is None
    finally:
        gc.enable()


async def test_a_stream_ends_soon_for_a_client_that_sends_no_more(autojump_clock: trio.testing.MockClock) -> None:
    """It has most likely left."""
    install(Settings())
    with trio.fail_after(2 * LAST_WORDS_S):
        await serve(_HalfClosed(0), _go_on)


async def test_a_write_to_who_sends_no_more_is_hurried(autojump_clock: trio.testing.MockClock) -> None:
    """A reader that left while a write to it waited kept its place for ten seconds more."""
    install(Settings())
    with trio.fail_after(LEFT_S + 2 * LAST_WORDS_S):
        await serve(_HalfClosed(SEND_DEADLINE_S * 0.9), _go_on)


async def test_who_sends_no_more_and_reads_on_gets_a_large_answer(autojump_clock: trio.testing.MockClock) -> None:
    """Part by part."""
    stream = _HalfClosed(LEFT_S * 0.9)
    install(Settings())
    with trio.fail_after(SEND_DEADLINE_S * 2):
        await serve(stream, _say_much)
    assert len(stream.taken) > LARGE


async def test_a_failure_of_protocol_code_costs_one_connection(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends there, and is logged; whoever serves the others is told nothing of it."""

    class Broken(WorkerContext):
        """What Hypercorn asks in the middle of a request."""

        async def mark_request(self) -> None:
            raise ZeroDivisionError

    install(Settings())
    with trio.fail_after(10):
        await serve(SlowClient(0), _answer, Broken(None))
    assert "connection failed" in caplog.text


class _Refused(SlowClient):
    """A client that sends on for a while after it is answered, and closes once the server has."""

    def __init__(self, *pieces: bytes, closes_after_s: float) -> None:
        super().__init__(0, *pieces)
        self.half_closed_at: float | None = None
        self.closed_at: float | None = None
        self._half_closed = trio.Event()
        self._closes_after_s = closes_after_s

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._half_closed.is_set():
            self.half_closed_at = trio.current_time()
            self._half_closed.set()

    async def aclose(self) -> None:
        if not self._closed.is_set():
            self.closed_at = trio.current_time()
        await super().aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._pieces:
            return await super().receive_some(max_bytes)
        await self._half_closed.wait()
        with trio.move_on_after(self._closes_after_s):
            await self._closed.wait()
        return b""


@pytest.mark.parametrize("body", [b"", b"x" * 10])
@pytest.mark.parametrize("closes_after_s", [0.1, 60.0])
async def test_a_request_that_is_refused_is_heard_out(
    closes_after_s: float, body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """The server closes first, and reads until the client has closed, too: a reset would destroy the refusal."""
    head = b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 20\r\n\r\n"
    stream = _Refused(head + body, closes_after_s=closes_after_s)
    install(Settings())
    began = trio.current_time()
    with trio.fail_after(LINGER_S + 1):
        await serve(stream, _answer)
    assert stream.taken.startswith(b"HTTP/1.1 400")
    assert stream.half_closed_at == began
    assert stream.closed_at == pytest.approx(began + min(closes_after_s, LINGER_S))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
async def test_a_head_in_pieces_leaves_no_task(size: int, autojump_clock: trio.testing.MockClock) -> None:
    """Also where another protocol was offered, which has h11 wait, in whoever reads, for what the answer will be."""
    head = b"GET /%b HTTP/1.1\r\nHost: komas.test\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
    head %= b"x" * (-len(head % b"") % size)  # the last piece is no shorter
    stream = SlowClient(0, *(head[at : at + size] for at in range(0, len(head), size)))
    install(Settings())
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, stream, _go_on)
            await trio.sleep(1)
            assert b"200" in stream.taken
            await stream.aclose()


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Host: a b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Host: a b\r\nContent-Length: 10\r\n",
    ],
)
async def test_a_refusal_is_whole_for_a_client_that_sends_no_more(
    lines: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Whichever of them is first: the refusal, or the news that the client has closed its side."""
    stream = _HalfClosed(0, b"GET / HTTP/1.1\r\n%b\r\n" % lines)
    install(Settings())
    with trio.fail_after(ANSWER_S):
        await serve(stream, _answer)
    head, _, body = stream.taken.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["status"] == 400


async def test_one_address_has_so_many_connections_and_no_more(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The next is closed at once, without a word; who has no request gives way, and that is for its own log alone."""
    run = install(Settings(max_connections_per_address=2))
    busy, refused, idle = [SlowClient(0), SlowClient(0)], SlowClient(0), Idle()
    async with trio.open_nursery() as nursery:
        for client in busy:
            nursery.start_soon(serve, client, _go_on)
        await trio.sleep(1)
        with trio.fail_after(1):
            await serve(refused, _go_on)
        assert refused.taken == b""
        assert "2 connections of 192.0.2.1 are open" in caplog.text
        await busy.pop().aclose()
        await trio.sleep(1)
        nursery.start_soon(serve, idle, _go_on)
        await trio.sleep(1)
        with trio.move_on_after(1):
            await serve(SlowClient(0), _go_on)
        assert idle.socket.is_closed
        assert (run.places.statistics().refused, run.places.statistics().gave_way) == (1, 1)
        await busy.pop().aclose()
        await idle.aclose()
    assert run.places.statistics().present == 0
