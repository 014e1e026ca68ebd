"""The elements of one array of a large JSON document, one after another (sans-I/O).

A decoder in C takes a document in one go, which holds everybody up for as long as that takes, in a thread, too. Here
the document is only cut; each element is the caller's to decode, or not to.

The document is gone through in windows, and whatever is in it costs a bounded time for each of them: short strings and
brackets are found by one pattern, and the end of a string that is long, or has escapes, by another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(rb'"[^"\\]{0,100}"|["[\]{}]')  # a quote alone begins a long string
_STOP: Final = re.compile(rb'["\\]')
_WINDOW: Final = 2**12  # bytes
_OF_A_WINDOW: Final = 50  # steps: to look through one takes as long as to find so many tokens
_BREATH: Final = 2_000  # steps, after which others run: some milliseconds
_ELEMENTS: Final = 2  # levels deep
_BEGIN: Final = frozenset((b"{", b"["))
_END: Final = frozenset((b"}", b"]"))


class NoArray(ValueError):
    """A document is not a JSON object with that array of objects."""


def elements(document: bytes, key: str) -> Iterator[bytes]:
    """Each object of the array that is the document's ``key``; empty bytes now and then, for others to run.

    Raises ``NoArray`` where there is none, or the document ends within it. What else is in it is not looked at.
    """
    name = b'"%b"' % key.encode()
    depth, begin, last, is_there = 0, 0, b"", False
    for token, end in _tokens(document):
        if token in _BEGIN:
            if is_there and depth == _ELEMENTS:
                begin = end - 1
            is_there |= depth == 1 and token == b"[" and last == name
            depth += 1
        elif token in _END:
            depth -= 1
            if is_there and depth == _ELEMENTS:
                yield document[begin:end]
            elif is_there and depth < _ELEMENTS:
                return
        elif not token:
            yield token
            continue
        last = token
    raise NoArray(f"there is no whole array {key!r}")


def _tokens(document: bytes) -> Iterator[tuple[bytes, int]]:
    """Brackets and strings, each with where it ends; empty bytes after as much as may be looked at in one go."""
    at, opened, steps = 0, -1, 0  # ``opened`` is where a long string has begun
    while at < len(document):
        window = at + _WINDOW
        if opened >= 0:
            found = _STOP.search(document, at, window)
            if found is None:
                at, steps = window, steps + _OF_A_WINDOW
            elif found[0] != b'"':
                at = found.end() + 1  # whatever is escaped ends nothing
            else:
                at = found.end()
                yield document[opened : min(at, opened + _WINDOW)], at
                opened = -1
        else:
            for found in _TOKEN.finditer(document, at, window):
                steps += 1
                if found[0] == b'"':
                    opened, at = found.start(), found.end()
                    break
                yield found[0], found.end()
            else:
                at, steps = window, steps + _OF_A_WINDOW
        steps += 1
        if steps >= _BREATH:
            steps = 0
            yield b"", 0
