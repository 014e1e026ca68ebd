"""The screen of a terminal, drawn at most ten times a second: the only module that knows rich."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Final, Self, TextIO

import trio
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from komas.cli.watch.frame import Title, frame
from komas.cli.watch.keyboard import Keyboard
from komas.cli.watch.link_state import LinkState
from komas.cli.watch.records import Record
from komas.cli.watch.safe_text import shown
from komas.cli.watch.surface import Surface
from komas.cli.watch.table import Line, Size
from komas.cli.watch.views import View
from komas.model.clock import wall_ms

REDRAW_S: Final = 0.1  # an eye follows no more
TICK_S: Final = 1.0  # ages and waits go on while nothing comes
SHARE: Final = 8  # a screen that is slow to draw takes an eighth of the time at most

STYLES: Final = {
    "": Style(),
    "up": Style(color="green"),
    "down": Style(color="red"),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "head": Style(bold=True),
}
ASCII: Final = str.maketrans("▲▼▁▂▃▄▅▆▇█▏▎▍▌▋▊▉…", "^v__.--==#    ###~")


class Lines:
    """Lines of styled text, for rich; whatever they hold, no code of it reaches the terminal."""

    def __init__(self, lines: list[Line], *, is_ascii: bool = False) -> None:
        self._lines = lines
        self._is_ascii = is_ascii

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines as segments."""
        for line in self._lines:
            for span in line:
                text = shown(span.text)
                if self._is_ascii:
                    text = text.translate(ASCII).encode("ascii", "replace").decode()
                yield Segment(text, STYLES[span.style])
            yield Segment.line()


class Screen:
    """Shows a view until cancelled; whatever ends it, the cursor and what was on the terminal come back."""

    def __init__(self, title: Title, view: View, surface: Surface, out: TextIO | None = None) -> None:
        self._title = title
        self._view = view
        self._link = LinkState()
        self._is_ascii = surface.is_ascii
        self._out = out or sys.stdout
        self._keyboard = Keyboard()
        self._is_new = trio.Event()
        self._console = Console(
            file=self._out,
            force_terminal=True,
            color_system="standard" if surface.has_color else None,
            no_color=not surface.has_color,
            legacy_windows=False,
            highlight=False,
            markup=False,
        )
        self._live = Live(
            console=self._console, auto_refresh=False, screen=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end()

    def _begin(self) -> None:
        self._keyboard.silence()
        self._live.start()

    def _end(self) -> None:
        self._live.stop()
        self._keyboard.restore()

    def put(self, record: Record) -> None:
        """Learn from a record; it is drawn with all that come in the same tenth of a second."""
        if record.is_notice:
            self._link.take(record, wall_ms())
        self._view.take(record)
        self._is_new.set()

    async def run(self) -> None:
        """Draw what is new, until a key asks to end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_size)
            nursery.start_soon(self._suspend)
            nursery.start_soon(self._keyboard.wait_for_end, nursery.cancel_scope.cancel)
            while True:
                with trio.move_on_after(TICK_S):
                    await self._is_new.wait()
                self._is_new = trio.Event()
                begun = time.perf_counter()
                self.draw()
                await trio.sleep(max(REDRAW_S, SHARE * (time.perf_counter() - begun)))

    def draw(self) -> None:
        """Draw everything, at the size that the terminal has now."""
        size = self._size()
        self._console.size = size
        lines = frame(self._title, self._view, self._link, size, wall_ms())
        self._live.update(Lines(lines, is_ascii=self._is_ascii), refresh=True)

    def _size(self) -> Size:
        try:
            size = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            return Size(80, 24)
        return Size(size.columns or 80, size.lines or 24)

    async def _follow_size(self) -> None:
        if not hasattr(signal, "SIGWINCH"):
            return  # Windows: at the next tick
        with trio.open_signal_receiver(signal.SIGWINCH) as signals:
            async for _ in signals:
                self._is_new.set()

    async def _suspend(self) -> None:
        """Ctrl-Z gives the terminal back, ``fg`` takes it again."""
        if not hasattr(signal, "SIGTSTP"):
            return
        with trio.open_signal_receiver(signal.SIGTSTP) as signals:
            async for _ in signals:
                self._end()
                os.kill(os.getpid(), signal.SIGSTOP)
                self._begin()
                self.draw()
