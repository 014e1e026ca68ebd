"""What ties a worker to its supervisor: a pipe that closes when the supervisor is gone, however it went.

The kernel's own signal for that (``PR_SET_PDEATHSIG``) is Linux's alone, and comes when the *thread* ends that started
the process. A worker waits for the end of the pipe in a thread: its event loop may be what hangs.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "KOMAS_SUPERVISOR_FD"  # the pipe's number, for a worker


def hold(stop_s: float, environment: Mapping[str, str] | None = None) -> bool:
    """Stop this process when its supervisor is gone, as SIGTERM does; ``False`` where there is none.

    One that has not ended after ``stop_s`` ends then.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    if not text.isdecimal() or not _is_pipe(descriptor := int(text)):
        return False
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # meant for the supervisor, and sent to all of the name
    threading.Thread(target=_wait, args=(descriptor, stop_s), name="lifeline", daemon=True).start()
    return True


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _wait(descriptor: int, stop_s: float) -> None:
    while os.read(descriptor, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stop_s)
    os._exit(1)
