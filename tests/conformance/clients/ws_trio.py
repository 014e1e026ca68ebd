"""trio-websocket, with the token in the address."""

import json
import sys

import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url


async def read(url: str) -> None:
    """Until told to stop, or turned away."""
    position, code = "", 0
    while code not in (1000, 1008):
        try:
            async with open_websocket_url(url + position) as socket:
                while True:
                    text = await socket.get_message()
                    print(json.dumps(["message", text]), flush=True)
                    message = json.loads(text)
                    if "position" in message:
                        position = f"&since={message['position']}"
                    if message.get("data", {}).get("last"):
                        await socket.aclose()
        except ConnectionClosed as closed:
            code, reason = (1006, "") if closed.reason is None else (closed.reason.code, closed.reason.reason or "")
            print(json.dumps(["closed", code, reason]), flush=True)
        except (HandshakeError, OSError) as error:
            print(repr(error), flush=True)
        await trio.sleep(0.5)


trio.run(read, f"{sys.argv[1]}&token={sys.argv[2]}")
