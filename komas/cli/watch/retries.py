"""How long a watcher waits before it tries its server again. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 15.0
ASKED_MAX_S: Final = 60.0  # of what a server may ask for


class Retries:
    """Waits that double, with half of each left to chance; ``random`` returns a float in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._asked_s = 0.0

    def asked(self, wait_s: float) -> None:
        """The server has said how long to wait."""
        self._asked_s = min(max(0.0, wait_s), ASKED_MAX_S)

    def succeeded(self) -> None:
        """Something came: the next failure is a first one."""
        self._failures = 0

    def failed(self) -> float:
        """Count a failure; returns the wait in seconds, which is no shorter than what the server asked for."""
        longest: float = min(LONGEST_S, FIRST_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return max(self._asked_s, longest * (1 + self._random()) / 2)
