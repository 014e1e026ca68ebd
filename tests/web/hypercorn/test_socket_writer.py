"""How a connection is written to, over a stream that takes its time."""

from __future__ import annotations

import trio
import trio.testing
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from komas.settings import Settings
from komas.web.hypercorn.install import install
from komas.web.hypercorn.socket_writer import SEND_DEADLINE_S
from tests.web.hypercorn.clients import SlowClient, serve


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """Also while the server is in no hurry: it would hold its task and its memory for ever."""

    async def answer(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})

    stream = SlowClient(SEND_DEADLINE_S * 100)
    run = install(Settings())
    with trio.fail_after(SEND_DEADLINE_S * 1.5):
        await serve(stream, answer)
    assert stream.taken == b""
    assert run.cut_off == 1
