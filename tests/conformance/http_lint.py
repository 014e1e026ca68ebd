"""HTTP: httplint reads every kind of answer of every route, byte for byte as it came."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import h11

from tests.conformance.counterparts import Row, folder, python_with
from tests.e2e.processes import PATIENCE_S, Server, serving, token_for

HTTPLINT: Final = "httplint==2026.10.4"
TOO_LONG: Final = "BAD: The server won't accept a URI this long"  # it was too long on purpose
STREAM_S: Final = 1.0  # of a stream without an end
PROGRAM: Final = Path(__file__).with_name("lint_program.py")
JSON: Final = ("Content-Type", "application/json")

Headers = Sequence[tuple[str, str]]

QUERIES: Final = {
    "/api/ws/depth": "?symbol=BTCUSDT",
    "/api/ws/prices": "?symbols=BTCUSDT",
    "/api/ws/sse/prices": "?symbols=BTCUSDT",
    "/api/ws/sse/klines": "?symbol=BTCUSDT",
    "/api/ws/sse/depth": "?symbol=BTCUSDT",
    "/api/ws/sse/trades": "?symbol=BTCUSDT",
    "/api/ws/sse/stream": "?streams=btcusdt@trade",
    "/api/ws/klines": "?symbol=BTCUSDT",
    "/api/ws/trades": "?symbol=BTCUSDT",
}
NAMES: Final = {"signal_id": 1, "user_id": "u1", "name": "app.js", "connection": "none", "session": "none"}
BODIES: Final = {
    "/api/ws/sse/stream/{connection}": {"subscribe": ["btcusdt@trade"]},
    "/api/ws/subscribe": {"symbols": ["BTCUSDT"]},
    "/api/ws/unsubscribe": {"symbols": ["BTCUSDT"]},
    "/api/signals": {"signal_type": "mexc_dex", "data": {"spread": 1}},
    "/api/signals/{signal_id}": {"data": {"spread": 2}},
    "/api/vip/{user_id}": {"days": 1},
}
# What httplint says of every answer of a kind, and why it stays so.
ACCEPTED: Final = {
    "WARN: The server didn't understand the request.": "it was wrong on purpose",
    "WARN: This response cannot be served from cache without validation, and doesn't have a validator.": "an event "
    "stream says no-cache, as its readers know it, and is never stored",
    "BAD: A new resource was created without its location being sent.": "a signal has an id, at which it is changed; "
    "it is read in a list alone",
}


def run() -> Iterator[Row]:
    """One row."""
    with folder() as place:
        python = python_with(place, HTTPLINT)
        with serving(place / "komas", "--demo") as server:
            exchanges = [_exchange(server, *asked) for asked in _requests(server)]
        done = subprocess.run(
            [str(python), str(PROGRAM)],
            input="".join(json.dumps(exchange) + "\n" for exchange in exchanges),
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
    notes = [
        f"{exchange['method']} {exchange['url'][:100]} ({exchange['status']}): {note}"
        for exchange, line in zip(exchanges, done.stdout.splitlines(), strict=True)
        for note in json.loads(line)
        if note not in ACCEPTED and not note.startswith(TOO_LONG)
    ]
    failed = len({note.partition("): ")[0] for note in notes})
    yield Row("HTTP, every route", HTTPLINT, len(exchanges) - failed, len(exchanges), tuple(notes))


def _requests(server: Server) -> Iterator[tuple[str, str, Headers, bytes]]:
    """Every operation with and without tokens, its HEAD and OPTIONS, and what is wrong in each way."""
    admin = ("Authorization", f"Bearer {server.admin_token()}")
    token = ("Authorization", f"Bearer {token_for(server.folder, '--scope', 'signals:publish', '--vip-days', '1')}")
    page = ("Origin", "https://example.com")
    for path, operations in server.http.get("/openapi.json").json()["paths"].items():
        target = path.format(**NAMES) + QUERIES.get(path, "")
        proof = token if path.startswith("/api/signals") else admin
        for name in operations:
            method = name.upper()
            body = json.dumps(BODIES[path]).encode() if path in BODIES and method in ("POST", "PATCH") else b""
            for headers in ([proof], [proof, page], []):
                yield method, target, [*headers, *([JSON] if body else [])], body
            yield method, f"{target}{'&' if '?' in target else '?'}x=1&x=2", [proof], b""
            if body:
                yield method, target, [proof, JSON], b"{"
                yield method, target, [proof, JSON], b"{" + b" " * 70_000 + b"}"
        if "get" in operations:
            yield "HEAD", target, [proof], b""
        yield "OPTIONS", target, [], b""
        yield "OPTIONS", target, [page, ("Access-Control-Request-Method", next(iter(operations)).upper())], b""
        yield "DELETE" if "delete" not in operations else "PUT", target, [proof], b""
    yield "GET", "/nothing", [], b""
    yield "GET", "/api/ws/sse/prices?symbols=NOTHING", [], b""
    yield "GET", "/" + "x" * 40_000, [], b""


def _exchange(server: Server, method: str, target: str, headers: Headers, body: bytes) -> dict[str, Any]:
    asked = [("Host", f"127.0.0.1:{server.port}"), ("Connection", "close"), *headers]
    if body or method in ("POST", "PATCH", "PUT"):
        asked.append(("Content-Length", str(len(body))))
    ours = h11.Connection(h11.CLIENT)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        request = h11.Request(method=method, target=target, headers=asked)
        with suppress(ConnectionError):
            connection.sendall((ours.send(request) or b"") + (ours.send(h11.Data(body)) or b""))
        ours.send(h11.EndOfMessage())
        ends_at = time.monotonic() + (STREAM_S if "/sse/" in target else PATIENCE_S)
        response, content, complete = _read(ours, connection, ends_at)
    return {
        "method": method,
        "url": f"{server.url}{target}",
        "at_s": time.time(),
        "asked": asked,
        "status": response.status_code,
        "reason": response.reason.decode(),
        "headers": [(name.decode(), value.decode()) for name, value in response.headers.raw_items()],
        "body": base64.b64encode(content).decode(),
        "complete": complete,
    }


def _read(ours: h11.Connection, connection: socket.socket, ends_at: float) -> tuple[h11.Response, bytes, bool]:
    response, content = None, b""
    while True:
        event = ours.next_event()
        if event is h11.NEED_DATA:
            connection.settimeout(max(0.01, ends_at - time.monotonic()))
            try:
                ours.receive_data(connection.recv(2**16))
            except TimeoutError:
                assert response is not None
                return response, content, False
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            content += event.data
        else:
            assert response is not None, event
            return response, content, isinstance(event, h11.EndOfMessage)
