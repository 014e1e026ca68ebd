"""What clients asked for and how it ended, counted by labels that stay few. Sans-I/O.

A route is counted by its rule, never by the path of a request, which may hold anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from komas.errors import Closing

OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_REGISTERED: Final = range(1000, 1016)  # close codes; a client may close with any of 4,000
_BY_CLIENT: Final = "client"


class SocketEnd:
    """How we close a WebSocket; ``None`` where its client was first."""

    __slots__ = ("closing",)

    def __init__(self) -> None:
        self.closing: Closing | None = None


class Traffic:
    """Counts since the start.

    ``requests`` are by route, method and status; ``closes`` of WebSockets by transport, code and reason;
    ``admin_actions`` are changes that were made, by what was called.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.closes: Counter[tuple[str, str, str]] = Counter()
        self.admin_actions: Counter[str] = Counter()

    def answered(self, rule: str | None, method: str, status: int) -> None:
        """Count a request by the rule that it was routed by, ``None`` where no rule fits."""
        self.requests[rule or OTHER, method if method in _METHODS else OTHER, str(status)] += 1

    @contextmanager
    def socket(self, transport: str, left_with: Callable[[], int]) -> Iterator[SocketEnd]:
        """Count a WebSocket's end; ``left_with`` is the code that its client closed with, or was given for a breach."""
        end = SocketEnd()
        try:
            yield end
        finally:
            if (closing := end.closing) is not None:
                self.closes[transport, str(closing.code), closing.name.lower()] += 1
            else:
                code = left_with()
                self.closes[transport, str(code) if code in _REGISTERED else OTHER, _BY_CLIENT] += 1
