"""Rows and columns as lines of styled text, at a width: what does not fit is left out by rank. Sans-I/O."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

import msgspec

from komas.cli.watch.safe_text import cells, clip, pad, tail

WIDE: Final = 60  # from here on columns stand two spaces apart


class Span(NamedTuple):
    """Text in one style: ``up down head dim good warn bad`` or none."""

    text: str
    style: str = ""


Line: TypeAlias = tuple[Span, ...]


class Size(NamedTuple):
    """Columns and rows of a terminal."""

    width: int
    height: int


class Side(Enum):
    """How a column's texts stand."""

    LEFT = "left"
    RIGHT = "right"
    POINT = "point"  # numbers, one point above the other
    TAIL = "tail"  # a sparkline, whose end is the newest; it takes the width that is left


class Column(msgspec.Struct, frozen=True):
    """One column; of rank 0 always, the others while they fit, by rank; words are clipped to ``least`` first."""

    name: str
    side: Side = Side.RIGHT
    rank: int = 0
    least: int = 4  # columns that it takes where it is clipped


def draw(columns: Sequence[Column], rows: Sequence[Sequence[Span]], width: int) -> list[Line]:
    """The heading and the rows; no line is wider than ``width``."""
    gap = 2 if width >= WIDE else 1
    texts = [_aligned(column, [row[index].text for row in rows]) for index, column in enumerate(columns)]
    widths = _fitted(columns, [_natural(*pair) for pair in zip(columns, texts, strict=True)], width, gap)
    lines = [_line(columns, [Span(column.name, "head") for column in columns], widths, gap)]
    for number, row in enumerate(rows):
        aligned = [Span(texts[index][number], span.style) for index, span in enumerate(row)]
        lines.append(_line(columns, aligned, widths, gap))
    return lines


def _aligned(column: Column, texts: list[str]) -> list[str]:
    if column.side is not Side.POINT:
        return texts
    behind = [len(text) - index if (index := text.find(".")) >= 0 else 0 for text in texts]
    most = max(behind, default=0)
    return [text + " " * (most - count) if text else "" for text, count in zip(texts, behind, strict=True)]


def _natural(column: Column, texts: list[str]) -> int:
    if column.side is Side.TAIL:
        return max(column.least, cells(column.name))
    return max(cells(column.name), *(cells(text) for text in texts), 0)


def _fitted(columns: Sequence[Column], natural: list[int], width: int, gap: int) -> dict[int, int]:
    """The columns that are shown, by their index, with their widths."""
    chosen: dict[int, int] = {}
    left = width + gap
    for index in sorted(range(len(columns)), key=lambda index: columns[index].rank):
        column, wide = columns[index], natural[index]
        if column.rank and wide + gap > left:
            wide = left - gap
            if column.side is not Side.LEFT or wide < column.least:
                break
        chosen[index] = wide
        left -= wide + gap
    for index in chosen:
        if columns[index].side is Side.TAIL and left > 0:
            chosen[index] += left
            left = 0
    for side in (Side.LEFT, Side.RIGHT, Side.POINT, Side.TAIL):  # words suffer before numbers do
        for index, wide in list(chosen.items()):
            if left < 0 and columns[index].side is side:
                given = min(-left, max(0, wide - columns[index].least))
                chosen[index] -= given
                left += given
    return dict(sorted(chosen.items()))


def _line(columns: Sequence[Column], row: Sequence[Span], widths: dict[int, int], gap: int) -> Line:
    spans: list[Span] = []
    for index, wide in widths.items():
        column, span = columns[index], row[index]
        if spans:
            spans.append(Span(" " * gap))
        text = tail(span.text, wide) if column.side is Side.TAIL else clip(span.text, wide)
        is_right = column.side in (Side.RIGHT, Side.POINT)
        spans.append(Span(pad(text, wide, is_right=is_right), span.style))
    return tuple(spans)


def width_of(line: Line) -> int:
    """How many columns of a terminal a line takes."""
    return sum(cells(span.text) for span in line)


def fit(line: Line, width: int) -> Line:
    """The line, clipped to a width."""
    spans: list[Span] = []
    for span in line:
        text = clip(span.text, width)
        spans.append(Span(text, span.style))
        width -= cells(text)
        if width <= 0 or text != span.text:
            break
    return tuple(spans)


def between(left: Line, right: Line, width: int) -> Line:
    """Two parts at both ends of a line; the left one is clipped where there is no room for both."""
    left = fit(left, max(0, width - width_of(right) - 2))
    return fit((*left, Span(" " * (width - width_of(left) - width_of(right))), *right), width)


def beside(left: Sequence[Line], right: Sequence[Line], width: int) -> list[Line]:
    """Two blocks of lines; the right one begins behind ``width`` columns."""
    lines: list[Line] = []
    for index in range(max(len(left), len(right))):
        one, other = (block[index] if index < len(block) else () for block in (left, right))
        lines.append((*one, Span(" " * (width - width_of(one))), *other))
    return lines


def text_of(line: Line) -> str:
    """The characters of a line."""
    return "".join(span.text for span in line)
