"""One upstream socket's life: dial, converse, back off, for ever. Knows no venue."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from komas.errors import VenueError
from komas.venues.backoff import Backoff

log = logging.getLogger("komas.link")


class Attempt(Protocol):
    """One dial and the conversation after it."""

    async def __call__(self, healthy: Callable[[], None]) -> None:
        """Talk until it is over, which is a ``VenueError``; call ``healthy`` at the first event."""


async def keep_connected(
    attempt: Attempt,
    *,
    backoff: Backoff,
    lost: Callable[[VenueError, float], None],
) -> None:
    """Attempt again and again; returns never, raises the last ``VenueError`` when the allowed attempts are used up.

    ``lost`` is told each failure and the wait after it, in seconds.
    """
    while True:
        await trio.sleep_until(backoff.dial_at(trio.current_time()))
        backoff.dialled(trio.current_time())
        try:
            await attempt(backoff.succeeded)
        except VenueError as error:
            wait_s = backoff.failed(error, trio.current_time())
            log.warning(
                "link lost", extra={"reason": str(error), "failures": backoff.failures, "retry_in_s": round(wait_s, 3)}
            )
            lost(error, wait_s)
            if backoff.exhausted:
                raise
            await trio.sleep(wait_s)


async def together(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run tasks side by side until one raises ``VenueError``, which ends the others and is raised by itself."""
    failures: list[VenueError] = []

    async def run(task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except VenueError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    if failures:
        raise failures[0]
