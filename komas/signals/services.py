"""The desk's rooms, opened in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from komas.hub.channel import Topic
from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.database_threads import Store, open_store
from komas.signals.keys import keys_of, rules_of
from komas.signals.registry import Register
from komas.signals.service import Desk
from komas.signals.tokens import Verifier
from komas.signals.vip_grants import Vips


class SignalRooms(msgspec.Struct, frozen=True):
    """What a request or a socket can reach; ``clock_ms`` is the wall clock, milliseconds since the epoch."""

    store: Store
    topic: Topic
    desk: Desk
    vips: Vips
    register: Register
    authenticator: Authenticator
    clock_ms: Callable[[], int]
    mailbox: int


def database_of(settings: Settings) -> str | Path:
    """Where signals are kept: a database's URL, or an SQLite file."""
    assert settings.data_dir is not None  # load() completes it
    return settings.database_url or settings.data_dir / "komas.db"


@asynccontextmanager
async def open_signals(settings: Settings, clock_ms: Callable[[], int]) -> AsyncIterator[SignalRooms]:
    """Open the store and everything over it; ``desk`` and ``authenticator`` are to be run by the caller."""
    keys, jwks = keys_of(settings)
    authenticator = Authenticator(Verifier(rules_of(settings), keys), jwks, clock_ms)
    async with open_store(database_of(settings)) as store:
        yield signal_rooms(settings, store, authenticator, clock_ms)


def signal_rooms(
    settings: Settings, store: Store, authenticator: Authenticator, clock_ms: Callable[[], int]
) -> SignalRooms:
    """The rooms over a store."""
    register = Register(settings)
    vips = Vips(store, register, clock_ms)
    topic = Topic()
    desk = Desk(store, topic, vips, clock_ms)
    return SignalRooms(store, topic, desk, vips, register, authenticator, clock_ms, settings.signal_mailbox)
