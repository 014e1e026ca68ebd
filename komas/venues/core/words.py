"""What is told of foreign words: never more than a line of them (sans-I/O)."""

from __future__ import annotations

from typing import Final

MOST: Final = 200  # characters: an exchange's longest known reason has 120


def cut(words: str, most: int = MOST) -> str:
    """Words that came from outside, for a message or a log line; where they are cut they say so."""
    return words if len(words) <= most else f"{words[:most]}... ({len(words)} characters)"
