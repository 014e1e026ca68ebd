"""How a process is asked to stop, on every platform."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import trio

INTERRUPTED: Final = 130  # what shells report for a program that Ctrl-C ended


ECHO_S: Final = 0.1  # a wrapper that passes Ctrl-C on doubles it: what comes sooner than that is the same one


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a server to stop, on this platform; ``nohup`` has it go on when its terminal is closed."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
    known = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    return [number for number in known if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


def leave_at_once(status: int = INTERRUPTED) -> NoReturn:
    """End the process without another word: at the second Ctrl-C, or a wrong setting under Hypercorn."""
    sys.stderr.flush()
    os._exit(status)


async def first_signal(
    stop: Callable[[str], None],
    again: Callable[[], object] = leave_at_once,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call ``stop`` with the name of the first signal that asks to stop; the second ends the process at once."""
    with trio.open_signal_receiver(*stop_signals()) as signals:
        task_status.started()
        stopped_at: float | None = None
        async for number in signals:
            if stopped_at is None:
                stopped_at = trio.current_time()
                stop(signal.Signals(number).name)
            elif trio.current_time() - stopped_at > ECHO_S:
                again()
