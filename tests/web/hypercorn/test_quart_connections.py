"""One request, as Quart sees it, and a client that leaves at a bad moment."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio
import trio.testing
from quart_trio import QuartTrio

from komas.web.hypercorn.quart_connections import RequestConnection

SCOPE: Any = {
    "type": "http",
    "asgi": {},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": None,
    "server": None,
    "state": {},
    "extensions": {},
}


async def test_a_client_that_leaves_before_its_answer_is_ready_is_no_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The answer cannot be cancelled meanwhile: it waits for a thread, for a database or a look at our callers."""
    app = QuartTrio(__name__)
    answered: list[bool] = []

    @app.post("/")
    async def answer() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        answered.append(True)
        return "done"

    messages = deque[Any]([{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return messages.popleft()

    async def send(_message: object) -> None:
        await trio.lowlevel.checkpoint()

    await RequestConnection(app, SCOPE)(receive, send)
    assert answered == [True]
