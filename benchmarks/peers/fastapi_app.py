"""FastAPI + sse-starlette: a queue for each subscriber, as sse-starlette's documentation has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sse_starlette.sse import EventSourceResponse
from websockets.asyncio.client import connect

from benchmarks.peers.event import envelope, source_url

queues: set[asyncio.Queue[dict[str, object]]] = set()


async def _follow() -> None:
    async with connect(source_url(), proxy=None) as connection:
        async for text in connection:
            trade = json.loads(text)["data"]
            event: dict[str, object] = {"id": str(trade["t"]), "data": envelope(trade)}
            for queue in queues:
                queue.put_nowait(event)


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(_follow())
    yield
    task.cancel()


app = FastAPI(lifespan=_lifespan)


@app.get("/api/ws/sse/trades")
async def trades() -> EventSourceResponse:
    """All trades from now on."""

    async def events() -> AsyncIterator[dict[str, object]]:
        queue: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        queues.add(queue)
        try:
            yield {"retry": 2000}
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(events())
