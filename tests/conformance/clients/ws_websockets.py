"""websockets, with the token in the address."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def read(url: str) -> None:
    """Until told to stop, or turned away."""
    position, code = "", 0
    while code not in (1000, 1008):
        try:
            async with connect(url + position) as socket:
                while True:
                    text = await socket.recv()
                    print(json.dumps(["message", text]), flush=True)
                    message = json.loads(text)
                    if "position" in message:
                        position = f"&since={message['position']}"
                    if message.get("data", {}).get("last"):
                        await socket.close()
        except ConnectionClosed as closed:
            code, reason = (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)
            print(json.dumps(["closed", code, reason]), flush=True)
        except OSError as error:
            print(repr(error), flush=True)
        await asyncio.sleep(0.5)


asyncio.run(read(f"{sys.argv[1]}&token={sys.argv[2]}"))
