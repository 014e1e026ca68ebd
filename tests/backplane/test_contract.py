"""The suite of every store, on the store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio.testing

from komas.backplane.memory import MemoryStore
from komas.backplane.ports import VERSION, Backplane
from komas.backplane.retention import Retention
from tests.backplane.contract import BackplaneContract


class MemoryWorld:
    """The store in memory; a retention is the store's, so it is given with the first connection."""

    def __init__(self) -> None:
        self._store: MemoryStore | None = None

    @asynccontextmanager
    async def connect(self, *, version: int = VERSION, retention: Retention | None = None) -> AsyncIterator[Backplane]:
        """A connection."""
        self._store = self._store or MemoryStore(retention)
        yield self._store.connect(version=version)

    async def wipe(self) -> None:
        """Forget everything."""
        assert self._store is not None
        self._store.wipe()

    @asynccontextmanager
    async def losing_tail(self) -> AsyncIterator[None]:
        """Count what is written."""
        assert self._store is not None
        before = self._store.entries
        yield
        self._store.lose_tail(self._store.entries - before)


class TestMemory(BackplaneContract):
    """On trio's clock, which jumps."""

    @pytest.fixture
    def world(self, autojump_clock: trio.testing.MockClock) -> MemoryWorld:
        """An empty store."""
        return MemoryWorld()
