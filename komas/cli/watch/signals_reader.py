"""Reads signals over their WebSocket, as a VIP does, for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httpx
import msgspec
import trio

from komas.cli.watch.records import signal_record
from komas.cli.watch.safe_text import shown
from komas.cli.watch.server import HIDDEN, Link, Put, check_address
from komas.errors import CallerError, Closing, VenueError
from komas.model.clock import wall_ms
from komas.venues.core.websocket import dial

_SCHEMES: Final = {"http": "ws", "https": "wss"}
GREETING: Final = "connected"
PING: Final = "ping"
PONG: Final = '{"type":"pong"}'
POLICY_VIOLATION: Final = 1008  # the token, or what it is good for: trying again does not mend it
HINTS: Final = {
    Closing.UNAUTHORIZED.reason: "the token proves nothing there, or is over; `komas token inspect` says more",
    Closing.VIP_REQUIRED.reason: "VIP ended, or was never granted: komas vip grant USER_ID --days 30",
}


class SignalRequest(msgspec.Struct, frozen=True):
    """Who asks, where to begin, and of which types and coins signals are wanted: lists with commas, empty for all.

    ``why_unauthorized`` adds what this machine knows of the token, which the server must not tell.
    """

    token: str
    since_id: str = ""
    types: str = ""
    coins: str = ""
    why_unauthorized: Callable[[str], str] = lambda _token: ""


async def read_signals(server: str, request: SignalRequest, put: Put) -> None:
    """Put each signal and update, until cancelled; comes back by itself, without a loss, when the server was away.

    Raises ``CallerError`` with the server's reason when it closes for good.
    """
    check_address(server)
    if not request.token:
        raise CallerError("signals are for VIPs: give --token, or set KOMAS_TOKEN")
    link = Link(server, put, request.token)
    resume = {"since_id": request.since_id} if request.since_id else {}
    wanted = {name: names for name, names in (("signal_type", request.types), ("coin_name", request.coins)) if names}

    def take(message: bytes) -> str:
        record = signal_record(message.replace(request.token.encode(), HIDDEN.encode()), wall_ms())
        link.retries.succeeded()
        if record.position is not None:
            resume.clear()
            resume["since"] = str(record.position)
        if record.type == GREETING:
            link.connected()
        elif record.type not in (PING, "pong"):
            put(record)
        return record.type

    while True:
        try:
            await _converse(server, {"token": request.token, "positions": "1", **wanted, **resume}, take)
        except VenueError as error:
            reason = link.without_secret(shown(str(error))).replace("the exchange", "the server")
            if error.code == POLICY_VIOLATION:
                raise _for_good(reason.rpartition(": ")[2], request) from None
            await link.lost(reason)
        except CallerError as error:  # of an address: it names the whole of it
            raise CallerError(link.without_secret(str(error))) from None


def _for_good(reason: str, request: SignalRequest) -> CallerError:
    known = request.why_unauthorized(request.token) if reason == Closing.UNAUTHORIZED.reason else ""
    return CallerError(f"the server says: {reason}; {known or HINTS.get(reason, 'it would say so again')}")


async def _converse(server: str, query: dict[str, str], take: Callable[[bytes], str]) -> None:
    """Read until the conversation ends, which it does with a ``VenueError``."""
    base = httpx.URL(server)
    path = f"{base.path.rstrip('/')}/ws/signals"
    url = str(base.copy_with(scheme=_SCHEMES[base.scheme], username=None, password=None, path=path, params=query))
    failure: VenueError | None = None
    async with trio.open_nursery() as nursery:  # what leaves a nursery is a group: the failure is carried out by hand
        try:
            socket = await dial(nursery, url, sent=_nothing)
            try:
                while True:
                    for message in await socket.receive():
                        if take(message) == PING:
                            await socket.send(PONG)
            finally:
                await socket.close()
        except VenueError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _nothing() -> None:
    """What leaves is not counted."""
