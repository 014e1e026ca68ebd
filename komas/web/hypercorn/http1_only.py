"""HTTP/1.1 and nothing else in clear text.

Hypercorn's HTTP/2 has no backpressure: what a stalled client does not take is queued without a limit. Over TLS it need
not be offered (``alpn_protocols``); in clear text it is spoken to every client that begins with it, or that asks for
``Upgrade: h2c``.

Replaces: ``hypercorn.protocol.h11.H11Protocol._check_protocol``.
Upstream: https://github.com/pgjones/hypercorn/issues/38 (a protocol can be left unadvertised, but not turned off).
Of the queue without a limit, none is known to us.
Goes when these pass without it:
    tests/e2e/test_rude.py::test_no_packet_costs_more_than_its_connection
"""

from __future__ import annotations

import h11
from hypercorn.protocol.h11 import H11Protocol


async def stay_with_http1(_protocol: H11Protocol, _event: h11.Request) -> None:
    """Ignore ``Upgrade: h2c``, as RFC 9110 allows; HTTP/2 opens with a method that nothing here knows."""
