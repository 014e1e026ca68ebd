"""aiohttp, with the token as a subprotocol."""

import asyncio
import json
import sys

import aiohttp  # type: ignore[import-not-found]


async def read(url: str, token: str) -> None:
    """Until told to stop, or turned away."""
    position, code = "", 0
    protocols = ("komas.signals", f"bearer.{token}")
    async with aiohttp.ClientSession() as session:
        while code not in (1000, 1008):
            try:
                async with session.ws_connect(url + position, protocols=protocols) as socket:
                    reason = ""
                    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                        print(json.dumps(["message", message.data]), flush=True)
                        data = json.loads(message.data)
                        if "position" in data:
                            position = f"&since={data['position']}"
                        if data.get("data", {}).get("last"):
                            await socket.close()
                    if message.type is aiohttp.WSMsgType.CLOSE:
                        reason = message.extra
                    code = socket.close_code or 1006
                    print(json.dumps(["closed", code, reason]), flush=True)
            except aiohttp.ClientError as error:
                print(repr(error), flush=True)
            await asyncio.sleep(0.5)


asyncio.run(read(sys.argv[1], sys.argv[2]))
