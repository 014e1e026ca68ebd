"""How far long work is: one line on a terminal that is written anew, on stderr, and never into a pipe or a file."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Final, Protocol, Self, TextIO, TypeVar

FIRST_S: Final = 0.5  # what is over sooner needs no line
REDRAW_S: Final = 0.1
BAR: Final = 20
_ERASE: Final = "\r\x1b[K"
_SETTLED: Final = 0.01  # of the work: before, nobody knows how long the rest takes
_DUMB: Final = frozenset({"dumb", "unknown"})
_MINUTE_S: Final = 60

T_co = TypeVar("T_co", covariant=True)


class Work(Iterable[T_co], Sized, Protocol[T_co]):
    """Things to do one after another, whose count is known."""


def progress_line(what: str, done: float, total: float, elapsed_s: float, width: int) -> str:
    """``copying   42 % ########------------  1 min 3 s left``, no wider than the terminal."""
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    bar = "#" * int(BAR * share) + "-" * (BAR - int(BAR * share))
    left = f"  {_time(elapsed_s * (1 - share) / share)} left" if share >= _SETTLED else ""
    return f"{what} {share:4.0%} {bar}{left}"[: max(0, width - 1)]


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < _MINUTE_S else f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"


class Progress:
    """The line while a block lasts; call it with what is done now, how much of it, and of how much.

    It costs next to nothing where there is no terminal, and between two drawings.
    """

    def __init__(
        self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic, *, first_s: float = FIRST_S
    ) -> None:
        self._out = out or sys.stderr
        self._clock = clock
        self._is_shown = self._out.isatty() and os.environ.get("TERM", "") not in _DUMB
        self._done = 0.0
        self._begun_s = clock()
        self._not_before_s = self._begun_s + first_s
        self._has_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.clear()

    def __call__(self, what: str, done: float, total: float) -> None:
        """Show it, if the last time is long enough ago."""
        if not self._is_shown:
            return
        now_s = self._clock()
        if done < self._done:
            self._begun_s = now_s  # other work
        self._done = done
        if now_s < self._not_before_s:
            return
        self._not_before_s = now_s + REDRAW_S
        width = shutil.get_terminal_size().columns
        self._out.write(_ERASE + progress_line(what, done, total, now_s - self._begun_s, width))
        self._out.flush()
        self._has_line = True

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self._has_line:
            self._out.write(_ERASE)
            self._out.flush()
            self._has_line = False


def counted(things: Work[T_co], what: str) -> Iterator[T_co]:
    """The things, with a line that says how many of them are done."""
    with Progress(first_s=0) as progress:
        for number, thing in enumerate(things):
            progress(f"{what} {number + 1} of {len(things)}", number, len(things))
            yield thing
