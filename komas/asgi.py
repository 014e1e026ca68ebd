"""``app`` for the stock command: ``hypercorn --config hypercorn.toml komas.asgi:app``.

The same ``open_gateway()`` as under ``komas serve``, inside the ASGI lifespan. There settings are read, from
``KOMAS_*`` variables and ``komas.toml``, and Hypercorn's parts replaced; the import of this module does nothing.

Hypercorn shows a crash of its worker process as success, and lets an application crash while it goes on answering.
So ``hypercorn.toml`` runs it in one process (``workers = 0``), this module brings the signal handling which Hypercorn
leaves out there, and a bug in a component becomes the one exception that Hypercorn lets end the server.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import NoReturn, TypeAlias

import trio
from hypercorn.utils import LifespanFailureError

from komas.errors import SettingError
from komas.observability.logs import logs_of, make_folder
from komas.server import open_gateway
from komas.settings import Settings, load
from komas.shutdown import first_signal, leave_at_once
from komas.web.hypercorn.install import install

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

log = logging.getLogger(__name__)

WRONG_SETTING = 2  # the exit status
_STATE = "komas"


async def app(scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
    """Open the gateway for the lifespan; hand every request to it."""
    state = scope.get("state")
    assert isinstance(state, dict)  # Hypercorn's: what lifespan puts there, every request's scope has
    if scope["type"] == "lifespan":
        await _live(state, scope, receive, send)
        return
    gateway = state[_STATE]
    await gateway.app(scope, receive, send)


async def _live(state: dict[str, object], scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
    if not trio.lowlevel.in_trio_run():
        await receive()  # Hypercorn takes a failure before its first word for an application without a lifespan
        await send(
            {"type": "lifespan.startup.failed", "message": 'komas needs worker_class = "trio" in hypercorn.toml'}
        )
        return
    if multiprocessing.parent_process() is not None:
        log.warning("started with workers: Hypercorn reports a crash of a worker as success; workers = 0 does not")
    settings = _load()
    run = install(settings)
    try:
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            state[_STATE] = gateway
            gateway.serving.set()  # in a moment: Hypercorn says nothing when it listens
            nursery.start_soon(gateway.drain_with, run)
            if threading.current_thread() is threading.main_thread():
                await nursery.start(first_signal, run.stop)
            await gateway.app(scope, receive, send)  # type: ignore[arg-type]  # typed by Hypercorn, structurally the same
            nursery.cancel_scope.cancel()
    except Exception as error:
        log.critical("a component failed", exc_info=error)
        raise LifespanFailureError("runtime", repr(error)) from error


def _load() -> Settings:
    """The settings, before anything is open; a wrong one ends the process with a line, not with a traceback."""
    try:
        settings = load({})
        assert settings.data_dir is not None  # load() completes it
        make_folder(logs_of(settings.data_dir))
    except SettingError as error:
        _refuse(str(error))
    if settings.workers > 1:
        _refuse("workers: only `komas serve` has them; start this command once for each, with its --bind")
    return settings


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"komas: {reason}\n")
    leave_at_once(WRONG_SETTING)
