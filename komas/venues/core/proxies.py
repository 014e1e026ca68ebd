"""Proxies that the environment names: komas uses none on its way to an exchange, and says so once.

The WebSocket library cannot speak through a proxy. REST that could would take another road than the socket: it would
be counted at another address, and might not arrive where the socket does.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Final

log = logging.getLogger(__name__)

_NAMES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy"})

# For programs that obey the environment elsewhere (``httpx.AsyncClient(mounts=...)``): what is on this machine is asked
# directly, whatever NO_PROXY leaves out.
LOOPBACK_DIRECT: Final = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def note_ignored_proxies(host: str) -> None:
    """Warn, once for each set of variables, that they do not lead the way to a host beyond this machine."""
    names = tuple(sorted(name for name, value in os.environ.items() if value and name.lower() in _NAMES))
    if names and not is_loopback(host):
        _warn(names)


@cache
def _warn(names: tuple[str, ...]) -> None:
    log.warning("no proxy is used: komas connects to the exchange directly, whatever %s says", ", ".join(names))
