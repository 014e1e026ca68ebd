"""Reading from a connection, whichever side of it we are."""

from __future__ import annotations

import os
import sys
from typing import Final

import trio

READ_BYTES: Final = 2**16
CLIENT_LEFT: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


def is_plain_socket(stream: trio.abc.Stream) -> bool:
    """Whether what a stream reads is what its socket has, and the system can be asked for it."""
    return isinstance(stream, trio.SocketStream) and sys.platform != "win32"


async def read_some(stream: trio.abc.Stream, *, is_plain: bool, most: int | None = READ_BYTES) -> bytes:
    """Some bytes; none at the end, whatever brought it about. ``is_plain``: see ``is_plain_socket()``."""
    try:
        if not is_plain:
            return bytes(await stream.receive_some(most))
        assert isinstance(stream, trio.SocketStream)
        # As the stream would, in fewer steps, all of which are kept while nothing comes.
        while (number := stream.socket.fileno()) >= 0:
            await trio.lowlevel.wait_readable(number)
            if (data := read_now(stream.socket.fileno(), most or READ_BYTES)) is not None:
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
