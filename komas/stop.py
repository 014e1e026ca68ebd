"""How a process is asked to stop, on every platform."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

INTERRUPTED: Final = 130  # what shells report for a program that Ctrl-C ended


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a server to stop, on this platform."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


def leave_at_once() -> None:
    """End the process without another word: the second Ctrl-C."""
    sys.stderr.flush()
    os._exit(INTERRUPTED)
