"""Writes that a socket takes at once."""

from __future__ import annotations

import socket
import sys

import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from komas.settings import Settings
from komas.web.hypercorn.install import install
from komas.web.hypercorn.socket_writer import WRITE_BYTES
from tests.web.hypercorn.clients import serve

PART = b"x" * 4096
PARTS = 2 * WRITE_BYTES // len(PART)  # what a socket has room for


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are written to as streams there")
async def test_a_response_that_the_socket_takes_at_once_lets_others_run() -> None:
    """Nothing of it waits: one that goes on and on would hold everybody up."""
    turns = 0
    turns_meanwhile: list[int] = []

    async def answer(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        begun = turns
        for _ in range(PARTS):
            await send({"type": "http.response.body", "body": PART, "more_body": True})
        turns_meanwhile.append(turns - begun)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    install(Settings())
    ours, theirs = socket.socketpair()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as client:
            nursery.start_soon(take_turns)
            await client.send_all(b"GET / HTTP/1.1\r\nHost: komas\r\nConnection: close\r\n\r\n")
            nursery.start_soon(serve, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), answer)
            received = 0
            while data := await client.receive_some():
                received += len(data)
            nursery.cancel_scope.cancel()
    assert received > PARTS * len(PART)
    assert turns_meanwhile[0] >= 1
