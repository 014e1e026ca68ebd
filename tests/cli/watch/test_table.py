"""Rows and columns at a width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from komas.cli.watch.safe_text import shown
from komas.cli.watch.table import Column, Line, Side, Span, beside, between, draw, fit, text_of, width_of

COLUMNS = (
    Column("symbol", Side.LEFT, least=3),
    Column("price", Side.POINT, least=4),
    Column("trend", Side.TAIL, 1, least=5),
    Column("volume", Side.POINT, 2),
    Column("note", Side.LEFT, 3),
)


def _row(*texts: str) -> list[Span]:
    return [Span(text) for text in texts]


ROWS = [_row("BTCUSDT", "61837.6", "▁▂▃▄▅▆▇█", "12.5", "a long note"), _row("XRP", "0.6125", "█", "1200", "")]

SHORT = [row[:2] for row in ROWS]


def _texts(lines: list[Line]) -> list[str]:
    return [text_of(line).rstrip() for line in lines]


def test_points_stand_above_each_other() -> None:
    """Whatever was cut."""
    lines = _texts(draw(COLUMNS[:2], SHORT, 80))
    assert lines == ["symbol        price", "BTCUSDT  61837.6", "XRP          0.6125"]


def test_what_does_not_fit_is_left_out_by_rank() -> None:
    """The sparkline shows its newest end, and takes what is left; words are clipped before they go."""
    assert _texts(draw(COLUMNS, ROWS, 26)) == [
        "symbol       price trend",
        "BTCUSDT 61837.6    ▂▃▄▅▆▇█",
        "XRP         0.6125 █",
    ]
    assert "volume" in _texts(draw(COLUMNS, ROWS, 60))[0]
    assert _texts(draw(COLUMNS, ROWS, 38))[1].endswith("a lon…")
    assert _texts(draw(COLUMNS[:2], SHORT, 14))[1] == "BT… 61837.6"


@given(
    st.lists(st.lists(st.text(max_size=12), min_size=5, max_size=5), max_size=4),
    st.integers(1, 120),
)
def test_no_line_is_wider_than_the_terminal(texts: list[list[str]], width: int) -> None:
    """Whatever is in it."""
    rows = [[Span(shown(text)) for text in row] for row in texts]
    for line in draw(COLUMNS, rows, width):
        assert width_of(fit(line, width)) <= width


def test_both_ends_of_a_line() -> None:
    """The right one stays, for it says whether there is a connection."""
    assert text_of(between((Span("trades BTCUSDT"),), (Span("live"),), 24)) == "trades BTCUSDT      live"
    assert text_of(between((Span("trades BTCUSDT"),), (Span("live"),), 12)) == "trade…  live"
    assert width_of(between((Span("x"),), (Span("trying again"),), 5)) <= 5


def test_two_blocks_beside_each_other() -> None:
    """Also where one is longer."""
    lines = beside([(Span("a"),)], [(Span("b"),), (Span("c"),)], 4)
    assert [text_of(line) for line in lines] == ["a   b", "    c"]
