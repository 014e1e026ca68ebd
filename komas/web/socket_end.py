"""How a WebSocket of ours ends: by a row of ``Closing``, and in words where its reason says too little."""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from komas.errors import Closing
from komas.web.hypercorn.transport import AcceptedSocket

CLOSE_S: Final = 2.0  # for a close frame to a client that does not read


class Ended(msgspec.Struct, frozen=True):
    """What a conversation, or a handshake that is refused, is closed with."""

    closing: Closing
    words: str = ""


async def close(socket: AcceptedSocket, ended: Ended) -> None:
    """Send the close frame, also where the server stops meanwhile."""
    with trio.move_on_after(CLOSE_S, shield=True):
        await socket.close(ended.closing.code, ended.words or ended.closing.reason)
