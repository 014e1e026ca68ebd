"""Every way in which a dial can fail ends within its bound, and says what it was."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_server_stream
from wsproto.utilities import generate_accept_token

from komas.errors import CallerError, Cause, VenueError
from komas.venues.core.frame_reader import BEGINNING, Handshake
from komas.venues.core.websocket import (
    CONNECT_TIMEOUT_S,
    MESSAGE_MAX_BYTES,
    PASSED_OVER_BYTES,
    SEND_TIMEOUT_S,
    Socket,
    asked_wait_s,
    dial,
    retry_after_s,
    why_tls_failed,
    why_unreachable,
)

URL = "ws://exchange.test:9443/stream?streams=btcusdt@trade"


class Door:
    """Opens a memory stream and runs a server on its other end."""

    def __init__(self, nursery: trio.Nursery, serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._serve = serve
        self.ours: trio.abc.Stream | None = None

    async def __call__(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Open."""
        assert (host, port, tls) == ("exchange.test", 9443, False)
        self.ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return self.ours


async def _fails(nursery: trio.Nursery, serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> VenueError:
    with pytest.raises(VenueError) as caught:
        await dial(nursery, URL, sent=lambda: None, open_stream=Door(nursery, serve))
    return caught.value


def _answering(answer: bytes, *, close: bool = True) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        if close:
            await stream.aclose()
        else:
            await trio.sleep_forever()

    return serve


@asynccontextmanager
async def _talking(
    serve: Callable[[WebSocketConnection], Awaitable[None]], sent: Callable[[], None] = lambda: None
) -> AsyncIterator[Socket]:
    async def accept(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as server:
            request = await wrap_server_stream(server, stream)
            await serve(await request.accept())
            server.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        socket = await dial(nursery, URL, sent=sent, open_stream=Door(nursery, accept))
        yield socket
        await socket.close()
        nursery.cancel_scope.cancel()


async def test_silence_after_the_request(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """A server that takes the request and says nothing costs ten seconds, not for ever."""
    error = await _fails(nursery, _answering(b"", close=False))
    assert trio.current_time() == CONNECT_TIMEOUT_S
    assert (error.cause, "did not answer within 10 s" in str(error)) == (Cause.NETWORK, True)


async def test_end_of_file_during_the_handshake(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """It is noticed at once, not after a time-out."""
    error = await _fails(nursery, _answering(b""))
    assert trio.current_time() == 0
    assert (error.cause, str(error)) == (Cause.NETWORK, "the handshake was cut")


async def test_garbage_instead_of_http(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """Not HTTP: a protocol error with its reason."""
    error = await _fails(nursery, _answering(b"\x00\x01 SSH-2.0-OpenSSH\r\n\r\n", close=False))
    assert error.cause is Cause.PROTOCOL
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("status", "headers", "body", "cause", "words"),
    [
        (
            429,
            "Retry-After: 30\r\n",
            b'{"code":-1003,"msg":"Too many requests"}',
            Cause.REFUSED,
            "429: Too many requests",
        ),
        (418, "Retry-After: 120\r\n", b"", Cause.REFUSED, "HTTP 418"),
        (418, "", b'{"code":-1003,"msg":"IP banned until 9000000000000."}', Cause.REFUSED, "IP banned until"),
        (403, "", b"<html>", Cause.REFUSED, "HTTP 403"),
        (
            451,
            "",
            b'{"code":0,"msg":"restricted location"}',
            Cause.REFUSED,
            "restricted location; this region is blocked",
        ),
        (503, "", b"", Cause.NETWORK, "HTTP 503"),
        (200, "", b"hello", Cause.NETWORK, "HTTP 200"),
    ],
)
async def test_a_refusal_carries_status_and_words(
    status: int, headers: str, body: bytes, cause: Cause, words: str, nursery: trio.Nursery
) -> None:
    """A refusal by the exchange is told apart from trouble on the road."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
    error = await _fails(nursery, _answering(head + body, close=False))
    assert (error.status, error.cause) == (status, cause)
    assert words in str(error)
    if b"banned until" in body:
        assert error.retry_after_s is not None
        assert error.retry_after_s > 10**9  # seconds: until the year 2255
    else:
        assert error.retry_after_s == ({429: 30.0, 418: 120.0}.get(status))


async def test_messages_pass_and_frames_are_counted() -> None:
    """What is sent counts as a frame; the handshake does not; a pong does."""
    frames = 0

    def sent() -> None:
        nonlocal frames
        frames += 1

    async def serve(server: WebSocketConnection) -> None:
        assert await server.get_message() == "hello"
        await server.ping(b"1770000000000")
        await server.send_message("welcome")
        await trio.sleep_forever()

    async with _talking(serve, sent) as socket:
        await socket.send("hello")
        assert await socket.receive() == [b"welcome"]
        assert frames == 2


@asynccontextmanager
async def _hearing(
    pieces: Sequence[bytes], sent: Callable[[], None] = lambda: None, *, hangs_up: bool = False
) -> AsyncIterator[Socket]:
    """Talk to a server that sends these bytes, the first together with its handshake."""

    async def drop(stream: trio.abc.Stream) -> None:
        with suppress(trio.ClosedResourceError):
            while await stream.receive_some():
                continue

    async def serve(stream: trio.abc.Stream) -> None:
        request = bytes(await stream.receive_some())
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = generate_accept_token(key.split(b":")[1].strip())
        head = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop, stream)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(head + accept + b"\r\n\r\n" + pieces[0])
                for piece in pieces[1:]:
                    await stream.send_all(piece)
            if hangs_up:
                await stream.aclose()

    async with trio.open_nursery() as nursery:
        socket = await dial(nursery, URL, sent=sent, open_stream=Door(nursery, serve))
        yield socket
        await socket.close()
        nursery.cancel_scope.cancel()


def _frame(first: int, payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes([first, len(payload)]) + payload


async def _everything(socket: Socket) -> tuple[list[bytes], VenueError]:
    messages: list[bytes] = []
    while True:
        try:
            messages += await socket.receive()
        except VenueError as error:
            return messages, error


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_messages_keep_their_order_whoever_puts_them_together(size: int) -> None:
    """Whole texts are cut out here; fragments and binaries are the library's, which answers the pings in between."""
    sent = [
        _frame(0x81, b"one"),
        _frame(0x89, b"ping"),
        _frame(0x01, b"t"),
        _frame(0x89, b"ping"),
        _frame(0x80, b"wo"),
        _frame(0x81, b"three"),
        _frame(0x82, b"four"),
        _frame(0x81, b"five"),
        _frame(0x88, b"\x03\xf0bye"),
        _frame(0x81, b"never seen"),
    ]
    pongs = 0

    def leaves() -> None:
        nonlocal pongs
        pongs += 1

    data = b"".join(sent)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    async with _hearing(pieces, leaves) as socket:
        messages, error = await _everything(socket)
        assert messages == [b"one", b"two", b"three", b"four", b"five"]
        assert (error.code, "1008: bye" in str(error)) == (1008, True)
        assert pongs == 3  # two, and the close that answers the server's


async def test_frames_that_come_with_the_handshake_are_the_first_messages() -> None:
    """An exchange that is asked for streams in the URL sends at once."""
    pieces = [_frame(0x81, b"early") + _frame(0x81, b"half")[:3], _frame(0x81, b"half")[3:]]
    async with _hearing(pieces, hangs_up=True) as socket:
        messages, error = await _everything(socket)
        assert (messages, error.cause) == ([b"early", b"half"], Cause.NETWORK)


async def test_a_handshake_whose_end_only_the_library_sees_leaves_it_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two parsers need not agree: then there is one reader, as if nothing were cut ahead."""
    monkeypatch.setattr(Handshake, "feed", lambda _handshake, data: (data, None))
    async with _hearing([_frame(0x81, b"early"), _frame(0x81, b"late")], hangs_up=True) as socket:
        messages, error = await _everything(socket)
        assert (messages, error.cause) == ([b"early", b"late"], Cause.NETWORK)


async def test_a_cancelled_receive_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """In whatever it was cancelled, the next one goes on with it."""

    async def serve(server: WebSocketConnection) -> None:
        for text in ("one", b"two", "three", b"four", "five"):
            await trio.sleep(1)
            await server.ping(b"")
            await server.send_message(text)
        await trio.sleep_forever()

    async def cancel(after: int, scope: trio.CancelScope) -> None:
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with _talking(serve) as socket:
        messages: list[bytes] = []
        for steps in range(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, steps % 6, nursery.cancel_scope)
                messages += await socket.receive()
            await trio.sleep(0.2)
        with trio.move_on_after(10):
            while True:
                messages += await socket.receive()
        assert messages == [b"one", b"two", b"three", b"four", b"five"]


class _Hasty(trio.abc.Stream):
    """A stream whose reader is cancelled as the first bytes arrive."""

    def __init__(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._scope.cancel()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_dial_that_is_cancelled_as_the_answer_arrives_leaves_no_task(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its reader ends with its stream, and so does the nursery it was started in."""
    with trio.fail_after(10):
        async with trio.open_nursery() as server, trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def open_stream(host: str, port: int, *, tls: bool) -> trio.abc.Stream:
                return _Hasty(await Door(server, _accepting)(host, port, tls=tls), scope)

            with scope:
                await dial(nursery, URL, sent=lambda: None, open_stream=open_stream)
            assert scope.cancelled_caught


async def _accepting(stream: trio.abc.Stream) -> None:
    async with trio.open_nursery() as server:
        request = await wrap_server_stream(server, stream)
        await request.accept()


async def test_what_was_said_before_a_cut_is_heard() -> None:
    """Messages that came right before the end are returned before it is told."""
    pieces = [b"", _frame(0x81, b"one") + _frame(0x81, b"two") + _frame(0x81, b"cut")[:4]]
    async with _hearing(pieces, hangs_up=True) as socket:
        messages, error = await _everything(socket)
        assert (messages, error.cause) == ([b"one", b"two"], Cause.NETWORK)


async def test_a_message_in_parts_that_is_too_big_ends_the_conversation() -> None:
    """The library counts the parts; nothing is returned after its refusal."""
    part = b"\x7f" + MESSAGE_MAX_BYTES.to_bytes(8, "big") + b"x" * MESSAGE_MAX_BYTES
    async with _hearing([b"", b"\x01" + part + b"\x00" + part + _frame(0x81, b"never seen")]) as socket:
        messages, error = await _everything(socket)
        assert (messages, error.code) == ([], 1009)


async def test_a_close_has_its_code_and_words() -> None:
    """1008 is a refusal; the reason is the exchange's."""

    async def serve(server: WebSocketConnection) -> None:
        await server.aclose(1008, "Too many requests")

    async with _talking(serve) as socket:
        with pytest.raises(VenueError, match="closed the connection with 1008: Too many requests") as caught:
            await socket.receive()
    assert (caught.value.cause, caught.value.code) == (Cause.REFUSED, 1008)


async def test_a_clean_close_is_an_end_too() -> None:
    """1001 must lead to a new dial like any other end."""

    async def serve(server: WebSocketConnection) -> None:
        await server.aclose(1001, "going away")

    async with _talking(serve) as socket:
        with pytest.raises(VenueError) as caught:
            await socket.receive()
    assert (caught.value.cause, caught.value.code) == (Cause.CLOSED, 1001)


async def test_a_cut_is_an_end() -> None:
    """EOF without a Close frame."""
    async with _hearing([b""], hangs_up=True) as socket:
        messages, error = await _everything(socket)
    assert (messages, error.cause) == ([], Cause.NETWORK)
    assert "was cut" in str(error)


async def test_a_message_without_end_ends_the_conversation() -> None:
    """With the code of a message too big, and without keeping its bytes."""
    header = b"\x81\x7f" + (PASSED_OVER_BYTES + 1).to_bytes(8, "big")
    async with _hearing([b"", header + b"x" * (MESSAGE_MAX_BYTES + 1)]) as socket:
        messages, error = await _everything(socket)
        assert (messages, error.code) == ([], 1009)


async def test_a_message_too_long_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It ended its connection, and the readers of every other stream waited for half a second, again and again."""
    long = b'{"stream":"btcusdt@depth@100ms",' + b"x" * MESSAGE_MAX_BYTES

    async def serve(server: WebSocketConnection) -> None:
        for text in (b"before", long, long, b"after"):
            await server.send_message(text.decode())
        await trio.sleep_forever()

    async with _talking(serve) as socket:
        heard: list[bytes] = []
        while len(heard) < 4:
            heard += await socket.receive()
    assert heard == [b"before", long[:BEGINNING], long[:BEGINNING], b"after"]
    assert [record.__dict__["bytes"] for record in caplog.records] == [len(long)]


async def test_garbage_after_the_handshake_ends_the_conversation() -> None:
    """A reserved opcode: the peer speaks another protocol."""
    async with _hearing([b"", b"\x8f\x00"]) as socket:
        messages, error = await _everything(socket)
    assert messages == []
    assert error.cause in (Cause.NETWORK, Cause.CLOSED, Cause.PROTOCOL)


async def test_leaving_a_peer_that_never_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that sent Close and keeps TCP open, or that is dead, holds nobody up."""

    async def serve(server: WebSocketConnection) -> None:
        await trio.sleep_forever()

    async with _talking(serve):
        started = trio.current_time()
    assert trio.current_time() - started <= 0.5


async def test_a_peer_that_takes_nothing(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """A send that would wait for ever ends in time, with a reason."""

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as server:
            request = await wrap_server_stream(server, stream)
            await request.accept()
            await trio.sleep_forever()

    door = Door(nursery, serve)
    socket = await dial(nursery, URL, sent=lambda: None, open_stream=door)
    assert isinstance(door.ours, trio.StapledStream)
    door.ours.send_stream.send_all_hook = trio.sleep_forever
    with pytest.raises(VenueError, match="took nothing for 10 s"):
        await socket.send("x")
    assert trio.current_time() == SEND_TIMEOUT_S
    await trio.aclose_forcefully(door.ours)


async def test_a_cancelled_dial_leaves_no_stream_open(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Cancelled in mid-handshake, the stream is closed."""
    door = Door(nursery, _answering(b"", close=False))
    with trio.move_on_after(1):
        await dial(nursery, URL, sent=lambda: None, open_stream=door)
    assert door.ours is not None
    with pytest.raises(trio.ClosedResourceError):
        await door.ours.send_all(b"x")


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "x",
        "wss://",
        "ws:///stream",
        "ws://x:99999",
        "wss://a..b:9443",
        "ws://a b",
        "stream.binance.com:9443",
    ],
)
async def test_an_address_that_is_none(url: str, nursery: trio.Nursery) -> None:
    """The caller's mistake, said as such."""
    with pytest.raises(CallerError, match="not a WebSocket address"):
        await dial(nursery, url, sent=lambda: None)


def test_retry_after_is_seconds_or_a_date() -> None:
    """RFC 9110 has both; nonsense is nothing."""
    now = time.time()
    assert retry_after_s("30") == 30
    date = email.utils.formatdate(now + 60, usegmt=True)
    assert 58 <= (retry_after_s(date, lambda: now) or 0) <= 61
    assert retry_after_s("soon") is None
    assert retry_after_s("") is None


def test_roads_that_fail_are_told_apart() -> None:
    """A name without an address, a refusal, and the rest."""
    import socket as stdlib_socket

    nameless = stdlib_socket.gaierror(-2, "Name or service not known")
    assert "cannot be resolved" in why_unreachable("x.test", 1, nameless)
    refused = OSError("all attempts failed")
    refused.__cause__ = ExceptionGroup("", [ConnectionRefusedError(111, "refused")])
    assert why_unreachable("x.test", 1, refused) == "x.test:1 refused the connection"
    other = OSError(101, "unreachable")
    assert why_unreachable("x.test", 1, other) == f"x.test:1 cannot be reached: {other}"


def test_tls_failures_are_told_apart() -> None:
    """A certificate that is not trusted does not look like a network problem."""
    untrusted = trio.BrokenResourceError()
    verification = ssl.SSLCertVerificationError()
    verification.verify_message = "self-signed certificate"
    untrusted.__cause__ = verification
    assert (
        why_tls_failed("x.test", untrusted) == "the TLS certificate of x.test is not trusted: self-signed certificate"
    )
    assert "cut the connection during the TLS handshake" in why_tls_failed("x.test", trio.BrokenResourceError())


@pytest.mark.parametrize("text", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "x", "", "-1", "9" * 5000])
def test_a_retry_after_that_is_nonsense_stops_nothing(text: str) -> None:
    """Whatever a peer writes: no wait, or a long one."""
    assert retry_after_s(text) in (None, 999_999_999.0)


@pytest.mark.parametrize(
    ("header", "words", "wait_s"),
    [
        ("", "", None),
        ("7", "", 7),
        ("", "IP(1.2.3.4) banned until 1700000050000. Please use the websocket.", 50),
        ("7", "banned until 1700000050000", 50),
        ("70", "banned until 1700000050000", 70),
        ("", "banned until 1600000000000", None),
        ("7", "banned until 1600000000000", 7),
        ("x", "banned until tomorrow, or 17000000500001", None),
    ],
)
def test_how_long_the_exchange_asked_to_wait(header: str, words: str, wait_s: float | None) -> None:
    """By its header or by its words, the longer one."""
    assert asked_wait_s(header, words, lambda: 1_700_000_000) == wait_s
