"""Tells systemd when the server is ready, when it stops, and that it is alive: sd_notify(3), in a few lines.

With ``Type=notify`` a start is over once the server listens, and with ``WatchdogSec=`` a server whose event loop hangs
is started anew. Without systemd, which names its socket in ``NOTIFY_SOCKET``, nothing is done. The supervisor of
``komas serve --workers`` listens to its workers in the same words.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

log = logging.getLogger(__name__)

SERVING: Final = "serving"  # the status of a server that is ready
LEADING: Final = "serving, and leads"  # and is the one that is connected to the exchange for others
LOOK_S: Final = 0.25
BEATS: Final = 3  # in the time after which systemd gives up; sd_watchdog_enabled(3) asks for two or more


async def report(
    ready: trio.Event,
    stopping: trio.Event,
    environment: Mapping[str, str] | None = None,
    *,
    status: Callable[[], str] = lambda: SERVING,
) -> None:
    """Report until cancelled; the environment is the process's own by default.

    ``ready`` ends the start, whether or not what the server listens for is there: that is for ``status`` to say.
    """
    environment = os.environ if environment is None else environment
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    address = address.replace("@", "\0", 1) if address.startswith("@") else address  # in the abstract namespace
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            await notify.connect(address)
            async with trio.open_nursery() as nursery:
                if (interval_s := watchdog_s(environment, os.getpid())) is not None:
                    nursery.start_soon(_beat, notify, interval_s / BEATS)
                await ready.wait()
                async with trio.open_nursery() as serving:
                    serving.start_soon(_say_how_it_is, notify, status)
                    await stopping.wait()
                    serving.cancel_scope.cancel("the server stops")
                await notify.send(b"STOPPING=1\nSTATUS=draining")
        except* OSError as group:
            log.warning("systemd cannot be told: %s", group.exceptions[0])


def watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """The silence in seconds after which systemd takes this process for dead; ``None`` where it does not watch it."""
    text = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(text) / 1e6 if is_ours and text.isascii() and text.isdigit() and int(text) else None


async def _say_how_it_is(notify: trio.socket.SocketType, status: Callable[[], str]) -> None:
    """Say that the server listens, and then what changes."""
    before, prefix = "", "READY=1\n"
    while True:
        if (now := status()) != before:
            await notify.send(f"{prefix}STATUS={now}".encode("utf-8", "replace"))
            before, prefix = now, ""
        await trio.sleep(LOOK_S)


async def _beat(notify: trio.socket.SocketType, every_s: float) -> None:
    while True:
        await notify.send(b"WATCHDOG=1")
        await trio.sleep(every_s)
