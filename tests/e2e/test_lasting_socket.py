"""A WebSocket without a request around it, over real sockets: nothing that was said is lost, and who is left in it."""

from __future__ import annotations

import gc
import os
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from komas.errors import Closing
from komas.settings import Settings
from komas.web.hypercorn.install import install
from komas.web.hypercorn.lasting_socket import LINGER_S
from komas.web.hypercorn.shutdown import Run
from komas.web.hypercorn.transport import AcceptedSocket, Said, converse
from tests.web.hypercorn.clients import serve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are written to as streams there")

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: komas\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Conversing = Callable[["Talk", AcceptedSocket], Awaitable[None]]


async def echo(talk: Talk, socket: AcceptedSocket) -> None:
    """Say what was said, until told to close."""
    over = trio.Event()

    async def heard(said: Said) -> None:
        talk.said.append(said)
        if said == "close":
            over.set()
        elif isinstance(said, str):
            await socket.send(said)

    talk.has_begun.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.listen, heard)
        await over.wait()
        nursery.cancel_scope.cancel()
    await socket.close(4000, "told to")


class Talk:
    """A client, and the server's run."""

    def __init__(self, stream: trio.SocketStream, run: Run, served: weakref.ref[trio.SocketStream]) -> None:
        self.stream = stream
        self.run = run
        self.said: list[Said] = []
        self.has_begun = trio.Event()
        self.has_ended = trio.Event()
        self._served = served
        self._part = ""
        self._frames = Connection(ConnectionType.CLIENT)

    @property
    def is_freed(self) -> bool:
        """Whether nothing of the connection is left."""
        return self._served() is None

    def frames(self, *events: Event) -> bytes:
        """What a client sends of these."""
        return b"".join(self._frames.send(event) for event in events)

    async def say(self, *events: Event) -> None:
        """Send them."""
        await self.stream.send_all(self.frames(*events))

    async def hear(self, count: int) -> list[Event]:
        """So many events, or those there were until the end; of a message that came in parts one."""
        events: list[Event] = []
        while len(events) < count and (data := await self.stream.receive_some()):
            self._frames.receive_data(data)
            for event in self._frames.events():
                if isinstance(event, TextMessage):
                    self._part += event.data
                    if not event.message_finished:
                        continue
                    events.append(TextMessage(data=self._part))
                    self._part = ""
                else:
                    events.append(event)
        return events


@asynccontextmanager
async def talking(conversation: Conversing = echo, *, says: bytes = b"") -> AsyncIterator[Talk]:
    """One whose handshake was answered; right behind the answer it ``says`` something. Left once all has ended."""
    run = install(Settings())
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    talk = Talk(theirs, run, weakref.ref(ours))

    async def held(socket: AcceptedSocket) -> None:
        try:
            await conversation(talk, socket)
        finally:
            talk.has_ended.set()

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        if says:
            os.write(theirs.socket.fileno(), says)
            await trio.testing.wait_all_tasks_blocked()
        await converse(scope, held)
        await send({"type": "websocket.close", "code": 1000, "reason": None})  # as a framework does at the end

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, theirs:
            nursery.start_soon(_serve, ours, app)
            del ours
            await theirs.send_all(HANDSHAKE)
            head = b""
            while b"\r\n\r\n" not in head:
                head += await theirs.receive_some(1)
                while not head.endswith(b"\r\n\r\n"):
                    head += await theirs.receive_some(1)
            assert head.startswith(b"HTTP/1.1 101")
            yield talk
    assert run.places.statistics().present == 0


async def _serve(stream: trio.SocketStream, app: ASGIFramework) -> None:
    async with stream:
        await serve(stream, app)


async def test_a_socket_that_waits_is_two_tasks() -> None:
    """One reads, and the conversation itself; what answered the handshake is gone."""

    async def wait(talk: Talk, socket: AcceptedSocket) -> None:
        talk.has_begun.set()
        await trio.sleep_forever()

    before = trio.lowlevel.current_statistics().tasks_living
    async with talking(wait) as talk:
        await talk.has_begun.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living - before == 2
        assert talk.run.places.statistics().present == 1
    assert talk.has_ended.is_set()


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_what_is_said_right_behind_the_handshake_is_heard_once_and_in_order(count: int, cut: int) -> None:
    """Whichever task had it in its hands when the connection took over."""
    words = [str(number) * 20 for number in range(count)]
    client = Connection(ConnectionType.CLIENT)
    says = b"".join(client.send(TextMessage(data=word)) for word in words)
    for early in (0, cut, len(says)):
        async with talking(says=says[:early]) as talk:
            for at in range(early, len(says), cut):
                await talk.stream.send_all(says[at : at + cut])
            heard = await talk.hear(count)
            assert [event.data for event in heard if isinstance(event, TextMessage)] == words
            assert talk.said == words


async def test_a_close_of_ours_is_whole_and_the_client_closes_too() -> None:
    """Code and reason; the server has closed when the client has."""
    async with talking() as talk:
        await talk.say(TextMessage(data="close"))
        [closed] = await talk.hear(1)
        assert isinstance(closed, CloseConnection)
        assert (closed.code, closed.reason) == (4000, "told to")
        await talk.say(closed.response())
        assert await talk.stream.receive_some() == b""


async def test_who_does_not_close_in_turn_is_waited_for_so_long_and_no_longer() -> None:
    """RFC 6455, 7.1.1: it is heard out."""
    async with talking() as talk:
        await talk.say(TextMessage(data="close"))
        assert len(await talk.hear(1)) == 1
        begun = trio.current_time()
        while await talk.stream.receive_some():
            continue
        assert trio.current_time() - begun < 3 * LINGER_S


async def test_a_client_that_closes_is_answered() -> None:
    """With its own code, and its conversation ends."""
    async with talking() as talk:
        await talk.has_begun.wait()
        await talk.say(CloseConnection(code=1000))
        [closed] = await talk.hear(1)
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1000
        assert await talk.stream.receive_some() == b""
        assert talk.has_ended.is_set()


async def test_a_breach_of_the_protocol_is_closed_by_its_code() -> None:
    """Also here."""
    async with talking() as talk:
        await talk.stream.send_all(b"\xff\xff\xff\xff")
        [closed] = await talk.hear(1)
        assert isinstance(closed, CloseConnection)
        assert closed.code == Closing.PROTOCOL.code


async def test_a_ping_is_answered_and_a_binary_message_is_said_to_be_one() -> None:
    """By the stream, whoever holds the conversation."""
    async with talking() as talk:
        await talk.say(Ping(payload=b"x"), BytesMessage(data=b"b"))
        [pong] = await talk.hear(1)
        assert isinstance(pong, Pong)
        while not talk.said:
            await trio.testing.wait_all_tasks_blocked()
        assert talk.said == [b"\0"]


async def test_a_conversation_that_fails_is_closed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """1011, and it is nobody else's failure."""

    async def fail(talk: Talk, socket: AcceptedSocket) -> None:
        raise ZeroDivisionError("of a conversation")

    async with talking(fail) as talk:
        [closed] = await talk.hear(1)
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1011
    assert "a conversation failed" in caplog.text


async def test_a_socket_is_freed_when_its_client_leaves() -> None:
    """Without the collector."""
    gc.collect()
    gc.disable()
    try:
        async with talking() as talk:
            await talk.has_begun.wait()
            await talk.say(TextMessage(data="x"))
            assert len(await talk.hear(1)) == 1
        assert talk.is_freed
    finally:
        gc.enable()


async def test_a_server_that_stops_waits_for_no_client_that_does_not_read() -> None:
    """What is being written to it is hurried."""

    async def flood(talk: Talk, socket: AcceptedSocket) -> None:
        talk.has_begun.set()
        while True:
            await socket.send("x" * 2**16)

    async with talking(flood) as talk:
        await talk.has_begun.wait()
        await trio.sleep(0.2)
        talk.run.drain()
        with trio.fail_after(5):
            await talk.has_ended.wait()
