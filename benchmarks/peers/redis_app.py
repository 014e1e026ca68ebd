"""FastAPI + sse-starlette behind Redis pub/sub: one subscription for each process, a queue for each client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Unreachable
from sse_starlette.sse import EventSourceResponse

from benchmarks.peers.event import CHANNEL, STORE

AGAIN_S = 0.1

queues: set[asyncio.Queue[dict[str, object]]] = set()


async def _follow() -> None:
    async with Redis(port=int(os.environ[STORE])) as redis:
        while True:
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(CHANNEL)
                    async for message in subscription.listen():
                        text = message["data"].decode()
                        event: dict[str, object] = {"id": str(json.loads(text)["data"]["trade_id"]), "data": text}
                        for queue in queues:
                            queue.put_nowait(event)
            except Unreachable:
                await asyncio.sleep(AGAIN_S)


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
