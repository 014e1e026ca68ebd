"""An echo over komas's own stack, for Autobahn: Quart-Trio, and Hypercorn with our parts. Prints its port.

What komas keeps small on purpose is large here, so that the protocol is tested and not the limits: the length of a
message, and frames in a second. Binary messages are none of komas's: 1003, as in ``/ws/signals``.
"""

from __future__ import annotations

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

from komas.errors import Closing
from komas.server import hypercorn_config
from komas.settings import Settings
from komas.web.hypercorn import websocket_stream
from komas.web.hypercorn.install import install
from komas.web.hypercorn.quart_connections import RequestConnection, WebSocketConnection
from komas.web.hypercorn.transport import transport_of

LARGEST = 2**25  # the suite's are of 16 MiB
FRAMES = 1e6


def create_app() -> QuartTrio:
    """The application."""
    app = QuartTrio(__name__)
    app.asgi_http_class = RequestConnection
    app.asgi_websocket_class = WebSocketConnection

    @app.websocket("/")
    async def echo() -> None:
        await websocket.accept()
        connection = transport_of(websocket.scope).websocket
        assert connection is not None
        while isinstance(message := await connection.receive(), str):
            await connection.send(message)
        await websocket.close(Closing.BINARY.code, Closing.BINARY.reason)

    return app


async def main() -> None:
    """Serve on a free port until the process is ended."""
    vars(websocket_stream).update(MESSAGE_BYTES=LARGEST, FRAMES_A_SECOND=FRAMES, FRAMES_AT_ONCE=FRAMES)
    install()
    config: Config = hypercorn_config(Settings(bind=("127.0.0.1:0",)))
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(serve, create_app(), config)
        print(f"echo on {binds[0]}", flush=True)


trio.run(main)
