"""Parameters that an endpoint does not have (sans-I/O): misspelt ones are refused, all others ignored, by rule.

Others come with what nobody here asked for: cache-busters (``_=123``), ``utm_source``, a token that a polyfill adds. A
name that is nearly one of the endpoint's own was meant to say something, which would not count.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Final

LAST_EVENT_ID: Final = "last_event_id"  # however it is spelled: lastEventId, Last-Event-ID
CLOSE: Final = 0.75  # agregate, symbls, lim; and none of tests/web/test_query.py's
SHORTEST_WORD: Final = 3  # type for stream_type, but not the id of since_id
SHOWN: Final = 40  # characters of a name, and names, in an answer


def is_last_event_id(name: str) -> bool:
    """Whether a parameter is where a client left off."""
    return _letters(name) == _letters(LAST_EVENT_ID)


def unknown(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Those of the names that an endpoint does not have."""
    resumes = LAST_EVENT_ID in known
    return [name for name in names if name not in known and not (resumes and is_last_event_id(name))]


def meant(name: str, known: Collection[str]) -> str | None:
    """The parameter that an unknown name may have been meant to be."""
    by_letters = {_letters(each): each for each in known}
    for each in known:
        if len(name) >= SHORTEST_WORD and name.lower() in re.split("[_-]", each.lower()):
            return each
    close = difflib.get_close_matches(_letters(name[:SHOWN]), by_letters, n=1, cutoff=CLOSE)
    return by_letters[close[0]] if close else None


def misspelt(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Those of the names that an endpoint does not have, and what each may have been meant to be."""
    return {name: right for name in unknown(names, known) if (right := meant(name, known)) is not None}


def shown(names: Iterable[str]) -> tuple[str, ...]:
    """Names that were ignored, as an answer has them: cut, and not all of very many."""
    return tuple(name[:SHOWN] for name in names)[:SHOWN]


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
