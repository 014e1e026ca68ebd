"""Who is at the other end of a connection, under TLS or not."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeAlias

import trio

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """A connection's socket, under TLS or not."""
    return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket


def peer_of(stream: Stream) -> str:
    """The client's address; empty where it has none, or has left already."""
    with suppress(OSError):
        peer = socket_of(stream).getpeername()
        return str(peer[0]) if isinstance(peer, tuple) else ""
    return ""
