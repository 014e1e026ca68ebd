"""A client of one connection under Hypercorn: a stream that takes its time, and no socket."""

from __future__ import annotations

import socket
from collections import deque

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from komas.web.hypercorn.tcp_connection import TCPConnection

GRACE_S = 1.0


class _Address:
    """As much of a socket as Hypercorn asks for."""

    family = socket.AF_INET
    is_closed = False

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def close(self) -> None:
        self.is_closed = True

    def getpeername(self) -> tuple[str, int]:
        return self._peer, 40000

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.2", 8000


class SlowClient(trio.abc.Stream):
    """A client that asks once, takes each write after so many seconds, and leaves when it is told to."""

    def __init__(self, takes_s: float, *pieces: bytes, peer: str = "192.0.2.1") -> None:
        self.socket = _Address(peer)
        self._takes_s = takes_s
        self._pieces = deque(pieces or [b"GET / HTTP/1.1\r\nHost: komas.test\r\n\r\n"])
        self._closed = trio.Event()
        self.taken = b""
        self.writes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._takes_s):
            await self._closed.wait()
            raise trio.ClosedResourceError
        self.taken += data
        self.writes += 1

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert max_bytes is not None
        await trio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.popleft()
        await self._closed.wait()
        return b""

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


class Idle(SlowClient):
    """A client that asks nothing."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        super().__init__(0, peer=peer)
        self._pieces.clear()


async def serve(
    stream: SlowClient | trio.SocketStream, app: ASGIFramework, context: WorkerContext | None = None
) -> None:
    """Serve one client until its end; ``install()`` comes first."""
    config = Config()
    config.graceful_timeout = GRACE_S
    context = context or WorkerContext(None)
    lasting = await TCPConnection(ASGIWrapper(app), config, context, LifespanState({}), stream)  # type: ignore[arg-type]
    if lasting is not None:
        await lasting.run()
