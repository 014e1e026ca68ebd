"""Quart-Trio as its documentation has it: a generator and a memory channel for each subscriber."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import trio
from quart import Response, make_response
from quart_trio import QuartTrio
from trio_websocket import open_websocket_url

from benchmarks.peers.event import envelope, source_url

app = QuartTrio(__name__)
channels: set[trio.MemorySendChannel[bytes]] = set()
WAITING = 100_000


async def _follow() -> None:
    async with open_websocket_url(source_url()) as connection:
        while True:
            trade = json.loads(await connection.get_message())["data"]
            event = f"id: {trade['t']}\ndata: {envelope(trade)}\n\n".encode()
            for channel in channels:
                channel.send_nowait(event)


@app.before_serving
async def _start() -> None:
    app.nursery.start_soon(_follow)


@app.get("/api/ws/sse/trades")
async def trades() -> Response:
    """All trades from now on."""

    async def events() -> AsyncIterator[bytes]:
        send, receive = trio.open_memory_channel[bytes](WAITING)
        channels.add(send)
        try:
            yield b"retry: 2000\n\n"
            async for event in receive:
                yield event
        finally:
            channels.discard(send)

    response = await make_response(events(), {"Content-Type": "text/event-stream"})
    assert isinstance(response, Response)
    response.timeout = None
    return response
