"""HTTP/1.1 and nothing else, in requests that can be understood in one way alone; a refusal has words.

* Hypercorn's HTTP/2 has no backpressure: what a stalled client does not take is queued without a limit. Over TLS it
  need not be offered (``alpn_protocols``); in clear text it is spoken to every client that begins with it, or that asks
  for ``Upgrade: h2c``.
* h11 takes requests that a proxy may understand otherwise (``request_head.py``), and how long a head may be depended on
  how it was cut into packets.
* What h11 refused was answered without a word, and a target that is too long as if it were a header.

Replaces: ``hypercorn.protocol.h11.H11Protocol``, as ``hypercorn.protocol`` knows it.
Upstream: https://github.com/pgjones/hypercorn/issues/38 (a protocol can be left unadvertised, but not turned off).
Of the queue without a limit and of the others, none is known to us.
Goes when these pass without it:
    tests/e2e/test_rude.py::test_no_packet_costs_more_than_its_connection
    tests/e2e/test_rude.py::test_what_may_be_understood_in_two_ways_is_refused
    tests/e2e/test_rude.py::test_a_target_that_is_too_long_is_told_from_a_header_that_is
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import h11
from hypercorn.protocol.h11 import H11Protocol

from komas.web.hypercorn.request_head import Refusal, refusal_of, too_long
from komas.web.problems import MEDIA_TYPE, document

_WORDS: Final = {
    HTTPStatus.BAD_REQUEST: "the request is not written as RFC 9112 has it",
    HTTPStatus.NOT_IMPLEMENTED: "of all transfer codings, chunked alone is known here",
}


class _Connection(h11.Connection):
    """One client's requests; what may be understood in two ways is none."""

    def __init__(self, longest: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=longest)
        self.longest = longest
        self.refusal: Refusal | None = None
        self.is_head = False  # whether the present request wants no body

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """The next event; raises ``h11.RemoteProtocolError`` for a request that is refused."""
        if self.their_state is not h11.IDLE:
            return super().next_event()
        self.is_head = False
        head = self.trailing_data[0]
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.is_head = event.method == b"HEAD"
            self.refusal = refusal_of(head, event, self.longest)
            if self.refusal is not None:
                raise h11.RemoteProtocolError(self.refusal.detail, error_status_hint=self.refusal.status)
        return event


class Http1Protocol(H11Protocol):
    """One client's connection, as Hypercorn sees it."""

    async def initiate(self) -> None:
        """Begin; before the first byte is read."""
        self._requests = self.connection = _Connection(self.config.h11_max_incomplete_size)

    async def _check_protocol(self, _event: h11.Request) -> None:
        """Ignore ``Upgrade: h2c``, as RFC 9110 allows; HTTP/2 opens with a method that nothing here knows."""

    async def _send_error_response(self, status_code: int) -> None:
        refusal = self._requests.refusal
        if refusal is None and status_code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            refusal = too_long(self._requests.trailing_data[0], self._requests.longest)
        if refusal is None:
            refusal = Refusal(status_code, _WORDS.get(HTTPStatus(status_code), ""))
        body = document(refusal.status, refusal.detail)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=refusal.status, headers=headers))
        if not self._requests.is_head:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
