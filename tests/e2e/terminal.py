"""A pseudo-terminal with a program in it."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Self

if sys.platform != "win32":
    import fcntl
    import pty
    import termios


class Terminal:
    """A pseudo-terminal with a program in it; ``seen`` is what was written to it."""

    def __init__(self, command: Sequence[str], width: int, height: int, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self.resize(width, height)
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=kept | {"TERM": "xterm-256color"} | environment,
            preexec_fn=_with_terminal,  # noqa: PLW1509 - only a child can take a terminal as its own
        )
        self.seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._stopped = threading.Event()
        self._reader.start()

    def _read(self) -> None:
        while not self._stopped.is_set():
            if select.select([self._master], [], [], 0.1)[0]:
                self.seen += os.read(self._master, 1 << 16)

    @property
    def text(self) -> str:
        """What was written."""
        return self.seen.decode("utf-8", "replace")

    @property
    def newest(self) -> str:
        """The newest screen, with the codes of its colours."""
        return self.text.rpartition("\x1b[H")[2]

    @property
    def frame(self) -> list[str]:
        """The newest screen, without its codes."""
        return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in self.newest.split("\r\n")]

    @property
    def is_given_back(self) -> bool:
        """Whether there are the cursor and the screen that were there before."""
        text = self.text
        return all(
            text.rfind(f"\x1b[?{on}") > text.rfind(f"\x1b[?{off}") for on, off in (("25h", "25l"), ("1049l", "1049h"))
        )

    def resize(self, width: int, height: int) -> None:
        """Make it larger or smaller; who has it is told."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.wait()
        self._stopped.set()
        self._reader.join()
        os.close(self._master)
        os.close(self._slave)


def _with_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
