"""Many streams: what a frame costs when it is one of a thousand streams', at a subscriber to all of them."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import trio
from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionType

from benchmarks import machine
from benchmarks.blast import accept, acknowledge, shake_hands
from benchmarks.feeder import NS
from benchmarks.processes import child
from benchmarks.readers import SETTLE_S
from benchmarks.report import Row, medians
from komas.cli.progress import counted
from komas.simulator import frames

TITLE: Final = "one listener to many streams: exchange socket → hub listener"
POINTS: Final = (1, 10, 100, 1000, 4000)
FRAMES: Final = 100_000
SILENCE_S: Final = 1.0  # after the last wish of a connection, its frames are written
READ_BYTES: Final = 2**16
NAMES: Final = re.compile(r"(\w+)@bookTicker")
WAIT_S: Final = 120.0


def measure(count: int, rounds: int) -> Row:
    """The row of so many streams."""
    return medians([_round(count) for _ in counted(range(rounds), "round")])


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
        "published %": 100 * reading.published / FRAMES,
        "CPU µs/published event": reading.cpu_s / reading.published * 1e6 if reading.published else float("nan"),
    }


class Reading(msgspec.Struct, frozen=True):
    """What all frames cost, how many events were published of them, and how long the acknowledgements took.

    Of the states that one read brings of one stream, the last alone is published.
    """

    cpu_s: float
    ready_s: float
    published: int


def read(pipe: Connection) -> None:
    """Take a port, a number of streams and of frames; answer with a ``Reading``."""
    from komas.client.streams import open_components  # noqa: PLC0415 - the exchange's process does not load komas
    from komas.model.kinds import Kind  # noqa: PLC0415
    from komas.model.streams import Stream  # noqa: PLC0415
    from komas.venues.core.websocket import open_tcp  # noqa: PLC0415

    async def run(port: int, count: int, wanted_frames: int) -> Reading:
        wanted = [Stream(Kind.BOOK_TICKER, f"S{number:04}") for number in range(count)]
        components = open_components(f"ws://127.0.0.1:{port}", rest_url=None, retry_policy=None, open_stream=open_tcp)
        async with components as house, trio.open_nursery() as nursery:
            house.start_in(nursery)
            await trio.sleep(SETTLE_S)
            begun = time.perf_counter()
            with house.hub.subscribe(wanted) as subscription:
                house.feed.connect()
                await house.feed.acknowledged(wanted)
                ready_s = time.perf_counter() - begun
                await subscription.receive()
                cpu_s, published = time.process_time(), house.hub.statistics().published
                while house.feed.statistics().messages_received < wanted_frames:
                    await subscription.receive()
            nursery.cancel_scope.cancel()
        return Reading(time.process_time() - cpu_s, ready_s, house.hub.statistics().published - published)

    pipe.send(trio.run(run, *pipe.recv()))
    pipe.poll(None)


def exchange(pipe: Connection, each: int) -> None:
    """Say the port; to every connection write so many frames of each stream that it asks for."""
    with socket.create_server(("127.0.0.1", 0)) as subscription:
        accept(subscription, partial(_serve, each=each))
        pipe.send(subscription.getsockname()[1])
        pipe.poll(None)


def _serve(connection: socket.socket, each: int) -> None:
    names = _wishes(connection)
    for number in range(each if names else 0):
        connection.sendall(b"".join(_frame(name, number) for name in names))
    while names and connection.recv(READ_BYTES):
        continue


def _wishes(connection: socket.socket) -> list[str]:
    """Every stream that is asked for, until no more are."""
    asked, protocol = shake_hands(connection) or "", Protocol(ConnectionType.SERVER)
    connection.settimeout(SILENCE_S)
    with suppress(TimeoutError):
        while data := connection.recv(READ_BYTES):
            asked += acknowledge(connection, protocol, data)
    connection.settimeout(None)
    return list(dict.fromkeys(NAMES.findall(asked)))


def _frame(name: str, number: int) -> bytes:
    text = (
        f'{{"stream":"{name}@bookTicker","data":{{"u":{NS + number},"s":"{name.upper()}","b":"61837.63000000",'
        '"B":"3.78000000","a":"61837.64000000","A":"1.54000000"}}'
    )
    return frames.text(text.encode())
