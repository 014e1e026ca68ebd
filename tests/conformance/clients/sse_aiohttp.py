"""aiohttp-sse-client comes back by itself after an end; a cut, a refusal or a 502 it hands to its user."""

import asyncio
import json
import sys
from datetime import timedelta

import aiohttp  # type: ignore[import-not-found]
from aiohttp_sse_client.client import EventSource  # type: ignore[import-not-found]


async def read() -> None:
    """For ever."""
    last_id = ""
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            async with EventSource(
                sys.argv[1],
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),
                reconnection_time=timedelta(seconds=1),
            ) as source:
                async for event in source:
                    print(json.dumps([event.type or "message", event.last_event_id, event.data]), flush=True)
                    last_id = event.last_event_id or last_id
        except (ConnectionError, aiohttp.ClientError) as error:
            print(repr(error), flush=True)
        await asyncio.sleep(1)


asyncio.run(read())
