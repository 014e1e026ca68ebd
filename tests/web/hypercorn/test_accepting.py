"""Accepting connections when open files are short."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import Self

import pytest
import trio
import trio.testing

from komas.settings import Settings
from komas.web.hypercorn import accepting
from komas.web.hypercorn.accepting import BEGUN_AT_ONCE, RETRY_S, WAITING, room_for_connections, serve_listeners
from komas.web.hypercorn.install import install
from komas.web.hypercorn.places import Places
from tests.web.hypercorn.clients import Idle


class _Idle:
    """An idle connection, which has a file."""

    def __init__(self, files: Files) -> None:
        self._files = files
        files.open += 1

    def give_way(self) -> None:
        """Close."""
        self._files.open -= 1


class Files:
    """The files of a process: two, and a listener that needs one."""

    def __init__(self, failure: int = errno.EMFILE) -> None:
        self.open = 0
        self.accepted = 0
        self._failure = failure

    async def accept(self) -> trio.abc.Stream:
        """Take what has come, and more will."""
        await trio.lowlevel.checkpoint()
        if self.accepted:
            await trio.sleep_forever()
        if self.open >= 2:
            raise OSError(self._failure, os.strerror(self._failure))
        self.open += 1
        self.accepted += 1
        return Idle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_args: object) -> None:
        await trio.lowlevel.checkpoint()


async def _handle(_stream: object) -> None:
    await trio.sleep_forever()


async def _accept(files: Files, *idle: _Idle) -> None:
    """Accept for 100 seconds; the idle connections are there before."""
    run = install(Settings())
    places: Places[_Idle] = run.places  # type: ignore[assignment]  # what gives way is all that is asked for
    for client in idle:
        places.enter(client, "192.0.2.1")
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_listeners, _handle, [files], handler_nursery=nursery)  # type: ignore[list-item]
            nursery.start_soon(serve)


@pytest.mark.parametrize("failure", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_idle_connections_give_way_when_files_are_short(
    failure: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A newcomer was locked out for the whole keep-alive time."""
    files = Files(failure)
    await _accept(files, _Idle(files), _Idle(files))
    assert files.accepted == 1
    assert "connections cannot be accepted" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_lasting_shortage_is_one_line_a_minute(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten tracebacks a second filled the log; what is short elsewhere is waited for."""
    files = Files()
    files.open = 2
    await _accept(files)
    assert files.accepted == 0
    records = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(records) == 2
    assert records[0].exc_info is None
    assert vars(records[1])["not_logged"] > 30 / RETRY_S


async def test_another_failure_to_accept_is_raised(autojump_clock: trio.testing.MockClock) -> None:
    """A bug is no shortage."""
    files = Files(errno.EBADF)
    files.open = 2
    with pytest.raises(BaseExceptionGroup) as caught:
        await _accept(files)
    assert caught.group_contains(OSError)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
async def test_no_more_connections_are_let_in_than_there_are_files_for(autojump_clock: trio.testing.MockClock) -> None:
    """Some are left for the exchange and the database."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        run = install(Settings())
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                await serve_listeners(_handle, [], handler_nursery=nursery)
        assert 1 <= run.places.most <= 450
        assert run.places.most == room_for_connections()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Come:
    """A listener with connections that have come already, and one more when some of them have begun."""

    def __init__(self, *peers: str) -> None:
        self._peers = [*peers]
        self.accepted: list[Idle] = []
        self.begun: list[str] = []

    async def accept(self) -> Idle:
        if (stream := self.accept_now(self)) is None:
            await trio.sleep_forever()
        return stream

    def accept_now(self, _listener: object) -> Idle | None:
        if not self._peers:
            return None
        self.accepted.append(Idle(self._peers.pop(0)))
        return self.accepted[-1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_args: object) -> None:
        await trio.lowlevel.checkpoint()

    async def handle(self, stream: Idle) -> None:
        self.begun.append(stream.socket.getpeername()[0])
        if len(self.begun) == BEGUN_AT_ONCE:
            self._peers.append("192.0.2.3")


async def _serve(come: _Come, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the clients in the order in which they began."""
    install(Settings())
    monkeypatch.setattr(accepting, "accept_now", come.accept_now)
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            await serve_listeners(come.handle, [come], handler_nursery=nursery)  # type: ignore[arg-type, list-item]
    return come.begun


async def test_a_burst_of_one_client_does_not_go_before_another_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Everybody waited until the hundred connections of one client had begun."""
    begun = await _serve(_Come(*["192.0.2.1"] * 200, "192.0.2.2"), monkeypatch)
    assert len(begun) == 202
    assert begun.index("192.0.2.2") < BEGUN_AT_ONCE
    assert begun.index("192.0.2.3") < 3 * BEGUN_AT_ONCE  # some of those that began meanwhile were before it


async def test_more_than_can_wait_are_served_one_after_another(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Those that wait have files; the others are the system's until these have begun."""
    begun = await _serve(_Come(*["192.0.2.1"] * 3 * WAITING, "192.0.2.2"), monkeypatch)
    assert len(begun) == 3 * WAITING + 2
    assert begun.index("192.0.2.2") < 2 * WAITING + 2 * BEGUN_AT_ONCE


async def test_who_waits_when_the_server_stops_is_let_go(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """They were accepted, and are the server's to close."""
    come = _Come(*["192.0.2.1"] * WAITING)

    async def stop(_stream: object) -> None:
        scope.cancel()

    install(Settings())
    monkeypatch.setattr(accepting, "accept_now", come.accept_now)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await serve_listeners(stop, [come], handler_nursery=nursery)  # type: ignore[list-item]
    assert sum(stream.socket.is_closed for stream in come.accepted) >= WAITING - 3 * BEGUN_AT_ONCE


async def test_no_more_wait_than_there_are_places(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Each has a file: those that waited took what the server itself had to open."""
    install(Settings())
    come = _Come(*["192.0.2.1"] * WAITING)
    monkeypatch.setattr(accepting, "accept_now", come.accept_now)
    monkeypatch.setattr(accepting, "room_for_connections", lambda: 20)

    async def count(_stream: object) -> None:
        counted.append(len(come.accepted))
        await trio.sleep_forever()

    counted: list[int] = []
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            await serve_listeners(count, [come], handler_nursery=nursery)  # type: ignore[list-item]
    assert len(counted) == WAITING
    assert all(accepted - begun <= 20 + 2 * BEGUN_AT_ONCE for begun, accepted in enumerate(counted))
