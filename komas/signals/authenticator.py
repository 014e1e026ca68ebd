"""Token → Principal, with keys that may have to be fetched first."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from komas.errors import Unauthorized
from komas.model.signals import Principal
from komas.observability.logs import LogLimit
from komas.signals.keys import Jwks
from komas.signals.tokens import UnknownKey, Verifier

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0  # strangers send bad tokens as fast as the line allows: files are looked at once a second


class Authenticator:
    """Verifies tokens by the wall clock; raises ``Unauthorized``.

    ``stray_signer`` finds the file whose secret a refused token is signed with; that is for the log alone.
    """

    def __init__(
        self,
        verifier: Verifier,
        jwks: Jwks | None,
        clock_ms: Callable[[], int],
        stray_signer: Callable[[str], Path | None] = lambda _token: None,
    ) -> None:
        self._verifier = verifier
        self._jwks = jwks
        self._clock_ms = clock_ms
        self._stray_signer = stray_signer
        self._looked_at_s = -math.inf
        self._log_limit = LogLimit()

    async def run(self) -> None:
        """Keep fetched keys fresh until cancelled; returns where there are none to fetch."""
        if self._jwks is not None:
            await self._jwks.run()

    async def authenticate(self, token: str) -> Principal:
        """Who a token speaks for."""
        try:
            return await self._verify(token)
        except Unauthorized:
            self._look_for_its_store(token)
            raise

    async def _verify(self, token: str) -> Principal:
        try:
            return self._verifier.verify(token, self._clock_ms() / 1000)
        except UnknownKey:
            if self._jwks is None:
                raise
        await self._jwks.refresh()
        return self._verifier.verify(token, self._clock_ms() / 1000)

    def _look_for_its_store(self, token: str) -> None:
        """Say in the log when a token is the demo's and this is not the demo, or the reverse."""
        now_s = self._clock_ms() / 1000
        if abs(now_s - self._looked_at_s) < LOOK_EVERY_S:
            return
        self._looked_at_s = now_s
        file = self._stray_signer(token)
        if file is not None and (left_out := self._log_limit.due(now_s)) is not None:
            reason = f"it is signed with {file}, which is not this server's secret"
            log.warning("token refused", extra={"reason": reason, "left_out": left_out})
