"""Two nodes around one Redis: komas, and what a user would pick instead, whose publishers try again until heard.

Nchan keeps its messages in Redis and answers a publisher once they are there. Pub/sub keeps nothing: who is not
subscribed at that moment never hears of a message.
"""

from __future__ import annotations

import http.client
import importlib.util
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.cluster.nodes import Arrangement, Nodes, running, store
from benchmarks.crowd import GREETED
from benchmarks.feeder import FIRST_ID, NS, SYMBOL, Order, Sent
from benchmarks.peers import servers
from benchmarks.peers.event import CHANNEL, STORE, envelope
from benchmarks.processes import child

AGAIN_S: Final = 0.02
CONNECTED_S: Final = 2.0  # until nchan has its connections: who comes before that hears nothing
CALL_S: Final = 2.0


@contextmanager
def komas() -> Iterator[Nodes]:
    """A leader and an edge, both with clients."""
    with running(Arrangement(edges=1)) as nodes:
        yield nodes


@contextmanager
def nchan() -> Iterator[Nodes]:
    """Nginx twice, in nchan's Redis mode."""
    with ExitStack() as stack:
        shared = stack.enter_context(store())
        found = [stack.enter_context(servers.nginx(None, shared.port)) for _ in range(2)]
        ports = [port for _, port in found]
        time.sleep(CONNECTED_S)
        source = stack.enter_context(child(None, publish_to_nchan, ports[0]))
        yield Nodes(source, [pid for pid, _ in found], ports, shared, b"\r\n\r\n")


@contextmanager
def pubsub() -> Iterator[Nodes]:
    """Uvicorn twice, each subscribed to one channel."""
    with ExitStack() as stack:
        shared = stack.enter_context(store())
        nodes = [servers.uvicorn(None, shared.port, app="redis_app", variable=STORE) for _ in range(2)]
        found = [stack.enter_context(node) for node in nodes]
        source = stack.enter_context(child(None, publish_to_redis, shared.port))
        yield Nodes(source, [pid for pid, _ in found], [port for _, port in found], shared, GREETED)


def installed() -> dict[str, Callable[[], AbstractContextManager[Nodes]]]:
    """Komas, and those of the others that are there."""
    found: dict[str, Callable[[], AbstractContextManager[Nodes]]] = {"komas, leader and edge": komas}
    if servers.has_nchan():
        found["nginx + nchan, Redis mode"] = nchan
    if servers.has_fastapi() and importlib.util.find_spec("redis"):
        found["sse-starlette + Redis pub/sub"] = pubsub
    return found


def publish_to_nchan(pipe: Connection, port: int) -> None:
    """Take an ``Order``, publish each trade by POST; answer with ``Sent``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_S)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(text: str) -> bool:
        try:
            connection.request("POST", "/publish", text)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return answer.status < http.HTTPStatus.BAD_REQUEST

    _publish(pipe, send)


def publish_to_redis(pipe: Connection, port: int) -> None:
    """Take an ``Order``, publish each trade to a channel; answer with ``Sent``."""
    from redis import Redis  # noqa: PLC0415 - another process does not need it
    from redis.exceptions import RedisError  # noqa: PLC0415

    redis = Redis(port=port)

    def send(text: str) -> bool:
        try:
            redis.publish(CHANNEL, text)
        except RedisError:
            return False
        return True

    _publish(pipe, send)


def _publish(pipe: Connection, send: Callable[[str], bool]) -> None:
    order = pipe.recv()
    assert isinstance(order, Order)
    began_s, first_ns, stamp_ns, latest_s = time.monotonic(), time.monotonic_ns(), 0, 0.0
    for number in range(order.events):
        time.sleep(max(0.0, began_s + number / order.rate - time.monotonic()))
        stamp_ns = time.monotonic_ns()
        latest_s = max(latest_s, stamp_ns / NS - began_s - number / order.rate)
        quantity = f"{stamp_ns // NS}.{stamp_ns % NS:09}"
        trade = {"s": SYMBOL, "t": FIRST_ID + number, "p": "61837.63000000", "q": quantity, "E": 1_795_232_630_048}
        text = envelope(dict(trade))
        while not send(text):
            time.sleep(AGAIN_S)
    pipe.send(Sent(order.events, first_ns, stamp_ns, latest_s))
    pipe.poll(None)
