"""Where the output goes, and what that can show. Sans-I/O: the environment is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

Color: TypeAlias = Literal["auto", "always", "never"]
COLORS: Final[tuple[Color, ...]] = ("auto", "always", "never")
_DUMB: Final = frozenset({"dumb", "unknown"})
_NO: Final = frozenset({"", "0"})
_UNICODE: Final = frozenset({"utf8", "utf16", "utf32", "utf8sig"})


class Surface(msgspec.Struct, frozen=True):
    """``is_screen``: a terminal that can be drawn upon; else rows go out, one after another.

    ``is_ascii``: its characters have no arrows and bars.
    """

    is_screen: bool
    has_color: bool
    is_ascii: bool = False


def surface(
    environment: Mapping[str, str],
    *,
    is_terminal: bool,
    is_foreground: bool = True,
    wants_rows: bool = False,
    color: Color = "auto",
    encoding: str = "utf-8",
) -> Surface:
    """What is to be drawn, and in colour or not.

    ``--color`` counts before ``NO_COLOR``, that before ``FORCE_COLOR`` (no-color.org, force-color.org), which is for
    terminals that do not say what they can. What goes into a pipe is data: no variable puts codes into it, only
    ``--color always`` does. A program in the background of its terminal leaves the screen to the one in front.
    """
    is_dumb = environment.get("TERM", "") in _DUMB
    is_screen = is_terminal and is_foreground and not wants_rows and not is_dumb
    is_ascii = encoding.lower().replace("-", "").replace("_", "") not in _UNICODE
    has_color = is_terminal and (not is_dumb or environment.get("FORCE_COLOR", "0") not in _NO)
    if environment.get("NO_COLOR"):
        has_color = False
    if color != "auto":
        has_color = color == "always"
    return Surface(is_screen, has_color, is_ascii)
