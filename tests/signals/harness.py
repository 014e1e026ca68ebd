"""The signal service over a real SQLite file, without threads: virtual time does not wait for those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.database import SignalDatabase
from komas.signals.database_threads import DatabaseThreads
from komas.signals.services import SignalServices, signal_services
from komas.signals.tokens import SCOPE_PUBLISH, Issuer, Keys, Rules, Verifier

T = TypeVar("T")

SECRET = b"a secret of thirty-two bytes, and more"
START_MS = 1_770_000_000_000


class InlineStore(DatabaseThreads):
    """A store whose calls are made between two checkpoints, with nothing else running in the meantime."""

    async def _in_thread(self, call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        async with limiter:
            await trio.lowlevel.checkpoint()
            return call()


class SignalHarness:
    """The signal service's components, and tokens for them; the wall clock goes with trio's."""

    def __init__(self, database: SignalDatabase, settings: Settings) -> None:
        self.database = database
        self.store = InlineStore(lambda: database)
        self.issuer = Issuer(SECRET, Rules())
        self._began = trio.current_time()
        authenticator = Authenticator(Verifier(Rules(), Keys.of_secret(SECRET)), None, self.clock_ms)
        self.services: SignalServices = signal_services(settings, self.store, authenticator, self.clock_ms)

    def clock_ms(self) -> int:
        """Milliseconds since the epoch."""
        return START_MS + round((trio.current_time() - self._began) * 1000)

    def now_s(self) -> int:
        """Seconds since the epoch."""
        return self.clock_ms() // 1000

    def token(self, user: str = "123", *, ttl_s: int = 3600, vip_days: int | None = 30, publishes: bool = False) -> str:
        """A valid token."""
        scopes = frozenset({SCOPE_PUBLISH}) if publishes else frozenset[str]()
        return self.issuer.issue(user, now_s=self.now_s(), ttl_s=ttl_s, vip_days=vip_days, scopes=scopes)


def signal_harness_over(database: SignalDatabase, settings: Settings | None = None) -> SignalHarness:
    """The signal service over a ledger that the test closes."""
    return SignalHarness(database, settings or Settings())


def signal_harness(folder: Path, settings: Settings | None = None) -> SignalHarness:
    """The signal service over a file in a folder; ``services.service.run`` is to be started by the test."""
    return signal_harness_over(SignalDatabase(f"sqlite:///{folder / 'komas.db'}"), settings)
