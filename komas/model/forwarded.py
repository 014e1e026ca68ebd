"""``Forwarded`` as RFC 7239 has it: what each proxy on the way says of the request that it passed on. Sans-I/O.

Proxies append, so an element that a client wrote stands in front of the proxy's. A quote that is never closed would
swallow what comes behind it: what is not written as the RFC has it is therefore believed in no part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

# Values may be unquoted where the RFC asks for quotes (``for=192.0.2.1:4711``): that has one meaning only.
_PAIR: Final = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;\\]+))[ \t]*(?=[,;]|$)""")
_SEPARATOR: Final = re.compile(r"[ \t]*([,;]|$)[ \t]*|[ \t]+")
_ESCAPED: Final = re.compile(r"\\(.)")


def parse_forwarded(lines: Iterable[str]) -> list[dict[str, str]]:
    """The elements of all lines, in their order: parameters by name, in small letters.

    Raises ``ValueError`` for what is not written as the RFC has it.
    """
    return [element for element in _elements(",".join(lines)) if element]


def _elements(text: str) -> Iterator[dict[str, str]]:
    """Each element, empty ones too: lists may have them (RFC 9110, 5.6.1)."""
    element: dict[str, str] = {}
    at = 0
    while at < len(text):
        if (separator := _SEPARATOR.match(text, at)) is not None:
            at = separator.end()
            if separator[1] == ",":
                yield element
                element = {}
        elif (pair := _PAIR.match(text, at)) is not None and pair[1].lower() not in element:
            at = pair.end()
            element[pair[1].lower()] = pair[3] if pair[2] is None else _ESCAPED.sub(r"\1", pair[2])
        else:
            raise ValueError(f"no pair at {at}")
    yield element
