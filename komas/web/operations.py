"""What is told of each call by rule: its id, its tag, and what its good answer is (sans-I/O).

A new row of ``komas.web.openapi`` needs nothing here, unless its answer is better told in words of its own.
"""

from __future__ import annotations

import re
from typing import Final

from komas.web.schemas import Schema

TAGS: Final = {
    "market": "Prices, candles, trades, order books and symbols, as they are now and as they were",
    "streams": "The same as it happens: Server-Sent Events, and a WebSocket",
    "control": "What the server reads of the exchange; from elsewhere with the admin token",
    "signals": "Trading signals: publish them, read them, be told of them",
    "administration": "VIPs, who is connected, logs; with the admin token",
    "operation": "For load balancers and monitoring",
    "pages": "The page, its files, and what describes this API",
}
# The tag of all paths that begin so; the longest counts.
_BEGINNINGS: Final = {
    "/": "pages",
    "/api/": "market",
    "/api/ws/sse/": "streams",
    "/ws/market": "streams",
    "/ws/signals": "signals",
    "/api/signals": "signals",
    "/api/vip": "administration",
    "/api/admin": "administration",
    "/api/logs": "administration",
    "/debug": "administration",
    "/healthz": "operation",
    "/readyz": "operation",
    "/metrics": "operation",
}
_UNNAMED: Final = re.compile(r"\{\w+\}|^/api/ws|^/api")  # what is no part of an id
_ANSWERS: Final = {
    "/api/ws/connect": "it is connected; the state",
    "/api/ws/disconnect": "it is let go; the state",
    "/api/ws/rotate": "how many connections are being replaced",
    "/api/ws/subscribe": "the streams that are pinned, and how many are open",
    "/api/ws/unsubscribe": "the streams that were unpinned, and how many are open",
    "/api/ws/quick/start-prices": "the exchange sends them; where to read them",
    "/api/ws/quick/stop": "nothing is pinned any more",
    "/api/ws/sse/stream/{connection}": "all streams that the connection reads now",
    "/api/signals": "it is on disk, with its id",
    "/api/signals/{signal_id}": "the signal as it stands now",
    "/api/vip/{user_id}": "the VIP as it stands now",
    "/api/admin/sessions/{session}": "it is disconnected",
}


def described(path: str, method: str, call: Schema) -> Schema:
    """A call with its id, its tag, and words for its good answer: of a reading call those of its summary."""
    tag = _tag(path)
    if method != "get" and tag == "market":
        tag = "control"
    told = str(call["summary"]) if method == "get" else _ANSWERS.get(path, "it is done")
    responses = call["responses"]
    assert isinstance(responses, dict)
    answers = {status: answer | {"description": answer["description"] or told} for status, answer in responses.items()}
    return {"operationId": _id(path, method), "tags": [tag], **call, "responses": answers}


def _id(path: str, method: str) -> str:
    words = re.findall(r"\w+", _UNNAMED.sub("", path)) or ["page"]
    return "_".join([method, *words])


def _tag(path: str) -> str:
    return _BEGINNINGS[max((each for each in _BEGINNINGS if path.startswith(each)), key=len)]
