"""A whole screen: a first line, the view, and a last line for what went wrong. Sans-I/O."""

from __future__ import annotations

import msgspec

from komas.cli.watch.link_state import LOST, LinkState
from komas.cli.watch.table import Line, Size, Span, between, fit, width_of
from komas.cli.watch.views import View


class Title(msgspec.Struct, frozen=True):
    """What is watched, and where."""

    name: str
    server: str


def frame(title: Title, view: View, link: LinkState, size: Size, now_ms: float) -> list[Line]:
    """As many lines as there is room for, none wider than the terminal.

    What is shown while there is no connection is said to be old: it was true once.
    """
    is_old = link.state == LOST
    first: Line = (
        Span(title.name, "head"),
        Span("  "),
        Span("last known", "warn") if link.losses and is_old else view.summary(),
    )
    badge: Line = (link.badge(now_ms),)
    about: Line = (Span(f"{title.server}  q ends  ", "dim"), *badge)
    if width_of(first) + width_of(about) + 2 <= size.width:
        badge = about
    body = view.body(Size(size.width, max(0, size.height - 2)), now_ms)
    body = [fit(line, size.width) for line in body[: max(0, size.height - 2)]]
    if is_old:
        body = [tuple(Span(span.text, "dim") for span in line) for line in body]
    empty: list[Line] = [()] * (size.height - 2 - len(body))
    lines = [between(first, badge, size.width), *body, *empty, fit(link.line(), size.width)]
    return lines[: size.height]
