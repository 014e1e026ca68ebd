"""Those who read the exchange's frames: komas, and the loops that it is compared with.

Each runs in a process of its own, takes a ``Task`` from its pipe and answers with a ``Reading``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, TypedDict

import msgspec
import trio

STREAMS: Final = ("btcusdt@trade", "btcusdt@bookTicker")
PATH: Final = "/stream?streams=" + "/".join(STREAMS)
READ_BYTES: Final = 2**18
SETTLE_S: Final = 1.0  # what komas loads in the background when it starts is not what is measured


class Task(msgspec.Struct, frozen=True):
    """Where to connect, and what must come: ids of trades without a gap, and frames in all."""

    port: int
    first_id: int
    last_id: int
    frames: int

    @property
    def url(self) -> str:
        """The exchange's base."""
        return f"ws://127.0.0.1:{self.port}"


class Reading(msgspec.Struct, frozen=True):
    """What came between the first frame and the last; ``wrong`` counts trades lost, doubled or out of order."""

    frames: int
    seconds: float
    cpu_s: float
    wrong: int


class Data(TypedDict):
    """A trade, or anything else."""

    t: int


class Combined(TypedDict):
    """A decoded message."""

    stream: str
    data: Data


class SignalDatabase:
    """Counts frames, checks ids, and takes the time from the first frame on."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next_id = task.first_id
        self._wrong = 0
        self._begun = 0.0, 0.0
        self.frames = 0

    def begin(self) -> None:
        """Note the arrival of the first frame."""
        if not self._begun[0]:
            self._begun = time.perf_counter(), time.process_time()

    def trade(self, trade_id: int) -> None:
        """Check one trade."""
        if trade_id != self._next_id:
            self._wrong += 1
        self._next_id = trade_id + 1

    @property
    def told_all(self) -> bool:
        """Whether the last trade has come."""
        return self._next_id > self._task.last_id

    def message(self, message: Combined) -> bool:
        """Take one decoded message; whether it was the last."""
        self.begin()
        self.frames += 1
        if message["stream"] == STREAMS[0]:
            self.trade(message["data"]["t"])
        return self.frames >= self._task.frames

    def reading(self, frames: int) -> Reading:
        """The result, now."""
        begun_s, begun_cpu_s = self._begun
        wrong = self._wrong + (not self.told_all)
        return Reading(frames, time.perf_counter() - begun_s, time.process_time() - begun_cpu_s, wrong)


def read(pipe: Connection, reader: Callable[[Task], Reading]) -> None:
    """Serve one task."""
    pipe.send(reader(pipe.recv()))
    pipe.poll(None)


def komas(task: Task) -> Reading:
    """Komas as it is: feed, hub, and one subscriber to both streams."""
    from komas.client.streams import open_components  # noqa: PLC0415 - a peer's process does not load komas
    from komas.model.codec import Envelope  # noqa: PLC0415
    from komas.model.kinds import Kind  # noqa: PLC0415
    from komas.model.market import Trade  # noqa: PLC0415
    from komas.model.streams import Stream  # noqa: PLC0415
    from komas.venues.core.websocket import open_tcp  # noqa: PLC0415

    async def run() -> Reading:
        ledger, dropped = SignalDatabase(task), 0
        wanted = (Stream(Kind.TRADE, "BTCUSDT"), Stream(Kind.BOOK_TICKER, "BTCUSDT"))
        components = open_components(task.url, rest_url=None, retry_policy=None, open_stream=open_tcp)
        async with components as house, trio.open_nursery() as nursery:
            hub = house.hub
            house.start_in(nursery)
            await trio.sleep(SETTLE_S)
            with hub.subscribe(wanted) as subscription:
                house.feed.connect()
                # A book ticker that a newer one overtakes is merged: frames are counted where they are read.
                while house.feed.statistics().messages_received < task.frames:
                    batch = await subscription.receive()
                    dropped += batch.dropped
                    for item in batch.items:
                        if isinstance(item, Envelope):
                            ledger.begin()
                            if isinstance(item.event, Trade):
                                ledger.trade(item.event.trade_id)
            counts = house.feed.statistics()
            reading = ledger.reading(counts.messages_received)
            nursery.cancel_scope.cancel()
        return msgspec.structs.replace(reading, wrong=reading.wrong + dropped + counts.unreadable + counts.unknown)

    return trio.run(run)


def trio_websocket(task: Task) -> Reading:
    """The bare loop of trio-websocket: ``get_message()`` and ``json.loads()``."""
    from trio_websocket import open_websocket_url  # noqa: PLC0415 - another reader's process does not load it

    async def run() -> Reading:
        ledger = SignalDatabase(task)
        async with open_websocket_url(task.url + PATH) as connection:
            while not ledger.message(json.loads(await connection.get_message())):
                pass
            return ledger.reading(ledger.frames)

    return trio.run(run)


def websockets(task: Task) -> Reading:
    """The bare loop of websockets on asyncio, as its documentation has it, and ``json.loads()``."""
    from websockets.asyncio.client import connect  # noqa: PLC0415 - another reader's process does not load it

    async def run() -> Reading:
        ledger = SignalDatabase(task)
        async with connect(task.url + PATH, proxy=None) as connection:
            async for text in connection:
                if ledger.message(json.loads(text)):
                    break
            return ledger.reading(ledger.frames)

    return asyncio.run(run())


def bytes_only(task: Task) -> Reading:
    """No reader at all: bytes are taken and frames counted. What the exchange simulator can give at most."""
    ledger = SignalDatabase(task)
    with socket.create_connection(("127.0.0.1", task.port), 10) as connection:
        connection.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        frames, tail, mark = 0, b"", b'{"stream":"'
        while frames < task.frames:
            data = tail + connection.recv(READ_BYTES)
            found = data.count(mark)
            if found:
                ledger.begin()
            frames += found
            tail = data[-len(mark) + 1 :]
        return msgspec.structs.replace(ledger.reading(frames), wrong=0)
