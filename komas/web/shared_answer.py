"""One answer for all who ask at about the same time, rendered at most twice a second.

A large answer costs CPU time and, while its client does not read, memory. Here many clients share one rendering: the
same bytes, which are written in parts and not copied on their way.

An answer is good for ``FRESH_S``, and as long as its ``version`` is what it was: what a caller has just changed is in
what it reads next. The next one begins ``FRESH_S`` after the last, whatever asks for it. So who asks right after a
change waits for a moment, instead of being told what is not true any more, and constant changes cost no more than none.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

FRESH_S: Final = 0.5


class SharedAnswer:
    """The answer to one question."""

    def __init__(self, render: Callable[[], Awaitable[bytes]], version: Callable[[], object] = lambda: None) -> None:
        """``render`` may be called before the last clients have read what it returned before."""
        self._render = render
        self._version = version
        self._lock = trio.Lock()
        self._began_at = -math.inf
        self._rendered: bytes | None = None
        self._rendered_version: object = None

    async def get(self) -> bytes:
        """An answer that is true now, within ``FRESH_S``."""
        if (known := self._fresh()) is not None:
            return known
        async with self._lock:
            if (known := self._fresh()) is not None:
                return known
            await trio.sleep_until(self._began_at + FRESH_S)
            self._began_at, self._rendered = trio.current_time(), None
            version = self._version()
            with trio.CancelScope(shield=True):  # others wait for it, if not this client
                answer = await self._render()
            self._rendered, self._rendered_version = answer, version
            return answer

    def _fresh(self) -> bytes | None:
        is_fresh = trio.current_time() < self._began_at + FRESH_S and self._version() == self._rendered_version
        return self._rendered if is_fresh else None
