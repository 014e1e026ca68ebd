"""Token → Principal, with keys that may have to be fetched first."""

from __future__ import annotations

from collections.abc import Callable

from komas.model.signals import Principal
from komas.signals.keys import Jwks
from komas.signals.tokens import UnknownKey, Verifier


class Authenticator:
    """Verifies tokens by the wall clock; raises ``Unauthorized``."""

    def __init__(self, verifier: Verifier, jwks: Jwks | None, clock_ms: Callable[[], int]) -> None:
        self._verifier = verifier
        self._jwks = jwks
        self._clock_ms = clock_ms

    async def run(self) -> None:
        """Keep fetched keys fresh until cancelled; returns where there are none to fetch."""
        if self._jwks is not None:
            await self._jwks.run()

    async def authenticate(self, token: str) -> Principal:
        """Who a token speaks for."""
        try:
            return self._verifier.verify(token, self._clock_ms() / 1000)
        except UnknownKey:
            if self._jwks is None:
                raise
        await self._jwks.refresh()
        return self._verifier.verify(token, self._clock_ms() / 1000)
