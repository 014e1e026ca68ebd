"""The suite of every store, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from komas.backplane.ports import VERSION, Backplane
from komas.backplane.redis import open_redis
from komas.backplane.retention import Retention
from tests.backplane.contract import BackplaneContract
from tests.e2e.redis_server import RedisServer, redis_server


class RedisWorld:
    """A Redis on a Unix socket; a replica is one that starts again from what was saved before."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    @asynccontextmanager
    async def connect(self, *, version: int = VERSION, retention: Retention | None = None) -> AsyncIterator[Backplane]:
        """A connection."""
        url = f"unix://{self._server.socket}"
        async with open_redis(url, version=version, retention=retention, call_s=10) as node:
            yield node

    async def wipe(self) -> None:
        """Forget everything."""
        await trio.to_thread.run_sync(self._server.ask, "FLUSHALL")

    @asynccontextmanager
    async def losing_tail(self) -> AsyncIterator[None]:
        """Save, and start again from that."""
        await trio.to_thread.run_sync(self._server.ask, "SAVE")
        yield
        await trio.to_thread.run_sync(self._server.kill)
        await trio.to_thread.run_sync(self._server.start)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One for all; each test finds it empty."""
    with redis_server() as server:
        yield server


class TestRedis(BackplaneContract):
    """Over its Unix socket."""

    @pytest.fixture
    def world(self, server: RedisServer) -> RedisWorld:
        """Empty."""
        server.ask("FLUSHALL")
        return RedisWorld(server)
