"""The screen and the rows: what reaches a terminal, a pipe, a file."""

from __future__ import annotations

import io
import os
import re

import pytest
import trio
import trio.testing

from komas.cli.watch import screen as screen_module
from komas.cli.watch.frame import Title
from komas.cli.watch.retries import ASKED_MAX_S, LONGEST_S, Retries
from komas.cli.watch.rows import JsonLines, Rows, end_with_reader
from komas.cli.watch.screen import Screen
from komas.cli.watch.surface import Surface, surface
from komas.cli.watch.table import Line, Size, Span
from komas.cli.watch.views import PricesView, TradesView
from tests.cli.watch.records import connection, notice, ticker, trade

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({"TERM": "xterm"}, {"is_terminal": True}, (True, True)),
        ({"TERM": "xterm", "NO_COLOR": "1"}, {"is_terminal": True}, (True, False)),
        ({"TERM": "xterm", "NO_COLOR": ""}, {"is_terminal": True}, (True, True)),
        ({"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, {"is_terminal": True}, (True, False)),
        ({"TERM": "xterm", "NO_COLOR": "1"}, {"is_terminal": True, "color": "always"}, (True, True)),
        ({"TERM": "xterm"}, {"is_terminal": True, "color": "never"}, (True, False)),
        ({"TERM": "dumb"}, {"is_terminal": True}, (False, False)),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, {"is_terminal": True}, (False, True)),
        ({"TERM": "xterm"}, {"is_terminal": True, "is_foreground": False}, (False, True)),
        ({"TERM": "xterm"}, {"is_terminal": True, "wants_rows": True}, (False, True)),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, {"is_terminal": False}, (False, False)),
        ({"TERM": "xterm"}, {"is_terminal": False, "color": "always"}, (False, True)),
    ],
)
def test_what_is_drawn_where(
    environment: dict[str, str], given: dict[str, object], expected: tuple[bool, bool]
) -> None:
    """No variable puts codes into a pipe."""
    made = surface(environment, **given)  # type: ignore[arg-type]  # a table's column
    assert (made.is_screen, made.has_color) == expected
    assert [surface({}, is_terminal=True, encoding=name).is_ascii for name in ("utf-8", "UTF8", "ascii", "cp1252")] == [
        False,
        False,
        True,
        True,
    ]


def test_rows_have_one_heading_and_no_codes() -> None:
    """Notices go to the other stream; the first connection is no news."""
    out, err = io.StringIO(), io.StringIO()
    rows = Rows(TradesView(), out, err, greets=False)
    for record in (
        connection("connected"),
        trade(1),
        trade(2),
        connection("lost", reason="\x1b[2J", retry_in_s=1.0),
        connection("connected"),
        notice("lagged", dropped=3),
    ):
        rows.put(record)
    lines = out.getvalue().splitlines()
    assert lines[0].split("\t") == list(TradesView.header)
    assert [len(line.split("\t")) for line in lines] == [len(TradesView.header)] * 3
    assert err.getvalue().splitlines() == [
        "http://komas: lost: \\x1b[2J; trying again in 1.0 s",
        "http://komas: connected",
        "lagged: 3 events were dropped, for this reader was too slow",
    ]
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_rows_are_coloured_where_that_was_asked_for() -> None:
    """Whole rows."""
    out = io.StringIO()
    Rows(TradesView(), out, io.StringIO(), has_color=True).put(trade(1, is_sale=True))
    assert out.getvalue().splitlines()[1].startswith("\x1b[31m2026")
    assert out.getvalue().endswith("\x1b[0m\n")


def test_json_lines_have_notices_too() -> None:
    """Whoever reads them sees where something is missing."""
    out = io.StringIO()
    lines = JsonLines(out)
    lines.put(trade(1))
    lines.put(notice("gap", stream="x"))
    assert [line[:15] for line in out.getvalue().splitlines()] == ['{"type":"trade"', '{"type":"gap","']


@pytest.mark.skipif(not hasattr(os, "fork"), reason="poll is not on Windows")
async def test_a_reader_that_ends_ends_a_quiet_watch(autojump_clock: trio.testing.MockClock) -> None:
    """Without an event that could not be written."""
    reader, writer = os.pipe()
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_reader, ended.set, writer)
        await trio.sleep(60)
        assert not ended.is_set()
        os.close(reader)
        await ended.wait()
    os.close(writer)


def _screen(out: io.StringIO, view: PricesView, *, has_color: bool = True, is_ascii: bool = False) -> Screen:
    return Screen(Title("prices", "http://komas"), view, Surface(True, has_color, is_ascii), out)


def test_a_screen_gives_the_terminal_back() -> None:
    """The cursor, and what was there before."""
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), _screen(out, PricesView()) as screen:
        screen.put(ticker())
        screen.draw()
        raise ZeroDivisionError
    assert out.getvalue().rindex("\x1b[?1049l") > out.getvalue().rindex("\x1b[?1049h")
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_a_screen_without_colours_has_none_and_one_without_unicode_neither() -> None:
    """Directions are seen by arrows then."""
    for has_color, is_ascii in ((True, False), (False, False), (False, True)):
        out = io.StringIO()
        with _screen(out, PricesView(), has_color=has_color, is_ascii=is_ascii) as screen:
            screen.put(ticker())
            screen.put(ticker(price="61839"))
            screen.draw()
        assert ("\x1b[32m" in out.getvalue()) == has_color
        assert ("▲" in out.getvalue()) == (not is_ascii)
        assert out.getvalue().isascii() == is_ascii


def test_no_code_of_a_view_reaches_the_terminal() -> None:
    """Also where one forgot."""

    class Careless(PricesView):
        def body(self, size: Size, now_ms: float) -> list[Line]:
            return [(Span("\x1b]0;owned\x07\x9b\u202e"),)]

    out = io.StringIO()
    with _screen(out, Careless()) as screen:
        screen.draw()
    assert "\x1b]" not in out.getvalue()
    assert CODES.sub("", out.getvalue()).replace("\n", "").isprintable()


async def test_a_burst_is_drawn_ten_times_a_second(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand events a second, for ten seconds."""
    drawn: list[float] = []
    monkeypatch.setattr(screen_module, "SHARE", 0)
    screen = _screen(io.StringIO(), PricesView())
    monkeypatch.setattr(screen, "draw", lambda: drawn.append(trio.current_time()))
    event = ticker()
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.run)
            for _ in range(10_000):
                screen.put(event)
                await trio.sleep(0.001)
    assert 50 <= len(drawn) <= 101
    before = len(drawn)
    with trio.move_on_after(10):
        await screen.run()
    assert 8 <= len(drawn) - before <= 12  # ages go on


def test_waits_double_and_end_somewhere() -> None:
    """No shorter than what the server asked for, which is bounded."""
    retries = Retries(lambda: 1.0)
    assert [retries.failed() for _ in range(6)] == [1, 2, 4, 8, LONGEST_S, LONGEST_S]
    retries.succeeded()
    assert Retries(lambda: 0.0).failed() == 0.5
    retries.asked(1e9)
    assert retries.failed() == ASKED_MAX_S
