"""Tables of results, as text that is Markdown too; medians over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

Row = dict[str, str | float]


def medians(rows: Sequence[Row]) -> Row:
    """One row of several: the median of each number, the first of each text."""
    return {key: _median([row[key] for row in rows]) for key in rows[0]}


def _median(values: Sequence[str | float]) -> str | float:
    numbers = [value for value in values if not isinstance(value, str)]
    return median(numbers) if len(numbers) == len(values) else values[0]


def table(title: str, rows: Sequence[Row]) -> str:
    """Rows under their keys."""
    cells = [list(rows[0]), *([_written(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [_line([cell.rjust(width) for cell, width in zip(row, widths, strict=True)]) for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join([title, "", *lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _written(value: str | float) -> str:
    if isinstance(value, str):
        return value
    if value != value:  # noqa: PLR0124 - NaN: nothing was measured
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.2f}"
