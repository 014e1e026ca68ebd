"""VIPs: granted and revoked in the store, and applied to the open sockets, also when another process did it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from komas.model.signals import Vip
from komas.signals.database_threads import DatabaseThreads
from komas.signals.registry import ConnectionRegistry


class VipGrants:
    """What the store knows of users; ``version`` is the last change that open sockets were told."""

    def __init__(self, store: DatabaseThreads, registry: ConnectionRegistry, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._registry = registry
        self._clock_ms = clock_ms
        self._telling = trio.Lock()
        self.version = 0

    async def known(self, user_id: str) -> Vip | None:
        """What the store knows of a user."""
        return await self._store.read(lambda database: database.vip(user_id))

    async def grant(self, user_id: str, days: int) -> Vip:
        """Make a user VIP for at least so many days."""
        vip = await self._store.write(lambda database: database.grant(user_id, days, self._clock_ms() // 1000))
        self._registry.tell(vip)
        return vip

    async def revoke(self, user_id: str) -> Vip:
        """End a user's VIP; the user's sockets are closed when this returns."""
        vip = await self._store.write(lambda database: database.revoke(user_id, self._clock_ms() // 1000))
        self._registry.tell(vip)
        return vip

    async def catch_up(self, version: int) -> None:
        """Tell open sockets of every change up to a version, also of those that other processes made."""
        async with self._telling:
            while self.version < version:
                page = await self._store.read(lambda database: database.vips(self.version))
                for vip in page:
                    self._registry.tell(vip)
                    self.version = vip.version
                if not page:
                    return  # the rows were removed by hand
