"""Asks a server how it is, each second, for ever."""

from __future__ import annotations

from typing import Final, TypeVar

import httpx
import msgspec
import trio

from komas.cli.watch.figures import milliseconds
from komas.cli.watch.server import Link, Put, failure_words, open_client
from komas.cli.watch.status_view import Answers, Readiness, Status, StatusView, Streams
from komas.errors import CallerError
from komas.model.clock import wall_ms

PERIOD_S: Final = 1.0
_MS: Final = 1000

T = TypeVar("T")


async def read_status(server: str, view: StatusView, put: Put) -> None:
    """Teach the view and put a record each second, until cancelled; comes back by itself when the server was away.

    Raises ``CallerError`` for what has never been a komas server.
    """
    link, is_known, is_there = Link(server, put), False, False
    before: Answers | None = None
    async with open_client(server) as client:
        while True:
            try:
                answers = await _ask(client, before)
            except (httpx.HTTPError, msgspec.MsgspecError, UnicodeError) as error:
                if not is_known and isinstance(error, (msgspec.MsgspecError, UnicodeError)):
                    raise CallerError(f"{link.address} is not a komas server: it does not tell its status") from None
                is_there, before = False, None
                await link.lost(failure_words(error))
                continue
            if not is_there:
                link.connected()
            is_known, is_there, before = True, True, answers
            link.retries.succeeded()
            view.learn(answers)
            put(answers.record(wall_ms()))
            await trio.sleep(PERIOD_S)


async def _ask(client: httpx.AsyncClient, before: Answers | None) -> Answers:
    status = await _get(client, "/api/ws/status", Status)
    readiness = await _get(client, "/readyz", Readiness, httpx.codes.SERVICE_UNAVAILABLE)
    streams = await _get(client, "/api/ws/streams", Streams)
    moment_ms = milliseconds(status.timestamp) or float(wall_ms())
    return Answers(status, readiness, streams.streams, moment_ms, _rate(before, status, moment_ms))


async def _get(client: httpx.AsyncClient, path: str, kind: type[T], *allowed: int) -> T:
    response = await client.get(path)
    if response.status_code not in allowed:
        response.raise_for_status()
    return msgspec.json.decode(response.content, type=kind)


def _rate(before: Answers | None, status: Status, moment_ms: float) -> float | None:
    """Messages each second; ``None`` where the counts began anew meanwhile."""
    if before is None or moment_ms <= before.now_ms:
        return None
    more = status.messages_received - before.status.messages_received
    return more * _MS / (moment_ms - before.now_ms) if more >= 0 else None
