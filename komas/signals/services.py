"""The signal service's components, opened in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from komas.hub.channel import SignalChannel
from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.database_threads import DatabaseThreads, open_database
from komas.signals.keeper import Keeper
from komas.signals.keys import keys_of, rules_of, stray_signer_of
from komas.signals.notification import SESSION, Notification
from komas.signals.registry import ConnectionRegistry
from komas.signals.service import SignalService
from komas.signals.tokens import Verifier
from komas.signals.vip_grants import VipGrants

if TYPE_CHECKING:
    from komas.signals.listener import Listener

PROCESS_BYTES: Final = 4  # of a process's name: among a hundred, two of the same are one in a million


class SignalServices(msgspec.Struct, frozen=True):
    """What a request or a socket can reach; ``clock_ms`` is the wall clock, milliseconds since the epoch."""

    store: DatabaseThreads
    channel: SignalChannel
    service: SignalService
    vips: VipGrants
    registry: ConnectionRegistry
    authenticator: Authenticator
    clock_ms: Callable[[], int]
    buffer_capacity: int
    websocket_ping_s: float
    keeper: Keeper
    listener: Listener | None = None  # to what other processes commit; a database that is a file notifies nobody

    def heard(self, notification: Notification) -> None:
        """Act on what another process, or this one, notified of."""
        if notification.kind == SESSION:
            self.registry.disconnect(notification.value)
        else:
            self.service.notified(notification)

    async def disconnect(self, session: str) -> bool | None:
        """Close a socket: ``True`` if it is one of ours, ``None`` if other processes are asked to, or else ``False``.

        Those are not waited for, and nobody may have it any more.
        """
        if self.registry.disconnect(session):
            return True
        if self.listener is None or not self.registry.is_foreign(session):
            return False
        await self.store.write(lambda database: database.notify(Notification(SESSION, session)))
        return None

    async def run(self) -> None:
        """Tell what is committed, here and by other processes, and look after sessions, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keeper.run, name="vip keeper")
            if self.listener is not None:
                nursery.start_soon(self.listener.run, name="database listener")
            await self.service.run()


def database_of(settings: Settings) -> str | Path:
    """Where signals are kept: a database's URL, or an SQLite file."""
    assert settings.data_dir is not None  # load() completes it
    return settings.database_url or settings.data_dir / "komas.db"


@asynccontextmanager
async def open_signals(settings: Settings, clock_ms: Callable[[], int]) -> AsyncIterator[SignalServices]:
    """Open the store and everything over it; ``service`` and ``authenticator`` are to be run by the caller."""
    keys, jwks = keys_of(settings)
    stray_signer = partial(stray_signer_of, settings=settings)
    authenticator = Authenticator(Verifier(rules_of(settings), keys), jwks, clock_ms, stray_signer)
    place = database_of(settings)
    async with open_database(place) as store:
        services = signal_services(settings, store, authenticator, clock_ms, process=token_hex(PROCESS_BYTES))
        yield msgspec.structs.replace(services, listener=_listener(place, services))


def _listener(place: str | Path, services: SignalServices) -> Listener | None:
    if isinstance(place, Path):  # SQLAlchemy need not be loaded to know that
        return None
    from komas.signals.database import connection_options  # noqa: PLC0415 - loaded where a server is used

    if (options := connection_options(place)) is None:
        return None
    from komas.signals.listener import Listener  # noqa: PLC0415 - its driver is an extra

    service = services.service
    return Listener(options, heard=services.heard, found=service.listening, lost=service.not_listening)


def signal_services(
    settings: Settings,
    store: DatabaseThreads,
    authenticator: Authenticator,
    clock_ms: Callable[[], int],
    *,
    process: str = "0",
) -> SignalServices:
    """The components over a store; ``process`` tells this process's sockets from those of others."""
    registry = ConnectionRegistry(settings, process)
    vips = VipGrants(store, registry, clock_ms)
    channel = SignalChannel()
    service = SignalService(store, channel, vips, clock_ms)
    return SignalServices(
        store,
        channel,
        service,
        vips,
        registry,
        authenticator,
        clock_ms,
        buffer_capacity=settings.signal_mailbox,
        websocket_ping_s=settings.websocket_ping_s,
        keeper=Keeper(),
    )
