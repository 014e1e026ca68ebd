"""What is answered over HTTP: the exchange's REST interface with its limits, and the test's own under ``/sim/``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

import msgspec
import trio

from komas.errors import CallerError
from komas.simulator.control_access import why_refused
from komas.simulator.fault_injector import FaultInjector
from komas.simulator.fault_script import RestFailure, parse_faults
from komas.simulator.http_connection import Answer, Request
from komas.simulator.market import Market
from komas.simulator.options import SimOptions, bound
from komas.simulator.rate_limits import Ledger, Verdict
from komas.simulator.request_params import Call
from komas.simulator.rest import FUTURES_PREFIX, PREFIX, answered, failure, refusal, weight

MILLISECONDS = re.compile(rb"(?<=[:\[,])1\d{12}(?=[,}\]])")
MS = 1_000
FUTURES_WEIGHT = 2_400  # a minute, of an address; spot's is counted by itself


class State(msgspec.Struct):
    """``GET /sim/state``; ``dials`` are the seconds since the start at which WebSocket handshakes were asked for."""

    replay_finished: bool = False
    frames_sent: int = 0
    connections: int = 0
    dials: list[float] = []
    messages_received: int = 0
    refused_for_rate: int = 0
    subscriptions: int = 0
    market_time_ms: int = 0


class Exchange(Protocol):
    """What the desk must know of the exchange."""

    market: Market

    @property
    def now_ms(self) -> int:
        """The exchange's clock."""

    def snapshot(self) -> State:
        """The counts of this moment."""


class HttpApi:
    """Answers HTTP requests."""

    def __init__(
        self, exchange: Exchange, saboteur: FaultInjector, options: SimOptions, wall: Callable[[], float] = time.time
    ) -> None:
        self.exchange = exchange
        self.saboteur = saboteur
        self.options = options
        self.wall = wall
        limit = options.limits.weight
        self.ledgers = {PREFIX: Ledger(limit), FUTURES_PREFIX: Ledger(min(limit, FUTURES_WEIGHT))}

    async def answer(self, request: Request, address: str) -> Answer:
        """The answer to one request; a fault may make it late."""
        if request.path.startswith("/sim/") and self.options.control:
            return self._control(request)
        prefix = next((prefix for prefix in self.ledgers if request.path.startswith(prefix)), None)
        if prefix is None:
            return failure(HTTPStatus.NOT_FOUND, 0, f"{request.path} is not here")
        endpoint = request.path.removeprefix(prefix)
        fault = self.saboteur.troubles.called(endpoint)
        if fault is not None:
            await trio.sleep(fault.delay)
        cost = weight(request.path, request.parameters)
        verdict = self.ledgers[prefix].charge(address, cost, self.wall())
        answer = self._rest(request, verdict, fault)
        return answer._replace(headers=(*answer.headers, *self._heads(request, str(verdict.used))))

    def _heads(self, request: Request, used: str) -> Iterator[tuple[str, str]]:
        """The exchange's clock and what was used; spot says the latter twice (UNICORN reads the older name alone)."""
        yield "date", formatdate(self.exchange.now_ms / MS, usegmt=True)
        if request.path.startswith(PREFIX):
            yield "x-mbx-used-weight", used
        yield "x-mbx-used-weight-1m", used

    def _rest(self, request: Request, verdict: Verdict, fault: RestFailure | None) -> Answer:
        if fault is not None and fault.status is not None:
            return failure(fault.status, *refusal(fault.status, fault.message), fault.retry_after)
        if verdict.status != HTTPStatus.OK:
            return failure(verdict.status, *refusal(verdict.status, ""), verdict.retry_after_s)
        if request.method not in {"GET", "HEAD"}:
            return failure(HTTPStatus.METHOD_NOT_ALLOWED, 0, f"Request method '{request.method}' is not supported")
        call = Call(self.exchange.market, request.parameters, self.exchange.now_ms, self.options.limits.database_lag_ms)
        answer = answered(request.path, call)
        if request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND":
            answer = answer._replace(body=MILLISECONDS.sub(rb"\g<0>000", answer.body))
        return answer

    def _control(self, request: Request) -> Answer:
        if (reason := why_refused(request.headers, bound(self.options.bind)[0])) is not None:
            return failure(HTTPStatus.FORBIDDEN, 0, reason)
        match request.method, request.path:
            case "GET", "/sim/state":
                return Answer(HTTPStatus.OK, msgspec.json.encode(self.exchange.snapshot()))
            case "POST", "/sim/faults":
                return self._plan(request.body)
            case "DELETE", "/sim/faults":
                self.saboteur.forget()
                return Answer(HTTPStatus.OK, b"{}")
        return failure(HTTPStatus.NOT_FOUND, 0, "accepted are GET /sim/state, POST /sim/faults and DELETE /sim/faults")

    def _plan(self, body: bytes) -> Answer:
        try:
            faults = parse_faults(body)
            self.saboteur.plan(faults)
        except CallerError as mistake:
            return failure(HTTPStatus.BAD_REQUEST, 0, str(mistake))
        return Answer(HTTPStatus.OK, b'{"accepted":%d}' % len(faults))
