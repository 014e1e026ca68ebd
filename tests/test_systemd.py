"""What systemd is told, and when."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio
import trio.testing

from komas.systemd import BEATS, SERVING, report, watchdog_s

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")


@contextmanager
def _systemd(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(name.replace("@", "\0", 1))
        notify.setblocking(False)
        yield notify


def _heard(notify: socket.socket) -> list[str]:
    heard = []
    while True:
        try:
            heard.append(notify.recv(4096).decode())
        except BlockingIOError:
            return heard


@pytest.mark.parametrize("is_abstract", [False, True])
async def test_it_hears_of_readiness_and_of_the_stop_when_they_come(
    is_abstract: bool,  # noqa: FBT001 - a table
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And not before, for what is started after us would be refused."""
    if is_abstract and sys.platform != "linux":
        pytest.skip("no abstract sockets there")
    ready, stopping = trio.Event(), trio.Event()
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        name = f"@komas-{os.getpid()}" if is_abstract else f"{folder}/notify"
        with _systemd(name) as notify:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(report, ready, stopping, {"NOTIFY_SOCKET": name})
                await trio.testing.wait_all_tasks_blocked()
                assert _heard(notify) == []
                ready.set()
                await trio.testing.wait_all_tasks_blocked()
                assert _heard(notify) == ["READY=1\nSTATUS=serving"]
                stopping.set()
                await trio.testing.wait_all_tasks_blocked()
                assert _heard(notify) == ["STOPPING=1\nSTATUS=draining"]


async def test_the_watchdog_hears_of_us_often_enough_also_before_and_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A start and a drain may take longer than the watchdog waits."""
    ready, stopping = trio.Event(), trio.Event()
    with tempfile.TemporaryDirectory(prefix="k") as folder, _systemd(f"{folder}/notify") as notify:
        watched = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report, ready, stopping, watched)
            for event in (ready, stopping, trio.Event()):
                await trio.sleep(59)
                assert _heard(notify).count("WATCHDOG=1") >= 59 // 30 * BEATS
                event.set()
            nursery.cancel_scope.cancel()


async def test_it_hears_when_readers_are_well_served_and_when_not(autojump_clock: trio.testing.MockClock) -> None:
    """A start is over without that; a supervisor restarts the next worker only with it."""
    ready, stopping, status = trio.Event(), trio.Event(), ["not ready: no process leads"]
    ready.set()
    with tempfile.TemporaryDirectory(prefix="k") as folder, _systemd(f"{folder}/notify") as notify:
        async with trio.open_nursery() as nursery:
            told = {"NOTIFY_SOCKET": f"{folder}/notify"}
            nursery.start_soon(partial(report, ready, stopping, told, status=lambda: status[0]))
            await trio.sleep(2)
            assert _heard(notify) == ["READY=1\nSTATUS=not ready: no process leads"]
            status[0] = SERVING
            await trio.sleep(2)
            assert _heard(notify) == [f"STATUS={SERVING}"]
            status[0] = "not ready: the leader says nothing"
            await trio.sleep(2)
            assert _heard(notify) == ["STATUS=not ready: the leader says nothing"]
            stopping.set()
            await trio.sleep(2)
            assert _heard(notify) == ["STOPPING=1\nSTATUS=draining"]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_only_the_process_that_is_watched_is(environment: dict[str, str], seconds: float | None) -> None:
    """The variables are handed down to what that process starts."""
    assert watchdog_s(environment, 7) == seconds


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative"])
async def test_without_systemd_nothing_is_done(name: str, autojump_clock: trio.testing.MockClock) -> None:
    """Nor where it listens on something else."""
    await report(trio.Event(), trio.Event(), {"NOTIFY_SOCKET": name})


async def test_a_systemd_that_is_not_there_stops_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, and the server goes on."""
    await report(trio.Event(), trio.Event(), {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000000"})
    assert "systemd cannot be told" in caplog.text
