"""Many streams: what a frame costs when it is one of a thousand streams', at a listener to all of them."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import trio
import wsproto.events as ws
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from benchmarks import machine
from benchmarks.feeder import KEY, NS
from benchmarks.processes import child
from benchmarks.report import Row, medians
from komas.sim import frames

FRAMES: Final = 100_000
SILENCE_S: Final = 1.0  # after the last wish of a connection, its frames are written
READ_BYTES: Final = 2**16
NAMES: Final = re.compile(r"(\w+)@bookTicker")
WAIT_S: Final = 120.0


def measure(count: int, rounds: int) -> Row:
    """The row of so many streams."""
    return medians([_round(count) for _ in range(rounds)])


def _round(count: int) -> Row:
    mine, other = machine.cores()
    with child(other, exchange, FRAMES // count) as source, child(mine, read) as reader:
        reader.tell((source.hear(), count, FRAMES // count * count))
        reading = reader.hear(WAIT_S)
        assert isinstance(reading, Reading)
    return {
        "streams": count,
        "acknowledged after s": reading.ready_s,
        "CPU µs/frame": reading.cpu_s / FRAMES * 1e6,
    }


class Reading(msgspec.Struct, frozen=True):
    """What all frames cost, and how long it took until every stream was acknowledged."""

    cpu_s: float
    ready_s: float


def read(pipe: Connection) -> None:
    """Take a port, a number of streams and of frames; answer with a ``Reading``."""
    from komas.client import open_rooms  # noqa: PLC0415 - the exchange's process does not load komas
    from komas.model.streams import Kind, Stream  # noqa: PLC0415
    from komas.venues.dial import open_tcp  # noqa: PLC0415

    async def run(port: int, count: int, wanted_frames: int) -> Reading:
        wanted = [Stream(Kind.BOOK_TICKER, f"S{number:04}") for number in range(count)]
        rooms = open_rooms(f"ws://127.0.0.1:{port}", rest_url=None, patience=None, open_stream=open_tcp)
        begun = time.perf_counter()
        async with rooms as house, trio.open_nursery() as nursery:
            house.start_in(nursery)
            with house.hub.listen(wanted) as listener:
                house.feed.connect()
                await house.feed.acknowledged(wanted)
                ready_s = time.perf_counter() - begun
                await listener.take()
                cpu_s = time.process_time()
                while house.hub.statistics().published < wanted_frames:
                    await listener.take()
            nursery.cancel_scope.cancel()
        return Reading(time.process_time() - cpu_s, ready_s)

    pipe.send(trio.run(run, *pipe.recv()))
    pipe.poll(None)


def exchange(pipe: Connection, each: int) -> None:
    """Say the port; to every connection write so many frames of each stream that it asks for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, each), daemon=True).start()
        pipe.poll(None)


def _accept(listener: socket.socket, each: int) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, each), daemon=True).start()


def _serve(connection: socket.socket, each: int) -> None:
    with connection:
        try:
            names = _wishes(connection)
            for number in range(each if names else 0):
                connection.sendall(b"".join(_frame(name, number) for name in names))
            while names and connection.recv(READ_BYTES):
                continue
        except OSError:
            return


def _wishes(connection: socket.socket) -> list[str]:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(READ_BYTES) or b"\r\n\r\n"
    if (key := KEY.search(head)) is None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        return []
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %b\r\n\r\n" % frames.accept_key(key[1].decode()).encode()
    )
    names = dict.fromkeys(NAMES.findall(head.decode()))
    protocol = Protocol(ConnectionType.SERVER)
    connection.settimeout(SILENCE_S)
    while True:
        try:
            data = connection.recv(READ_BYTES)
        except TimeoutError:
            connection.settimeout(None)
            return list(names)
        protocol.receive_data(data or None)
        for event in protocol.events():
            if isinstance(event, ws.TextMessage):
                request = json.loads(event.data)
                names |= dict.fromkeys(NAMES.findall(event.data))
                connection.sendall(frames.text(json.dumps({"result": None, "id": request["id"]}).encode()))


def _frame(name: str, number: int) -> bytes:
    text = (
        f'{{"stream":"{name}@bookTicker","data":{{"u":{NS + number},"s":"{name.upper()}","b":"61837.63000000",'
        '"B":"3.78000000","a":"61837.64000000","A":"1.54000000"}}'
    )
    return frames.text(text.encode())
