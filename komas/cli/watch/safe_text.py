"""What a server sends, made fit for a terminal: nothing in it moves the cursor or turns the text around. Sans-I/O."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

CUT: Final = "…"  # stands where text did not fit: a number that was cut must not pass for another one

# Cc: ESC and its like, also the C1 range, of which old terminals take 0x9B for ESC [. Cf: directions, joiners, tags.
# Cs, Co, Cn: no characters of this terminal's font. Zl, Zp: ends of lines.
_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS: Final = frozenset({"Mn", "Me"})  # stand on the character before
_SELECTORS: Final = range(0xFE00, 0xFE10)  # of emoji and glyph variants: terminals disagree on how wide they make one
_BYTE: Final = 0x100
_PLANE: Final = 0x10000
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Spaces between the tokens of JSON may be ends of lines; inside its texts there are none.
_IN_JSON: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|[\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """The text on one line; what is no visible character is written as its number, in hexadecimal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, unicodedata.normalize("NFC", text)))


def _shown(character: str) -> str:
    number = ord(character)
    if number in _SELECTORS:
        return ""
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category not in _NOT_SHOWN:
        return character
    if character in _NAMED:
        return _NAMED[character]
    if number < _BYTE:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < _PLANE else f"\\U{number:08x}"


def json_line(text: str) -> str:
    """JSON on one line; what would move a cursor, or turn the text, is written as JSON's escape: the same value."""
    return _IN_JSON.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\t\n\r":
        return " "
    units = character.encode("utf-16-be")  # one, or the two of a pair
    return "".join(f"\\u{unit}" for unit in (units[:2].hex(), units[2:].hex()) if unit)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes, after ``shown()``."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in _MARKS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int) -> str:
    """The beginning of a text, with a mark where something is left out."""
    if cells(text) <= width:
        return text
    kept, used = [], cells(CUT)
    for character in text:
        used += _cells(character)
        if used > width:
            break
        kept.append(character)
    return "".join([*kept, CUT]) if width > 0 else ""


def tail(text: str, width: int) -> str:
    """The end of a text whose characters take one column each."""
    return text[max(0, len(text) - width) :]


def pad(text: str, width: int, *, is_right: bool = False) -> str:
    """The text with spaces to its width."""
    spaces = " " * max(0, width - cells(text))
    return spaces + text if is_right else text + spaces
