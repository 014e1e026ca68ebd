"""Unix sockets that take nothing from others, and whose file is gone with their server.

Hypercorn removes whatever socket is at the path, also that of a server that is running, which then goes on without
anybody reaching it; gives the file a mode by the umask alone; and leaves it behind. Here ``socket_file.py`` decides,
and Hypercorn is handed the open socket (``fd://``). ``umask``, ``user`` and ``group`` of its file count as they did.
The stock command opens its sockets before komas is loaded: there all of this is Hypercorn's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from komas.web.socket_file import UNIX, listen

if TYPE_CHECKING:
    from hypercorn.config import Config

    from komas.web.hypercorn.shutdown import Run


@contextmanager
def unix_sockets(config: Config, run: Run, mode: int) -> Iterator[None]:
    """Listen on the Unix sockets of ``config.bind``; their files are removed once nobody accepts, or with the block.

    Raises ``OSError`` and ``SettingError``, as ``listen()`` does.
    """
    try:
        config.bind = [_listen(config, run, bind, mode) if bind.startswith(UNIX) else bind for bind in config.bind]
        yield
    finally:
        run.remove_socket_files()


def _listen(config: Config, run: Run, bind: str, mode: int) -> str:
    path = Path(bind.removeprefix(UNIX))
    file = listen(path, mode & ~(config.umask or 0), config.backlog)
    run.socket_files.append(file)
    if config.user is not None and config.group is not None:
        os.chown(path, config.user, config.group)
    return f"fd://{file.listener.detach()}"
