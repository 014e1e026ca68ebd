"""Writing to a TLS connection without waiting.

* Each write under TLS went through Hypercorn's protocol and Trio's TLS: a task, a lock, a deadline and a wait for each
  of a thousand readers, at every event. Here the event is encrypted and written where it stands.

* A client under TLS that was refused heard of the end only once the server had heard it out, two seconds later, for
  Trio's TLS closes both directions at once. Here ours ends, with a farewell of its own (RFC 8446, 6.1).

Encrypted bytes have one order, and none may be left out. So whatever TLS itself sends (its farewell, a new key) goes
through here, behind a rest that the socket has not taken yet; and nothing is encrypted while somebody else is sending.

Replaces: nothing; it stands between ``trio.SSLStream`` and its socket.
Upstream: none is known to us: Trio's TLS has no write that does not wait. It needs five private parts of
``trio.SSLStream``: where one is not there, ``over()`` says so, and connections are written to as before.
Goes when these pass without it:
    tests/e2e/test_tls_writer.py::test_what_tls_sends_itself_goes_behind_a_rest
    tests/e2e/test_rude.py::test_what_may_be_understood_in_two_ways_is_refused
and when ``python -m benchmarks fanout`` is as fast under TLS without it.
"""

from __future__ import annotations

import os
import ssl
import sys
from contextlib import suppress
from typing import Final

import trio

_PARTS: Final = ("_ssl_object", "_outgoing", "_inner_send_lock", "_delayed_outgoing", "_retry")
_NOTHING: Final = memoryview(b"")


class TlsWriter(trio.abc.HalfCloseableStream):
    """What is below TLS; ``write_nowait()`` writes through it."""

    def __init__(self, tls: trio.SSLStream[trio.SocketStream], below: trio.SocketStream) -> None:
        self._tls: trio.SSLStream[trio.SocketStream] | None = tls
        self._below = below
        self.socket = below.socket
        self.rest = _NOTHING  # encrypted
        self._is_sending = False
        self.has_ended = False

    @classmethod
    def over(cls, tls: object) -> TlsWriter | None:
        """Come between TLS and its socket, before the handshake; ``None`` where that cannot be done, or is no TLS."""
        if sys.platform == "win32" or not isinstance(tls, trio.SSLStream):
            return None
        below = tls.transport_stream
        if not isinstance(below, trio.SocketStream) or not all(hasattr(tls, part) for part in _PARTS):
            return None
        writer = cls(tls, below)
        tls.transport_stream = writer  # it is asked for no more than this has
        return writer

    def let_go(self) -> None:
        """Forget the TLS above, which leads back to this."""
        self._tls = None

    def write_nowait(self, data: bytes) -> int:
        """As ``Writer``: what was encrypted and is not out is kept, and counts as one byte."""
        tls = self._tls
        if tls is None or len(data) < 2 or not self._may_encrypt(tls):  # noqa: PLR2004 - one byte would be all of it
            return len(data)
        try:
            tls._ssl_object.write(data)  # noqa: SLF001 - see above
        except ssl.SSLError:
            return len(data)  # the next write that waits finds out
        encrypted = tls._outgoing.read()  # noqa: SLF001
        try:
            written = os.write(self.socket.fileno(), encrypted)
        except OSError:
            written = 0
        if written == len(encrypted):
            return 0
        self.rest = memoryview(encrypted)[written:]
        return 1

    def _may_encrypt(self, tls: trio.SSLStream[trio.SocketStream]) -> bool:
        """Whether what is encrypted now would be next on the wire."""
        is_free = not self.rest and not self._is_sending and not tls._inner_send_lock.locked()  # noqa: SLF001
        return is_free and tls._delayed_outgoing is None  # noqa: SLF001 - tickets of the handshake go with the first write

    async def flush(self) -> None:
        """Write the rest."""
        if self.rest and (tls := self._tls) is not None:
            async with tls._inner_send_lock:  # noqa: SLF001 - as TLS does where it sends
                await self.send_all(b"")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what TLS has encrypted, behind the rest."""
        self._is_sending = True
        try:
            if self.rest:
                await self._below.send_all(self.rest)
                self.rest = _NOTHING
            if data:
                await self._below.send_all(data)
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """As of the socket."""
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As of the socket; behind our farewell nothing is decrypted any more, and the end comes with the client's."""
        data = await self._below.receive_some(max_bytes)
        while self.has_ended and data:
            data = await self._below.receive_some(max_bytes)
        return data

    async def send_eof(self) -> None:
        """Say farewell, behind the rest, and write no more."""
        if not self.has_ended and (tls := self._tls) is not None:
            self.has_ended = True

            def say_farewell() -> None:
                with suppress(
                    ssl.SSLError
                ):  # it would hear the client's, too, which may come later, or behind more data
                    tls._ssl_object.unwrap()  # noqa: SLF001 - see above

            await tls._retry(say_farewell)  # noqa: SLF001
            await self._below.send_eof()

    async def aclose(self) -> None:
        """As of the socket."""
        await self._below.aclose()
