"""A whole screen: a first line, the view, and a last line for what went wrong. Sans-I/O."""

from __future__ import annotations

import msgspec

from komas.cli.watch.link_state import LinkState
from komas.cli.watch.table import Line, Size, Span, between, fit
from komas.cli.watch.views import View

_WIDE = 80  # from here on the first line has the server's address, and how to leave


class Title(msgspec.Struct, frozen=True):
    """What is watched, and where."""

    name: str
    server: str


def frame(title: Title, view: View, link: LinkState, size: Size, now_ms: float) -> list[Line]:
    """As many lines as there is room for, none wider than the terminal."""
    first: Line = (Span(title.name, "head"), Span("  "), view.summary())
    badge: Line = (link.badge(now_ms),)
    if size.width >= _WIDE:
        badge = (Span(f"{title.server}  q ends  ", "dim"), *badge)
    body = view.body(Size(size.width, max(0, size.height - 2)), now_ms)
    body = [fit(line, size.width) for line in body[: max(0, size.height - 2)]]
    empty: list[Line] = [()] * (size.height - 2 - len(body))
    lines = [between(first, badge, size.width), *body, *empty, fit(link.line(), size.width)]
    return lines[: size.height]
