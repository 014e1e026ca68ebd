"""How many requests an address may make, before they cost much; contract section 2.

* What anybody may ask is counted for each address: 429, with ``Retry-After``.
* SSE clients are counted by themselves, for as many as an address may have can come back at once after a cut. One too
  many is told ``busy``: a browser's EventSource gives up on any status but 200.
* Calls that bring a token are counted by themselves, too, and no more once the token is known to be good: so neither
  anonymous callers nor bad tokens of others take anything from producers and VIPs of another address, and anonymous
  callers nothing from those of the same.
* The administrator's token is no limit. Peers of a Unix socket of whom its proxy does not say more are one address.
* Calls in a venue's own protocol are counted by weight, as that venue counts them: ``RestDoor``.
* Probes are never refused: a balancer would take a server for dead that is only busy.

A loopback address is counted as any other: behind a proxy on this machine that is not trusted there may be everybody.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import trio
from quart import Response, g, request

from komas.settings import Settings
from komas.web import sse
from komas.web.access import Access, Caller
from komas.web.problems import ProblemError
from komas.web.request_rates import RequestRates
from komas.web.routes.doors import NAME as DOORS

PROBES: Final = frozenset({"ops.healthz", "ops.readyz"})
# A client that asks on and on over one connection does so this much more slowly: a refusal costs nearly as much as an
# answer.
PAUSE_S: Final = 1.0
REASON: Final = "too many requests from this address"


class RateLimit:
    """The limits of all addresses, for the present request."""

    def __init__(self, settings: Settings, access: Access) -> None:
        rate, burst = settings.request_rate, settings.request_burst
        self._access = access
        self._anonymous = RequestRates(rate, burst)
        self._with_token = RequestRates(rate, burst)
        self._streams = RequestRates(rate, burst + settings.max_sse_per_address)

    @property
    def refused(self) -> int:
        """How many requests were refused."""
        return self._anonymous.refused + self._with_token.refused + self._streams.refused

    async def check(self, caller: Caller) -> Response | None:
        """Count the request; raises 429, or returns what a stream is told instead, where there are too many."""
        if request.endpoint in PROBES or request.blueprint == DOORS or self._access.is_admin(caller):
            return None
        wait_s = self._rates().take(self._access.address(caller), trio.current_time())
        if not wait_s:
            return None
        await trio.sleep(PAUSE_S)
        if request.blueprint == "market":
            returning = sse.return_of(request.headers, request.args)
            return sse.head() if request.method == "HEAD" else sse.busy(REASON, returning)
        later_s = math.ceil(wait_s)
        detail = f"{REASON}; try again in {later_s} s"
        raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(later_s)})

    def note_known(self, caller: Caller) -> None:
        """Who asked has proved to be somebody, if so."""
        if g.get("is_known"):
            self._with_token.give_back(self._access.address(caller))

    def _rates(self) -> RequestRates:
        if request.blueprint == "market":
            return self._streams
        return self._with_token if request.blueprint == "publish" else self._anonymous
