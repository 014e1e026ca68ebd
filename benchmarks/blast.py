"""An exchange that has nothing to do: once both streams were asked for, it writes all their frames as fast as they go.

The frames are a capture's, framed before anybody connects, some times over, with ids that go on rising.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from benchmarks.feeder import KEY
from benchmarks.readers import STREAMS
from komas.simulator import frames

READ_BYTES: Final = 2**16
CLOSE: Final = 8  # the opcode
NUMBER: Final = {STREAMS[0]: re.compile(rb'"t":(\d+)'), STREAMS[1]: re.compile(rb'"u":(\d+)')}


class Content(msgspec.Struct, frozen=True):
    """What is sent: the port, first and last id of the trades, and frames in all."""

    port: int
    first_id: int
    last_id: int
    frames: int


def blast(pipe: Connection, capture: Path, streams: tuple[str, ...], times: int) -> None:
    """Say what there is of these streams; serve every connection; go on until the pipe ends."""
    lines = list(_lines(capture, streams))
    blob, count = bytearray(), 0
    first = {stream: _number(lines, stream, 0) for stream in streams}
    span = {stream: _number(lines, stream, -1) - first[stream] + 1 for stream in streams}
    for turn in range(times):
        for stream, text in lines:
            blob += frames.text(_later(text, stream, turn * span[stream]))
            count += 1
    with socket.create_server(("127.0.0.1", 0)) as subscription:
        port, last_id = subscription.getsockname()[1], first[STREAMS[0]] + times * span[STREAMS[0]] - 1
        pipe.send(Content(port, first[STREAMS[0]], last_id, count))
        accept(subscription, partial(_serve, blob=bytes(blob)))
        pipe.poll(None)


def _lines(capture: Path, streams: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with gzip.open(capture) as lines:
        for line in lines:
            text = line.partition(b" ")[2].strip()
            for stream in streams:
                if text.startswith(b'{"stream":"%b"' % stream.encode()):
                    yield stream, text


def _number(lines: list[tuple[str, bytes]], stream: str, place: int) -> int:
    text = [text for name, text in lines if name == stream][place]
    found = NUMBER[stream].search(text)
    assert found is not None
    return int(found[1])


def _later(text: bytes, stream: str, by: int) -> bytes:
    found = NUMBER[stream].search(text)
    assert found is not None
    return text[: found.start(1)] + b"%d" % (int(found[1]) + by) + text[found.end(1) :]


def accept(subscription: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Serve every connection, each in a thread of its own, until the process ends."""

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def listen() -> None:
        while True:
            connection, _ = subscription.accept()
            threading.Thread(target=run, args=(connection,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()


def _serve(connection: socket.socket, blob: bytes) -> None:
    asked = shake_hands(connection)
    if asked is None:
        return
    protocol = Protocol(ConnectionType.SERVER)
    while not all(stream in asked for stream in STREAMS):
        data = connection.recv(READ_BYTES)
        if not data:
            return
        asked += acknowledge(connection, protocol, data)
    connection.sendall(blob)
    while (said := connection.recv(READ_BYTES)) and said[0] & 0x0F != CLOSE:
        continue


def shake_hands(connection: socket.socket) -> str | None:
    """Accept a WebSocket, and return what its request asks for; ``None`` for another request, which finds nothing."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(READ_BYTES)
        if not data:
            return None
        head += data
    if (key := KEY.search(head)) is None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        return None
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %b\r\n\r\n" % frames.accept_key(key[1].decode()).encode()
    )
    return head.split(b"\r\n", 1)[0].decode()


def acknowledge(connection: socket.socket, protocol: Protocol, data: bytes) -> str:
    """Say yes to every request in what was read; returns their texts."""
    protocol.receive_data(data)
    texts = [event.data for event in protocol.events() if isinstance(event, ws.TextMessage)]
    for text in texts:
        connection.sendall(frames.text(json.dumps({"result": None, "id": json.loads(text)["id"]}).encode()))
    return "".join(texts)
