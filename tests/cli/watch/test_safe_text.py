"""What a hostile server sends does not reach the terminal as codes."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.cli.watch.safe_text import cells, clip, json_line, pad, shown, tail

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eTDSU\u2066\u200b\r\nX\x00\ud800\U000e0041"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BTCUSDT", "BTCUSDT"),
        ("币安人生USDT", "币安人生USDT"),
        ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eX\u2069", "\\u202eX\\u2069"),
        ("\U000e0041", "\\U000e0041"),
        ("no\xa0break", "no break"),
        ("e\u0301", "é"),
        ("☀\ufe0f", "☀"),
    ],
)
def test_what_is_no_visible_character_is_written_out(text: str, expected: str) -> None:
    """The rest stays as it is."""
    assert shown(text) == expected


@given(st.text())
def test_no_text_moves_the_cursor_or_turns_the_line(text: str) -> None:
    """Whatever it holds."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [character for character in shown(text) if unicodedata.category(character) in bad]
    assert not [c for c in json_line(json.dumps(text, ensure_ascii=False)) if unicodedata.category(c) in ("Cc", "Zl")]


@given(st.text(), st.integers(0, 30))
def test_a_clipped_text_is_no_wider(text: str, width: int) -> None:
    """Wide characters count twice, marks not at all."""
    made = clip(shown(text), width)
    assert cells(made) <= width
    assert cells(pad(made, width)) == max(width, cells(made))


def test_a_number_that_is_cut_says_so() -> None:
    """Or it would pass for another one."""
    assert clip("12345.678", 6) == "12345…"
    assert clip("币安人生", 5) == "币安…"
    assert cells("币安e\u0301") == 5
    assert tail("▁▂▃", 2) == "▂▃"


def test_json_keeps_its_value_and_its_line() -> None:
    """Escapes mean the same; ends of lines between tokens go."""
    text = json.dumps({"a": HOSTILE.replace("\ud800", "")}, ensure_ascii=False, indent=1)
    made = json_line(text)
    assert json.loads(made) == json.loads(text)
    assert made.isprintable()
    assert "\\u202e" in made
