"""Puts our parts in Hypercorn's place, and fails loudly where Hypercorn no longer has the part."""

from __future__ import annotations

from typing import Final

import hypercorn.protocol as hypercorn_protocol
import hypercorn.protocol.h11 as hypercorn_h11
import hypercorn.trio.run as hypercorn_run
from hypercorn.config import Config

from komas.settings import Settings
from komas.web.hypercorn.accepting import Trio
from komas.web.hypercorn.access_log import AccessLog
from komas.web.hypercorn.http1 import Http1Protocol
from komas.web.hypercorn.http_stream import RequestStream
from komas.web.hypercorn.shutdown import Run, begin, raise_shutdown
from komas.web.hypercorn.tcp_connection import TCPConnection
from komas.web.hypercorn.websocket_stream import WebSocketStream

PARTS: Final = (
    (hypercorn_run, "trio", Trio()),
    (hypercorn_run, "TCPServer", TCPConnection),
    (hypercorn_run, "raise_shutdown", raise_shutdown),
    (hypercorn_protocol, "H11Protocol", Http1Protocol),
    (hypercorn_h11, "HTTPStream", RequestStream),
    (hypercorn_h11, "WSStream", WebSocketStream),
    (Config, "logger_class", AccessLog),
)


def install(settings: Settings | None = None) -> Run:
    """Put our parts in place, for a server that is about to listen in this ``trio.run()``; with settings, or defaults.

    Called within the run: by ``komas serve`` before it serves, by ``komas.asgi`` when its lifespan begins. Raises
    ``ImportError`` when Hypercorn no longer has a part that is replaced.
    """
    for owner, name, ours in PARTS:
        if not hasattr(owner, name):
            raise ImportError(f"hypercorn has changed: {owner} has no {name}; komas needs the release it pins")
        setattr(owner, name, ours)
    return begin(settings or Settings())
