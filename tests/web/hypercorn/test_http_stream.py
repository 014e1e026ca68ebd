"""What one request costs, as Hypercorn and Quart see it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Response
from quart_trio import QuartTrio

from komas.settings import Settings
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
    install(Settings())
    async with trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        nursery.start_soon(serve, client, app)
        await trio.sleep(1)
        assert b"first" in client.taken
        assert trio.lowlevel.current_statistics().tasks_living - before == 2
        await client.aclose()


@pytest.mark.parametrize("asks_late", [False, True])
async def test_what_is_in_between_may_ask_as_asgi_allows(
    asks_late: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Middleware reads the body, though there is none, and waits for the client to leave."""
    told: list[object] = []

    async def middleware(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        told.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if asks_late:
            await trio.sleep(5)
        told.append(await receive())
        told.append(await receive())

    client = SlowClient(0)
    install(Settings())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, client, middleware)
            await trio.sleep(1)
            assert told == [{"type": "http.request", "body": b"", "more_body": False}]
            await client.aclose()
    assert told[1:] == [{"type": "http.disconnect"}] * 2
