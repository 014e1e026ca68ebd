"""The keys of a terminal whose screen is drawn upon: they are not shown, and do not reach the shell afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

import trio

HAS_TERMIOS: Final = find_spec("termios") is not None  # not on Windows: keys are shown there, and Ctrl-C ends
if HAS_TERMIOS:
    import termios

END: Final = (b"q", b"Q", b"\x04")  # Ctrl-D is no end of file where keys come one by one
_LOCAL: Final = 3  # of the list of attributes: echo, lines


class Keyboard:
    """Standard input, where it is a terminal; Ctrl-C and Ctrl-Z remain signals."""

    def __init__(self) -> None:
        self._number: int | None = None
        with suppress(AttributeError, OSError, ValueError):  # closed, or no file
            number = sys.stdin.fileno()
            self._number = number if HAS_TERMIOS and os.isatty(number) else None
        self._before: list[Any] | None = None  # as termios has it

    def silence(self) -> None:
        """Keys come one by one, unseen."""
        if self._number is None:
            return
        self._before = termios.tcgetattr(self._number)
        silent = [*self._before]
        silent[_LOCAL] &= ~(termios.ECHO | termios.ICANON)
        with suppress(termios.error):
            termios.tcsetattr(self._number, termios.TCSANOW, silent)

    def restore(self) -> None:
        """As it was; what was typed and not read is forgotten."""
        if self._number is not None and self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._number, termios.TCSAFLUSH, self._before)

    async def wait_for_end(self, end: Callable[[], None]) -> None:
        """Call ``end`` at q, or Ctrl-D."""
        while self._number is not None:
            await trio.lowlevel.wait_readable(self._number)
            keys = os.read(self._number, 1024)
            if not keys:
                return
            if any(key in keys for key in END):
                end()
                return
