"""Signals with asyncio and the package websockets: signals_asyncio.py [server]; the token is in KOMAS_TOKEN.

None is missed and none comes twice: it comes back with the position of the last one that was dealt with.
"""

import asyncio
import json
import os
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

SERVER = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8000"
COMES_BACK = {1001, 1006, 1011, 1012, 1013}  # others need a new token, or somebody who looks


def token():
    """Where yours comes from; a client that runs for days asks its issuer here."""
    return os.environ["KOMAS_TOKEN"]


async def signals():
    """Each message of type new_signal or signal_update."""
    last, wait_s = None, 1.0
    while True:
        place = "positions=1" if last is None else f"since={last}"
        headers = {"Authorization": f"Bearer {token()}"}
        try:
            async with connect(f"{SERVER}/ws/signals?{place}", additional_headers=headers) as socket:
                while True:
                    message = json.loads(await socket.recv())
                    wait_s = 1.0
                    if message["type"] == "expiring":
                        await socket.send(json.dumps({"type": "refresh", "token": token()}))
                    elif message["type"] in ("new_signal", "signal_update"):
                        yield message
                    elif message["type"] == "error":
                        print(message["message"], file=sys.stderr)
                    last = message.get("position", last)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "cut")
            print(code, reason, file=sys.stderr)
            if code not in COMES_BACK:
                return
        except (OSError, InvalidHandshake) as error:
            print("no connection:", error, file=sys.stderr)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
        wait_s = min(30.0, 2 * wait_s)


async def main():
    async for message in signals():
        print(message["type"], json.dumps(message["data"]), flush=True)


asyncio.run(main())
