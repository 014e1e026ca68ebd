"""How far long work is, on a terminal alone."""

from __future__ import annotations

import io

import pytest

from komas.cli.progress import Progress, counted, progress_line


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_says_how_much_is_done_and_how_long_the_rest_takes() -> None:
    """No wider than the terminal, and without a guess before there is something to guess from."""
    assert progress_line("copying", 25, 100, 21.0, 80) == "copying  25% #####---------------  1 min 3 s left"
    assert progress_line("copying", 0, 100, 21.0, 80) == "copying   0% --------------------"
    assert progress_line("copying", 5, 0, 1.0, 80).startswith("copying   0%")
    assert progress_line("copying", 200, 100, 1.0, 80).startswith("copying 100% ####################  0 s left")
    assert len(progress_line("copying", 25, 100, 21.0, 30)) == 29


def test_it_is_drawn_ten_times_a_second_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is over soon has no line at all."""
    monkeypatch.setenv("TERM", "xterm")
    now_s, out = [100.0], _Terminal()
    with Progress(out, lambda: now_s[0]) as progress:
        for step in range(1000):
            now_s[0] = 100 + step / 1000
            progress("copying", step, 1000)
    assert 3 <= out.getvalue().count("copying") <= 6
    assert out.getvalue().endswith("\r\x1b[K")
    quick = _Terminal()
    with Progress(quick, lambda: 0.0) as progress:
        progress("copying", 1, 2)
    assert quick.getvalue() == ""


@pytest.mark.parametrize(("out", "term"), [(io.StringIO(), "xterm"), (_Terminal(), "dumb")])
def test_it_never_goes_into_a_pipe(out: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor to a terminal that cannot take a line back."""
    monkeypatch.setenv("TERM", term)
    with Progress(out, iter(range(100)).__next__) as progress:
        for step in range(50):
            progress("copying", step, 50)
    assert out.getvalue() == ""


def test_things_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first one on."""
    out = _Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", out)
    assert list(counted(range(3), "round")) == [0, 1, 2]
    assert "round 1 of 3   0%" in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K")
