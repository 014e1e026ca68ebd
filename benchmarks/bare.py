"""The least servers that a crowd can be fed by.

One writes each event straight into every socket. It is there to check the crowd: what the crowd takes from it, at
latencies as low, it is no bottleneck for. The other one stands between the feeder and one client as komas does, and
only reads, ``json.loads()`` and writes: what any server in that place costs at the least.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from multiprocessing.connection import Connection

from benchmarks.feeder import NS, SYMBOL, Order, Pace, Sent
from benchmarks.peers.event import STREAM, envelope

GREETING = (
    b"HTTP/1.1 200 \r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    b"d\r\nretry: 2000\n\n\r\n"
)
HANDSHAKE = (
    f"GET {STREAM} HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
READ_BYTES = 2**16
HEADER_BYTES = 4  # of the feeder's frames, which are all longer than 125 bytes and shorter than 64 KB


def serve(pipe: Connection) -> None:
    """Say the port; greet who comes; take an ``Order``, write its events to everybody, answer with ``Sent``."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as subscription:
        clients: list[socket.socket] = []
        threading.Thread(target=_greet, args=(subscription, clients), daemon=True).start()
        pipe.send(subscription.getsockname()[1])
        pipe.send(_play(clients, pipe.recv()))
        pipe.poll(None)


def relay(pipe: Connection, source_port: int) -> None:
    """Say the port; write each trade of the feeder to the one client that comes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as subscription,
        socket.create_connection(("127.0.0.1", source_port)) as source,
    ):
        pipe.send(subscription.getsockname()[1])
        source.sendall(HANDSHAKE)
        source.recv(4096)
        client, _ = subscription.accept()
        with client:
            client.recv(4096)
            client.sendall(GREETING)
            while frame := source.recv(READ_BYTES):
                client.sendall(_chunk(json.loads(frame[HEADER_BYTES:])["data"]))


def _chunk(trade: dict[str, object]) -> bytes:
    event = f"data: {envelope(trade)}\n\n"
    return f"{len(event):x}\r\n{event}\r\n".encode()


def _greet(subscription: socket.socket, clients: list[socket.socket]) -> None:
    while True:
        client, _ = subscription.accept()
        client.recv(4096)
        client.sendall(GREETING)
        clients.append(client)


def _play(clients: list[socket.socket], order: Order) -> Sent:
    pace = Pace(order)
    while not pace.is_over:
        time.sleep(pace.wait_s())
        event = _event(*pace.leave())
        for client in clients:
            client.sendall(event)
    return pace.sent()


def _event(trade_id: int, stamp_ns: int) -> bytes:
    """One trade in the bytes in which komas sends it."""
    event = (
        f'id: 9b441cf7-{trade_id}\ndata: {{"type":"trade","data":{{"type":"trade","symbol":"{SYMBOL}",'
        f'"trade_id":{trade_id},"price":61837.63000000,"quantity":{stamp_ns // NS}.{stamp_ns % NS:09},'
        f'"timestamp":1795232630048,"is_buyer_maker":true}},"timestamp":"2026-11-21T03:43:50.235Z"}}\n\n'
    ).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)
