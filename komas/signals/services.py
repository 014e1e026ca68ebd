"""The signal service's components, opened in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from komas.hub.channel import SignalChannel
from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.database_threads import DatabaseThreads, open_database
from komas.signals.keys import keys_of, rules_of, stray_signer_of
from komas.signals.registry import ConnectionRegistry
from komas.signals.service import SignalService
from komas.signals.tokens import Verifier
from komas.signals.vip_grants import VipGrants


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
    async with open_database(database_of(settings)) as store:
        yield signal_services(settings, store, authenticator, clock_ms)


def signal_services(
    settings: Settings, store: DatabaseThreads, authenticator: Authenticator, clock_ms: Callable[[], int]
) -> SignalServices:
    """The components over a store."""
    registry = ConnectionRegistry(settings)
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
    )
