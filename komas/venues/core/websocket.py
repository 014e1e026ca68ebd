"""Dial a WebSocket and hold it: the only file that knows the WebSocket library (trio-websocket).

Every wait here ends: trio-websocket by itself can wait for ever for a handshake, a close or a peer that went silent
without a FIN, and hides the reason of a failed TLS handshake. So komas opens the stream itself, hands the library a
stream that notes what passes, and turns each failure into a ``VenueError`` with its own words.

The library's protocol machine costs ten times as much as reading what a message says. So once a handshake was accepted,
komas reads the socket, takes whole text messages out itself (``frame_reader``), and hands all else to the library.
"""

from __future__ import annotations

import email.utils
import re
import socket as stdlib_socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from komas.errors import CallerError, Cause, VenueError, words_of
from komas.event_log import event_logger
from komas.reading import is_plain_socket, read_some
from komas.venues.core.complaints import Complaints
from komas.venues.core.frame_reader import Frames, Handshake, Then
from komas.venues.core.proxies import note_ignored_proxies
from komas.venues.core.trust import read_trust_store
from komas.venues.core.words import cut

log = event_logger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0  # DNS, TCP, TLS and the handshake together
SEND_TIMEOUT_S: Final = 10.0
GOODBYE_TIMEOUT_S: Final = 0.5  # for our Close frame; the peer's answer is not waited for

MESSAGE_MAX_BYTES: Final = 2**20  # the largest frame asked for is an all-market array of some 100 KB
PASSED_OVER_BYTES: Final = 2**26  # a longer message ends the connection, one that is shorter is left out
READ_BYTES: Final = 2**16

_PORTS: Final = {"ws": 80, "wss": 443}
_POLICY_VIOLATION: Final = 1008
_ABNORMAL: Final = 1006
_REFUSALS: Final = range(300, 500)
_BANNED_UNTIL: Final = re.compile(r"banned until ([0-9]{13})(?![0-9])")  # milliseconds since the epoch


class OpenStream(Protocol):
    """How a byte stream to a host is opened: TCP, with TLS where ``tls`` is true. Tests hand in one over memory."""

    async def __call__(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Connect; raise ``VenueError`` where that fails."""


class Socket:
    """One WebSocket conversation, from its handshake to its end."""

    def __init__(self, connection: WebSocketConnection, tap: _Tap, reader: _Reader) -> None:
        self._connection = connection
        self._tap = tap
        self._reader = reader
        self._frames = Frames(MESSAGE_MAX_BYTES, PASSED_OVER_BYTES)
        self._complaints = Complaints(log)
        self._frames.feed(tap.early)
        self._odd, self._then = b"", Then.GO_ON  # what follows the messages that were returned last
        self._is_due = False  # the library has, or will have, the next message

    @property
    def heard_at(self) -> float:
        """When anything at all last came from the peer, pings included (seconds on trio's clock)."""
        return self._tap.heard_at

    async def receive(self) -> list[bytes]:
        """Every message that has come, one at least; raises ``VenueError`` at the end, whichever side closed.

        Of a text that is longer than ``MESSAGE_MAX_BYTES`` it is the beginning.
        """
        while not self._tap.is_theirs and not self._is_due:
            odd, then = self._odd, self._then
            if then is Then.READ:
                if data := await self._tap.read(READ_BYTES):
                    self._frames.feed(data)
                else:
                    self._tap.give_back(self._frames.rest())  # the end is the library's to tell
            elif then is Then.THEIRS:
                self._tap.give_back(odd)
                break
            elif odd:
                self._odd = b""
                if then is Then.MESSAGE:
                    self._is_due = True
                await self._tap.hand_over(odd)
                if self._connection.closed is not None:
                    self._is_due = True
                continue
            if messages := self._cut():
                return messages
        try:
            message = await self._connection.get_message()
        except ConnectionClosed:
            raise self._ended() from None
        self._is_due = False
        return [message.encode() if isinstance(message, str) else message]

    def _cut(self) -> list[bytes]:
        cut = self._frames.cut()
        self._odd, self._then = cut.odd, cut.then
        if cut.left_out:
            self._complaints.warning("message too long, left out", bytes=cut.left_out, most=MESSAGE_MAX_BYTES)
        return cut.messages

    async def send(self, text: str) -> None:
        """Send one text message; ``VenueError`` when the peer does not take it within ``SEND_TIMEOUT_S``."""
        with trio.move_on_after(SEND_TIMEOUT_S):
            try:
                await self._connection.send_message(text)
            except ConnectionClosed:
                raise self._ended() from None
            return
        raise VenueError(f"the peer took nothing for {SEND_TIMEOUT_S:g} s", cause=Cause.SILENT)

    async def close(self) -> None:
        """Say goodbye, briefly, and close the stream; the peer may stay as long as it likes."""
        # Nobody else reads it any more, and a close is answered by a close.
        self._tap.give_back(self._odd + self._frames.rest())
        with trio.move_on_after(GOODBYE_TIMEOUT_S, shield=True):
            await self._connection.aclose()
        await trio.aclose_forcefully(self._tap)

    def _ended(self) -> VenueError:
        if self._reader.error is not None:
            return self._reader.error
        closed = self._connection.closed
        if closed is None or closed.code == _ABNORMAL:
            return VenueError("the connection was cut", cause=Cause.NETWORK)
        words = f": {closed.reason}" if closed.reason else ""
        cause = Cause.REFUSED if closed.code == _POLICY_VIOLATION else Cause.CLOSED
        return VenueError(
            f"the exchange closed the connection with {closed.code}{words}", cause=cause, code=closed.code
        )


async def open_tcp(host: str, port: int, *, tls: bool) -> trio.abc.Stream:
    """Open TCP, and TLS over it; ``VenueError`` tells DNS, refusal and certificate apart."""
    # Whom to trust may have changed since the last dial; reading it takes twenty milliseconds, which others need.
    # The thread is not abandoned: a process that ends while one is inside OpenSSL ends by a signal.
    try:
        trusted = await trio.to_thread.run_sync(read_trust_store) if tls else None
    except OSError as error:  # ssl.SSLError is one
        raise VenueError(f"whom to trust cannot be read: {words_of(error)}", cause=Cause.NETWORK) from error
    note_ignored_proxies(host)
    try:
        tcp = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise VenueError(why_unreachable(host, port, error), cause=Cause.NETWORK) from error
    if trusted is None:
        return tcp
    encrypted = trio.SSLStream(tcp, trusted, server_hostname=host, https_compatible=True)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(encrypted)
        raise VenueError(why_tls_failed(host, error), cause=Cause.NETWORK) from error
    except BaseException:
        await trio.aclose_forcefully(encrypted)
        raise
    return encrypted


def check_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken; ``CallerError`` for what is no WebSocket address."""
    scheme, host, port = "", "", None
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        host.encode("idna")  # what resolving it would do
    except ValueError:
        host = ""
    if not host or not host.isprintable() or " " in host or scheme not in _PORTS:
        raise CallerError(f"{url!r} is not a WebSocket address; write ws://host:port or wss://host:port")
    return host, port or _PORTS[scheme], scheme == "wss"


async def dial(
    nursery: trio.Nursery,
    url: str,
    *,
    sent: Callable[[], None],
    open_stream: OpenStream = open_tcp,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Socket:
    """Connect to a ``ws://`` or ``wss://`` URL; the reader runs in ``nursery`` and the caller closes the socket.

    ``sent`` is called for every frame that leaves, pongs included. Raises ``VenueError``, in ``timeout_s`` at most.
    """
    host, port, tls = check_url(url)
    parts = urlsplit(url)
    with trio.move_on_after(timeout_s):
        stream = await open_stream(host, port, tls=tls)
        return await _handshake(nursery, _Tap(stream, sent), parts.netloc, f"{parts.path}?{parts.query}".rstrip("?"))
    raise VenueError(f"{host}:{port} did not answer within {timeout_s:g} s", cause=Cause.NETWORK)


async def _handshake(nursery: trio.Nursery, tap: _Tap, host: str, resource: str) -> Socket:
    connection: WebSocketConnection | None = None
    try:
        with trio.CancelScope() as scope:
            reader = _Reader(nursery, scope, tap)
            connection = await wrap_client_stream(
                cast("trio.Nursery", reader),  # it calls start_soon() alone, to start its reader
                cast("trio.SocketStream", tap),  # any stream will do, whatever the annotation says
                host,
                resource,
                max_message_size=MESSAGE_MAX_BYTES,
                receive_buffer_size=READ_BYTES,
            )
            tap.begin_talk()
            return Socket(connection, tap, reader)
        raise reader.error or VenueError("the handshake was cut", cause=Cause.NETWORK)
    finally:
        if connection is None:
            await trio.aclose_forcefully(tap)


class _Reader:
    """Stands where trio-websocket expects a nursery: its reader's failures stay here and end the handshake."""

    def __init__(self, nursery: trio.Nursery, handshake: trio.CancelScope, tap: _Tap) -> None:
        self._nursery = nursery
        self._handshake = handshake
        self._tap = tap
        self.error: VenueError | None = None

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, task, name="websocket reader")

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except ConnectionRejected as error:
            self.error = _rejected(error)
        except ConnectionClosed:
            self.error = None  # Socket asks the connection for the code and the words
        except Exception as error:  # noqa: BLE001 - h11 and wsproto raise several kinds over what a peer can send
            self.error = VenueError(f"what came is not WebSocket: {cut(words_of(error))}", cause=Cause.PROTOCOL)
        finally:
            self._tap.leave()
        self._handshake.cancel()


class _Tap(trio.abc.Stream):
    """The byte stream as the library sees it: the handshake, then what it is handed, and from ``give_back()`` on all.

    It notes when the peer was last heard, and calls for every frame that leaves.
    """

    def __init__(self, stream: trio.abc.Stream, sent: Callable[[], None]) -> None:
        self._stream = stream
        self._is_plain = is_plain_socket(stream)
        self._sent = sent
        self._handshake: Handshake | None = Handshake()
        self._handed = b""
        self._handing = trio.lowlevel.ParkingLot()
        self._taken = trio.Event()
        self.early = b""  # what came together with the handshake's answer
        self.is_theirs = False
        self.talking = False  # before that, what leaves is the handshake and no frame
        self._clock = trio.lowlevel.current_clock()
        self.heard_at = self._clock.current_time()

    def begin_talk(self) -> None:
        """The library has accepted the handshake; where we have not seen its end, the library reads on."""
        self.talking = True
        self.is_theirs = self.is_theirs or self._handshake is not None

    async def read(self, max_bytes: int | None) -> bytes:
        """Read what the socket has; empty bytes are its end, whichever side closed."""
        data = await read_some(self._stream, is_plain=self._is_plain, most=max_bytes)
        if data:
            self.heard_at = self._clock.current_time()
        return data

    async def hand_over(self, data: bytes) -> None:
        """Let the library read this; returns once it has done what it has to about it."""
        self._handed, self._taken = data, trio.Event()
        self._handing.unpark()
        await self._taken.wait()

    def give_back(self, data: bytes) -> None:
        """Let the library read this, and then the stream, for good."""
        self._handed = data
        self.is_theirs = True
        self._handing.unpark()

    def leave(self) -> None:
        """The library reads no more."""
        self.is_theirs = True
        self._taken.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # The library sends each frame by a call of its own.
        if self.talking:
            self._sent()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._handshake is not None and not self.is_theirs:
            return self._shake(self._handshake, await self.read(max_bytes))
        if not self._handed:
            self._taken.set()
            if not self.is_theirs:
                await self._handing.park()  # until something is handed over, or all is theirs
        data, self._handed = self._handed, b""
        return data or await self.read(max_bytes)

    def _shake(self, handshake: Handshake, data: bytes) -> bytes:
        """What the library reads of the answer to the handshake."""
        theirs, early = handshake.feed(data)
        if self.is_theirs or early is None:
            return data
        self._handshake, self.early = None, early
        return theirs

    async def aclose(self) -> None:
        self.give_back(b"")  # a reader that waits to be handed something sees the end
        await self._stream.aclose()


def _rejected(error: ConnectionRejected) -> VenueError:
    status = error.status_code
    headers = {name.lower(): value for name, value in error.headers or ()}
    words = _words(error.body or b"")
    hint = "; this region is blocked: try a VPN, or wss://data-stream.binance.vision" if status == 451 else ""  # noqa: PLR2004 - HTTP
    return VenueError(
        f"the exchange refused the connection with HTTP {status}{f': {cut(words)}' if words else ''}{hint}",
        cause=Cause.REFUSED if status in _REFUSALS else Cause.NETWORK,
        status=status,
        retry_after_s=asked_wait_s(headers.get(b"retry-after", b"").decode("latin-1"), words),
    )


class _ErrorBody(msgspec.Struct):
    """``{"code":0,"msg":"Service unavailable from a restricted location ..."}``."""

    msg: str = ""


def _words(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).msg
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def retry_after_s(text: str, now: Callable[[], float] = time.time) -> float | None:
    """Read ``Retry-After`` (RFC 9110: seconds or a date) as seconds from now; ``None`` when it is absent or broken."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment_s = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment_s - now())


def asked_wait_s(retry_after: str, words: str, now: Callable[[], float] = time.time) -> float | None:
    """How long the exchange asked to wait, in seconds: by its ``Retry-After`` or by its words, the longer one.

    ``{"code":-1003,"msg":"Way too much request weight used; IP banned until 1659146400000. Please use ..."}`` came
    without the header (binance-spot-api-docs, errors.md, -1003). Where that is over by our clock, the clock is wrong.
    """
    header_s = retry_after_s(retry_after, now)
    until = _BANNED_UNTIL.search(words)
    banned_s = 0.0 if until is None else int(until[1]) / 1000 - now()
    return header_s if banned_s <= 0 else max(banned_s, header_s or 0.0)


def why_unreachable(host: str, port: int, error: OSError) -> str:
    """What to tell a user whose connection was not made."""
    reasons = _leaves(error.__cause__) if isinstance(error.__cause__, BaseExceptionGroup) else [error]
    if any(isinstance(reason, stdlib_socket.gaierror) for reason in reasons):
        return f"the name {host} cannot be resolved: check the internet connection and the DNS"
    if all(isinstance(reason, ConnectionRefusedError) for reason in reasons):
        return f"{host}:{port} refused the connection"
    return f"{host}:{port} cannot be reached: {'; '.join(sorted({words_of(reason) for reason in reasons}))}"


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def why_tls_failed(host: str, error: trio.BrokenResourceError) -> str:
    """What to tell a user whose TLS handshake failed."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the TLS certificate of {host} is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS with {host} failed: {cause.reason or cause}"
    return f"{host} cut the connection during the TLS handshake"
