"""One line for each record, for pipes and files: tab-separated with a heading, or JSON."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Final, TextIO

import trio

from komas.cli.watch.link_state import LOST, told
from komas.cli.watch.records import CONNECTION, Record
from komas.cli.watch.views import View

RESET: Final = "\x1b[0m"
CODES: Final = {1: "\x1b[32m", -1: "\x1b[31m", 0: ""}
HANGUP_LOOK_S: Final = 1.0
_GONE: Final = 0x08 | 0x10 | 0x20  # POLLERR, POLLHUP, POLLNVAL, which not every platform's select names


class Rows:
    """Tab-separated rows under a heading, on ``out``; notices go to ``err``.

    ``greets`` is for what may be silent for long: that there is a connection is told, too, not only that there is none.
    """

    def __init__(self, view: View, out: TextIO, err: TextIO, *, has_color: bool = False, greets: bool = True) -> None:
        self._view = view
        self._out = out
        self._err = err
        self._has_color = has_color
        self._greets = greets
        self._has_heading = False

    def put(self, record: Record) -> None:
        """Print one record."""
        if record.is_notice:
            self._greets |= record.fields.get("state") == LOST  # then it is told that it is over
            if self._greets or record.type != CONNECTION:
                print(told(record), file=self._err, flush=True)
            return
        self._view.take(record)
        row = self._view.row(record)
        if row is None:
            return
        if not self._has_heading:
            self._has_heading = True
            self._out.write("\t".join(self._view.header) + "\n")
        line = "\t".join(row)
        if self._has_color and (code := CODES[self._view.direction(record)]):
            line = f"{code}{line}{RESET}"
        self._out.write(f"{line}\n")
        self._out.flush()


class JsonLines:
    """Every record as a line of JSON, notices too: whoever reads them sees where something is missing."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def put(self, record: Record) -> None:
        """Print one record."""
        self._out.write(record.line + "\n")
        self._out.flush()


async def end_with_reader(cancel: Callable[[], None], output: int | None = None) -> None:
    """Call ``cancel`` once nobody can read our output any more: a quiet stream would never find out by writing."""
    if not hasattr(select, "poll"):
        return  # Windows
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno() if output is None else output, 0)  # errors are told unasked
    except (OSError, ValueError):
        return  # no file of the system
    while not any(happened & (_GONE) for _, happened in poll.poll(0)):  # noqa: ASYNC110
        await trio.sleep(HANGUP_LOOK_S)
    cancel()
