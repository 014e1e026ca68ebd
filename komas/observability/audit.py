"""The trail of changes: what was done, by whom, from where and about what, one record each.

REST, the page and the command line use the same words: ``admin action: grant by='administrator' user='7' ...``. Texts
come from strangers: they are cut here, and kept on their line by the log's formatters, which hide tokens, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

log = logging.getLogger(__name__)

TEXT: Final = 100  # characters of a value that a client chose
LISTED: Final = 10  # names of a list

Facts = Mapping[str, object]


def log_done(action: str, facts: Facts) -> None:
    """Record what was asked for by somebody who may: done, or why not."""
    log.info("admin action: %s", action, extra=_cut(facts))


def log_refused(action: str, facts: Facts) -> None:
    """Record what was asked for by somebody who may not."""
    log.warning("admin action refused: %s", action, extra=_cut(facts))


def listed(names: list[str]) -> str:
    """A few names of a list, and how many more there are."""
    more = len(names) - LISTED
    return " ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _cut(facts: Facts) -> dict[str, object]:
    return {name: _shortened(value) if isinstance(value, str) else value for name, value in facts.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
