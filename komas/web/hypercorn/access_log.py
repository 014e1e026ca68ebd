"""Hypercorn's access log without what may hold a token, whatever format was configured.

A browser can bring the token of a WebSocket in its query or its subprotocols only, and several of Hypercorn's formats
write these.

Replaces: ``hypercorn.logging.Logger``, by ``Config.logger_class``: public, but the stock command cannot set it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/web/hypercorn/test_access_log.py::test_no_token_is_written_by_any_format
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercorn.logging import Logger

from komas.observability.logs import hide_tokens

if TYPE_CHECKING:
    from hypercorn.typing import ResponseSummary, WWWScope

_SECRET_HEADERS: Final = frozenset({b"authorization", b"cookie", b"sec-websocket-protocol", b"referer"})


class AccessLog(Logger):
    """The query and some headers are left out; what looks like a token elsewhere is hidden."""

    async def access(self, request: WWWScope, response: ResponseSummary, request_time: float) -> None:
        """Write one line, where there is a log."""
        if self.access_logger is None:
            return
        headers = [
            (name, hide_tokens(value.decode("latin-1")).encode("latin-1"))
            for name, value in request["headers"]
            if name.lower() not in _SECRET_HEADERS
        ]
        shown = {**request, "path": hide_tokens(request["path"]), "query_string": b"", "headers": headers}
        await super().access(shown, response, request_time)  # type: ignore[arg-type]  # the same scope, less of it
