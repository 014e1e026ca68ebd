"""``komas serve --workers N``: starts the processes, hears them, and does what ``fleet.py`` orders.

A worker is ``komas serve`` as it is, told to listen elsewhere. It reports as to systemd, to a socket of its own, and
ends when this process has gone (``lifeline.py``). Settings are checked here first, so that a wrong one is one line.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

import trio

from komas.errors import SettingError
from komas.lifeline import VARIABLE
from komas.observability.logs import logging_to
from komas.settings import Settings
from komas.shutdown import first_signal, leave_at_once
from komas.systemd import report
from komas.workers.addresses import addresses, check, node_name
from komas.workers.fleet import Fleet, Order, Served, Start, Stop, Told

log = logging.getLogger(__name__)

WATCHDOG_S: Final = 15.0  # an event loop that is silent for so long has lost its readers anyway
LOOK_S: Final = 0.25
MESSAGE_BYTES: Final = 4096
_SYSTEMD_S: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_OWN: Final = ("bind", "workers", "node_name")  # what each worker is told by itself

Happened: TypeAlias = Callable[[Fleet, float], None]


def worker_command(given: Mapping[str, str | None], binds: Sequence[str], node: str) -> list[str]:
    """The command of one worker; ``given`` are the supervisor's own options, all else a worker reads by itself."""
    kept = {key: text for key, text in given.items() if text is not None and key not in _OWN}
    own = {"bind": ",".join(binds), "workers": "1", "node_name": node}
    options = [f"--{key.replace('_', '-')}={text}" for key, text in (kept | own).items()]
    return [sys.executable, "-m", "komas", "serve", *options]


async def supervise(
    settings: Settings,
    given: Mapping[str, str | None],
    *,
    reload: Callable[[], Settings],
    ready: Callable[[], None],
) -> int:
    """Serve with several processes until SIGINT or SIGTERM; returns the exit status.

    ``given`` are the options of the command line; ``reload`` reads all settings anew, before the workers do; ``ready``
    is called once all of them listen.
    """
    if sys.platform == "win32":
        raise SettingError("workers: not on Windows: start several `komas serve`, each with its --bind")
    check(settings)
    base = settings.node_name or f"{socket.gethostname()[:40]}-{secrets.token_hex(2)}"
    commands = [
        worker_command(given, binds, node_name(base, number))
        for number, binds in enumerate(addresses(settings.bind, settings.workers))
    ]
    assert settings.data_dir is not None  # load() completes it
    with (
        logging_to(
            settings.data_dir / "logs",
            level=settings.log_level,
            as_json=settings.log_format == "json",
            days=settings.log_days,
            node="supervisor",
        ),
        tempfile.TemporaryDirectory(prefix="komas-") as folder,
    ):
        fleet = Fleet(settings.workers, stop_s=settings.stop_s, watchdog_s=WATCHDOG_S)
        return await Supervisor(fleet, commands, Path(folder), reload, ready).run()


class Supervisor:
    """Processes, signals and a clock for a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        commands: Sequence[Sequence[str]],
        folder: Path,
        reload: Callable[[], Settings],
        ready: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._commands = commands
        self._folder = folder
        self._reload = reload
        self._ready = ready
        self._processes: dict[int, trio.Process] = {}
        self._starts = 0
        self._lifeline, self._end_of_lifeline = -1, -1
        self._serving = trio.Event()
        self._stopping = trio.Event()
        self._tell, self._happened = trio.open_memory_channel[Happened](1000)

    async def run(self) -> int:
        """Run until all workers are gone; returns the exit status."""
        self._lifeline, self._end_of_lifeline = os.pipe()  # the second is ours alone, and closes with this process
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(first_signal, self._stop, self._leave_at_once, name="signals")
                await nursery.start(self._take_restarts, name="restarts")
                nursery.start_soon(report, self._serving, self._stopping, name="systemd")
                while not self._fleet.is_over:
                    await self._obey(self._fleet.orders(trio.current_time()), nursery)
                    with trio.move_on_after(LOOK_S):
                        happened = await self._happened.receive()
                        happened(self._fleet, trio.current_time())
                await self._obey(self._fleet.orders(trio.current_time()), nursery)
                nursery.cancel_scope.cancel("all workers are gone")
        finally:
            os.close(self._lifeline)
            os.close(self._end_of_lifeline)
        return self._fleet.status

    def _stop(self, signal_name: str) -> None:
        log.info("stopping", extra={"signal": signal_name})
        self._stopping.set()
        self._tell.send_nowait(Fleet.stop)

    def _leave_at_once(self) -> NoReturn:
        for process in self._processes.values():
            process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        leave_at_once()

    async def _take_restarts(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGUSR2) as signals:
            task_status.started()
            async for _ in signals:
                try:
                    self._reload()
                except SettingError as error:
                    log.error("not restarted, for no worker could start: %s", error)  # noqa: TRY400 - no bug
                else:
                    self._tell.send_nowait(Fleet.restart)

    async def _obey(self, orders: Sequence[Order], nursery: trio.Nursery) -> None:
        for order in orders:
            match order:
                case Start(number):
                    await self._start(number, nursery)
                case Stop(number, at_once):
                    if (process := self._processes.get(number)) is not None:
                        (process.kill if at_once else process.terminate)()
                case Told(level, words, keys):
                    log.log(logging.getLevelNamesMapping()[level.upper()], words, extra=keys)
                case Served():
                    self._serving.set()
                    self._ready()

    async def _start(self, number: int, nursery: trio.Nursery) -> None:
        self._starts += 1
        path = self._folder / str(self._starts)  # never one that an earlier process may still write to
        notify = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        await notify.bind(str(path))
        environment = {key: value for key, value in os.environ.items() if key not in _SYSTEMD_S} | {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6)),
            VARIABLE: str(self._lifeline),
        }
        try:
            process = await trio.lowlevel.open_process(
                self._commands[number], stdin=subprocess.DEVNULL, env=environment, pass_fds=[self._lifeline]
            )
        except OSError as error:
            notify.close()
            log.error("worker %d cannot be started: %s", number, error)  # noqa: TRY400 - the system's words say it
            self._tell.send_nowait(partial(_ended, number, 1))
            return
        log.info("worker %d started", number, extra={"worker": number, "pid": process.pid})
        self._processes[number] = process
        nursery.start_soon(self._look_after, number, process, notify, path, name=f"worker {number}")

    async def _look_after(self, number: int, process: trio.Process, notify: trio.socket.SocketType, path: Path) -> None:
        with notify:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, number, notify)
                status = await process.wait()
                nursery.cancel_scope.cancel("it has ended")
        _remove(path)
        await self._tell.send(partial(_ended, number, status))

    async def _hear(self, number: int, notify: trio.socket.SocketType) -> None:
        while True:
            message = (await notify.recv(MESSAGE_BYTES)).decode("utf-8", "replace")
            await self._tell.send(partial(_heard, number, message))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _heard(number: int, message: str, fleet: Fleet, now: float) -> None:
    fleet.heard(number, message, now)


def _ended(number: int, status: int, fleet: Fleet, now: float) -> None:
    fleet.ended(number, status, now)
