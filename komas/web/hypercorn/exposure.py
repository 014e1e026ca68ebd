"""Whether Hypercorn listens where other machines can reach it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from komas.web.access import is_beyond_loopback, is_loopback

if TYPE_CHECKING:
    from hypercorn.config import Config


def is_exposed(config: Config) -> bool:
    """Whether anything is bound beyond loopback."""
    return any(_is_beyond_loopback(bind) for bind in (*config.bind, *config.insecure_bind, *config.quic_bind))


def _is_beyond_loopback(bind: str) -> bool:
    if bind.startswith("unix:"):
        return False
    if bind.startswith("fd://"):  # inherited from the parent process, systemd as a rule
        with socket.socket(fileno=os.dup(int(bind.removeprefix("fd://")))) as listener:
            name = listener.getsockname()
        return listener.family != socket.AF_UNIX and not is_loopback(name[0])
    return is_beyond_loopback(bind)
