"""websocket-client, with the token in a header."""

import json
import sys
import time

import websocket  # type: ignore[import-not-found]

position, end = "", 0


def _message(app: websocket.WebSocketApp, text: str) -> None:
    global position  # noqa: PLW0603 - a program of one page
    print(json.dumps(["message", text]), flush=True)
    message = json.loads(text)
    if "position" in message:
        position = f"&since={message['position']}"
    if message.get("data", {}).get("last"):
        app.close(status=1000)


def _close(_app: websocket.WebSocketApp, code: int | None, reason: str | None) -> None:
    global end  # noqa: PLW0603 - a program of one page
    end = code or 1006
    print(json.dumps(["closed", end, reason or ""]), flush=True)


while end not in (1000, 1008):
    header = [f"Authorization: Bearer {sys.argv[2]}"]
    websocket.WebSocketApp(sys.argv[1] + position, header=header, on_message=_message, on_close=_close).run_forever()
    time.sleep(0.5)
