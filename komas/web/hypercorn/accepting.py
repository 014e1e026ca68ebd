"""How connections are accepted: also when open files are short.

Trio waits for a tenth of a second where no file is left for a new connection, and logs a traceback each time. Meanwhile
a hundred idle connections may keep every file for the whole keep-alive time, and lock everybody else out. Here the
longest idle ones are closed, and there is one line a minute. As a rule it does not come to that: no more connections
are let in than there are files for, with some to spare for the exchange, the database and the logs.

Trio also serves connections in the order in which they come, so that everybody waited behind the hundred of one client.
Here all that have come are accepted first; then a few at a time begin, and their addresses take turns.

Replaces: ``trio.serve_listeners``, as ``hypercorn.trio.run`` knows it.
Upstream: none is known to us.
Goes when these pass without it:
    tests/web/hypercorn/test_accepting.py::test_idle_connections_give_way_when_files_are_short
    tests/web/hypercorn/test_accepting.py::test_a_burst_of_one_client_does_not_go_before_another_one
    tests/e2e/test_rude.py::test_idle_connections_lock_nobody_out
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import trio

from komas.model.addresses import counted
from komas.observability.logs import LogLimit
from komas.venues.core.fair_queue import FairQueue
from komas.web.hypercorn.lasting_response import LastingResponse
from komas.web.hypercorn.lasting_socket import LastingSocket
from komas.web.hypercorn.peers import Stream, peer_of, socket_of
from komas.web.hypercorn.places import Places
from komas.web.hypercorn.shutdown import Served, present

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Stream], Awaitable[LastingResponse | LastingSocket | None]]

SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
RETRY_S: Final = 0.1  # as Trio does
GIVE_WAY: Final = 8  # idle connections at a time: whatever else opens files needs some, too
SPARE: Final = 256  # files for what is opened later: connections to the exchange, the database
SPARE_PART: Final = 4  # where there are few files at all, this part of them
UNKNOWN_FILES: Final = 64  # are open, where the system does not show them
WAITING: Final = 256  # connections that were accepted, and have not begun
BEGUN_AT_ONCE: Final = 4  # of these, in each round of the loop


class Acceptor:
    """Accepts connections while there are files for them."""

    def __init__(self, places: Places[Served]) -> None:
        self._places = places
        self._log_limit = LogLimit()

    async def serve(self, listener: trio.abc.Listener[Stream], nursery: trio.Nursery, handler: Handler) -> NoReturn:
        """Start the handler for each connection; other failures than a shortage are raised."""
        waiting: FairQueue[Stream] = FairQueue()
        async with listener:
            try:
                while True:
                    await self._accept(listener, waiting)
                    for _ in range(min(BEGUN_AT_ONCE, len(waiting))):
                        nursery.start_soon(_handle, handler, waiting.take())
                    await trio.lowlevel.checkpoint()
            finally:
                while waiting:
                    socket_of(waiting.take()).close()

    async def _accept(self, listener: trio.abc.Listener[Stream], waiting: FairQueue[Stream]) -> None:
        """Let all that have come wait; where none waits, be there for the next one."""
        try:
            if not waiting:
                _put(await listener.accept(), waiting)
            most = min(WAITING, max(BEGUN_AT_ONCE, self._places.left))  # each has a file
            while len(waiting) < most and (stream := accept_now(listener)) is not None:
                _put(stream, waiting)
        except OSError as error:
            if error.errno not in SHORT:
                raise
            await self._wait_for_files(error)

    async def _wait_for_files(self, error: OSError) -> None:
        closed = self._places.make_room(GIVE_WAY)
        if (left_out := self._log_limit.due(trio.current_time())) is not None:
            log.error(
                "connections cannot be accepted: %s; idle ones are closed: ulimit -n says how many files may be open",
                error.strerror,
                extra={"closed": closed, "not_logged": left_out},
            )
        await trio.sleep(0 if closed else RETRY_S)


def _put(stream: Stream, waiting: FairQueue[Stream]) -> None:
    waiting.put(stream, [counted(peer_of(stream))])


def accept_now(listener: trio.abc.Listener[Stream]) -> trio.SocketStream | None:
    """A connection that has come already; ``None`` where there is none, and under TLS, whose handshakes cost most.

    Trio's own ``accept()`` takes one in each round of its loop, which others may make long.
    """
    if not isinstance(listener, trio.SocketListener):
        return None
    ours = listener.socket
    with socket.fromfd(ours.fileno(), ours.family, ours.type, ours.proto) as same:
        same.setblocking(False)
        try:
            accepted, _ = same.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return None
    return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


async def _handle(handler: Handler, stream: Stream) -> None:
    try:
        if (lasting := await handler(stream)) is not None:
            await lasting.run()
    finally:
        await trio.aclose_forcefully(stream)


async def serve_listeners(
    handler: Handler, listeners: Sequence[trio.abc.Listener[Stream]], *, handler_nursery: trio.Nursery
) -> None:
    """Accept connections until cancelled; their handlers run on in the nursery."""
    run = present()
    assert run is not None  # install() began it
    run.places.most = min(run.places.most, room_for_connections())
    acceptor = Acceptor(run.places)
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(acceptor.serve, listener, handler_nursery, handler)
    finally:
        run.remove_socket_files()


def room_for_connections() -> int:
    """How many connections there are open files for."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource  # noqa: PLC0415 - not there on Windows

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, most - _open_files() - min(SPARE, most // SPARE_PART))


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return sum(1 for _ in Path(folder).iterdir())
    return UNKNOWN_FILES


class Trio:
    """Trio, as ``hypercorn.trio.run`` sees it."""

    serve_listeners = staticmethod(serve_listeners)

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name)
