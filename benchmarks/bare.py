"""The least server that a crowd can be fed by: it writes each event straight into every socket.

It is there to check the crowd. What the crowd takes from it, at latencies as low, it is no bottleneck for.
"""

from __future__ import annotations

import socket
import threading
import time
from multiprocessing.connection import Connection

from benchmarks.feeder import NS, SYMBOL, Order, Pace, Sent

GREETING = (
    b"HTTP/1.1 200 \r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    b"d\r\nretry: 2000\n\n\r\n"
)


def serve(pipe: Connection) -> None:
    """Say the port; greet who comes; take an ``Order``, write its events to everybody, answer with ``Sent``."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        clients: list[socket.socket] = []
        threading.Thread(target=_greet, args=(listener, clients), daemon=True).start()
        pipe.send(listener.getsockname()[1])
        pipe.send(_play(clients, pipe.recv()))
        pipe.poll(None)


def _greet(listener: socket.socket, clients: list[socket.socket]) -> None:
    while True:
        client, _ = listener.accept()
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
