"""Writing to a TLS connection without waiting."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from benchmarks.certificate import sign_certificate
from komas.settings import Settings
from komas.web.hypercorn import tls_writer
from komas.web.hypercorn.install import install
from komas.web.hypercorn.socket_writer import SocketWriter
from komas.web.hypercorn.tls_writer import TlsWriter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are written to as streams there")
CHUNK = b"".join(b"%07d\n" % number for number in range(2048))

Tls = trio.SSLStream[trio.SocketStream]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    folder = tmp_path_factory.mktemp("tls")
    sign_certificate(folder, "localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "certificate.pem"))


@asynccontextmanager
async def connected(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[tuple[Tls, TlsWriter, Tls]]:
    """A server's TLS, what writes to it, and a client."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    server = trio.SSLStream(ours, contexts[0], server_side=True, https_compatible=True)
    writer = TlsWriter.over(server)
    assert writer is not None
    client = trio.SSLStream(theirs, contexts[1], server_hostname="localhost", https_compatible=True)
    async with client, server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.do_handshake)
        yield server, writer, client


async def receive(client: Tls, size: int) -> bytes:
    """So many bytes."""
    found = b""
    while len(found) < size and (data := await client.receive_some()):
        found += data
    return found


async def test_what_is_written_at_once_comes_in_order_with_what_waits(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """The first write carries the handshake's tickets, and waits; then both ways take turns."""
    async with connected(contexts) as (server, writer, client):
        assert writer.write_nowait(b"too early") == len(b"too early")
        await server.send_all(b"head;")
        assert writer.write_nowait(b"one;") == 0
        await server.send_all(b"two;")
        assert writer.write_nowait(b"three;") == 0
        assert await receive(client, len(b"head;one;two;three;")) == b"head;one;two;three;"


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_what_tls_sends_itself_goes_behind_a_rest(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, is_flushed: bool
) -> None:
    """Encrypted bytes have one order: one that was left out, or came too late, ends the connection."""
    async with connected(contexts) as (server, writer, client):
        await server.send_all(b"head;")
        written = 0
        while not (left := writer.write_nowait(CHUNK)):
            written += 1
        assert left < len(CHUNK)  # it is encrypted: nobody may write it again
        assert writer.write_nowait(CHUNK) == len(CHUNK)  # nothing of this is
        expected = b"head;" + CHUNK * (written + 1) + b"tail;"

        async def write_on() -> None:
            if is_flushed:
                await writer.flush()
                assert not writer.rest
            await server.send_all(b"tail;")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_on)
                await trio.testing.wait_all_tasks_blocked()
                assert writer.write_nowait(CHUNK) == len(CHUNK)  # somebody sends
                assert await receive(client, len(expected)) == expected


@pytest.mark.parametrize("is_heard", [True, False], ids=["", "before it was heard"])
async def test_a_farewell_ends_one_direction(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, is_heard: bool
) -> None:
    """The client reads to the end although it sends on, all of which is taken from it, until it has its end, too."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    server = trio.SSLStream(ours, contexts[0], server_side=True, https_compatible=True)
    writer = SocketWriter(server, install(Settings()), 1.0)
    client = trio.SSLStream(theirs, contexts[1], server_hostname="localhost", https_compatible=True)
    heard, has_ended = bytearray(), trio.Event()

    async def hear_out() -> None:
        while await writer.read():
            continue
        has_ended.set()

    with trio.fail_after(10):
        async with client, server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.do_handshake)
                nursery.start_soon(client.do_handshake)
            await writer.write(b"head;")
            await client.send_all(b"more")
            if is_heard:
                assert await writer.read() == b"more"
            else:  # it has come, and TLS has not been asked for it
                server._incoming.write(await server.transport_stream.receive_some())  # noqa: SLF001 - of Trio
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.write, CHUNK * 100)
                while len(heard) < len(b"head;") + len(CHUNK) * 100:
                    heard += await client.receive_some()
            await writer.end()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear_out)
                assert await client.receive_some() == b""
                for _ in range(100):
                    await client.send_all(CHUNK)
                assert not has_ended.is_set()
                await client.transport_stream.aclose()
                await has_ended.wait()


async def test_a_client_that_has_left_takes_nothing(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The write that waits finds out."""
    async with connected(contexts) as (server, writer, client):
        await server.send_all(b"head;")
        await client.aclose()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            while True:
                writer.write_nowait(CHUNK)
                await server.send_all(CHUNK)


async def test_where_trio_has_other_parts_the_connection_is_written_to_as_before(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer Trio may have none of what this needs."""
    monkeypatch.setattr(tls_writer, "_PARTS", ("_what_comes_next",))
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    async with ours, theirs:
        server = trio.SSLStream(ours, contexts[0], server_side=True)
        assert TlsWriter.over(server) is None
        assert server.transport_stream is ours
        assert TlsWriter.over(ours) is None  # no TLS
