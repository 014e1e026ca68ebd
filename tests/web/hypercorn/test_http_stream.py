"""What one request costs, as Hypercorn and Quart see it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
import trio.testing
from quart import Response
from quart_trio import QuartTrio

from komas.web.hypercorn.install import install
from komas.web.hypercorn.quart_connections import RequestConnection
from tests.web.hypercorn.clients import SlowClient, serve


async def test_a_request_without_a_body_is_one_task(autojump_clock: trio.testing.MockClock) -> None:
    """Beside its connection's, which waits for the client to leave, too."""
    app = QuartTrio(__name__)
    app.asgi_http_class = RequestConnection

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        await trio.sleep_forever()

    @app.get("/")
    async def stream() -> Response:
        response = Response(endless())
        response.timeout = None
        return response

    client = SlowClient(0)
    install()
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        nursery.start_soon(serve, client, app)
        await trio.sleep(1)
        assert b"first" in client.taken
        assert trio.lowlevel.current_statistics().tasks_living - before == 2
        await client.aclose()
