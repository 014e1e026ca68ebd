"""Reading from a connection."""

from __future__ import annotations

import os
from typing import Final

import trio

from komas.web.hypercorn.peers import Stream

READ_BYTES: Final = 2**16
CLIENT_LEFT: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


async def read_some(stream: Stream, *, is_plain: bool) -> bytes:
    """Some bytes; none at the end, whatever brought it about. ``is_plain``: it is a socket that can be asked itself."""
    try:
        if not is_plain:
            return bytes(await stream.receive_some(READ_BYTES))
        assert isinstance(stream, trio.SocketStream)
        # As the stream would, in fewer steps, all of which are kept while nothing comes.
        while (number := stream.socket.fileno()) >= 0:
            await trio.lowlevel.wait_readable(number)
            if (data := read_now(stream.socket.fileno())) is not None:
                return data
    except (*CLIENT_LEFT, OSError):
        pass
    return b""


def read_now(number: int, most: int = READ_BYTES) -> bytes | None:
    """What a socket has; empty at the end, ``None`` where there is nothing after all."""
    try:
        return os.read(number, most)
    except (BlockingIOError, InterruptedError):
        return None
