"""What to say where an address to listen on is taken: another one that is free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from komas.web.socket_file import UNIX, is_alive

NEXT: Final = 20  # ports that are looked at behind the one that is taken
LAST: Final = 65_535


def is_taken(error: BaseException | None) -> bool:
    """Whether an address was taken by another program."""
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def say_taken(binds: Sequence[str]) -> str:
    """One line for addresses of which at least one is taken."""
    taken = [bind for bind in binds if not _is_free(bind)] or list(binds)
    others = [_free_beside(bind) if bind in taken else bind for bind in binds]
    named = f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} taken by another program"
    return (
        f"{named}; give another --bind" if None in others else f"{named}; try --bind {','.join(filter(None, others))}"
    )


def _free_beside(bind: str) -> str | None:
    if bind.startswith(UNIX):
        return None
    host, _, port = bind.rpartition(":")
    candidates = (f"{host}:{number}" for number in range(int(port) + 1, min(int(port) + NEXT, LAST) + 1))
    return next(filter(_is_free, candidates), None)


def _is_free(bind: str) -> bool:
    if bind.startswith(UNIX):
        return not is_alive(Path(bind.removeprefix(UNIX)))
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return False
    return True
