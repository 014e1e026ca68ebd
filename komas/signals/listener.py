"""Hears PostgreSQL's notifications: what any process commits is known to all within milliseconds.

A notification is a wake-up and nothing else: who hears one looks into the database. One that is missed costs the time
until the next look, so whatever goes wrong here is logged, and tried again.

The connection is the listener's own. psycopg's asynchronous one needs asyncio; its generators run under any loop.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import psycopg
import trio
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus, PGnotify
from psycopg.waiting import Ready, Wait

from komas.signals.notification import CHANNEL, Notification, read_notification

log = logging.getLogger(__name__)

T = TypeVar("T")

CHECK_EVERY_S: Final = 5.0  # of silence: a cut that nobody told of is found, and a firewall keeps the connection
ANSWER_S: Final = 5.0
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0


class Listener:
    """Hears what is notified in a database, for as long as ``run()`` runs.

    ``heard`` is called with each notification; ``found`` once it listens: what was committed before that was not heard;
    ``lost`` once it does not any more. ``options`` are libpq's, as the database's other connections have them.
    """

    def __init__(
        self,
        options: Mapping[str, str | int],
        *,
        heard: Callable[[Notification], None],
        found: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._options = dict(options)
        self._heard = heard
        self._found = found
        self._lost = lost
        self._dialling = trio.CapacityLimiter(1)
        self._has_complained = False
        self.is_listening = False

    async def run(self) -> None:
        """Listen until cancelled; connect again after each failure, ever more slowly while it does not last."""
        wait_s = FIRST_WAIT_S
        while True:
            began_at = trio.current_time()
            try:
                await self._connect_and_listen()
            except (psycopg.Error, OSError, trio.TooSlowError) as error:
                self._complain(error)
            lasted = self.is_listening and trio.current_time() - began_at > LONGEST_WAIT_S
            if self.is_listening:
                self.is_listening = False
                self._lost()
            wait_s = FIRST_WAIT_S if lasted else min(LONGEST_WAIT_S, 2 * wait_s)
            await trio.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 - not all processes at once

    async def _connect_and_listen(self) -> None:
        # Names are looked up, and several hosts tried, as for the other connections; bounded by connect_timeout.
        connection = await trio.to_thread.run_sync(self._connect, limiter=self._dialling, abandon_on_cancel=True)
        try:
            await self._ask(connection, f"LISTEN {CHANNEL}")
            self._rejoice()
            while True:
                with trio.move_on_after(CHECK_EVERY_S) as silence:
                    for notice in await _drive(generators.notifies(connection.pgconn), connection.fileno()):
                        self._hear(notice)
                if silence.cancelled_caught:
                    await self._ask(connection, "")
        finally:
            connection.close()

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.Connection.connect(make_conninfo("", **self._options), autocommit=True)
        try:
            trio.from_thread.check_cancelled()
        except BaseException:
            connection.close()  # nobody waits for it any more
            raise
        return connection

    async def _ask(self, connection: psycopg.Connection, statement: str) -> None:
        """Have a statement executed, or raise what kept it from that."""
        pgconn = connection.pgconn
        pgconn.send_query(statement.encode())
        pgconn.notify_handler = self._hear  # of what comes with the answer
        try:
            with trio.fail_after(ANSWER_S):
                results = await _drive(generators.execute(pgconn), connection.fileno())
        finally:
            pgconn.notify_handler = None
        for result in results:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY):
                raise psycopg.OperationalError(result.error_message.decode("utf-8", "replace"))

    def _hear(self, notice: PGnotify) -> None:
        self._heard(read_notification(notice.extra.decode("utf-8", "replace")))

    def _rejoice(self) -> None:
        self.is_listening = True
        if self._has_complained:
            self._has_complained = False
            log.info("the database's notifications are heard again")
        self._found()

    def _complain(self, error: Exception) -> None:
        words = "it did not answer" if isinstance(error, trio.TooSlowError) else " ".join(str(error).split())
        if not self._has_complained:
            log.warning("the database's notifications are not heard: %s", words)
        self._has_complained = True


async def _drive(generator: PQGen[T], socket: int) -> T:
    """Run one of psycopg's generators; one that is cancelled in a wait has taken nothing that it kept."""
    try:
        wanted = next(generator)
        while True:
            wanted = generator.send(await _ready(socket, wanted))
    except StopIteration as done:
        result: T = done.value
        return result


async def _ready(socket: int, wanted: Wait) -> Ready:
    """Wait for what a generator asks for; what is written here is short, so that nothing has to be read meanwhile."""
    if wanted == Wait.R:
        await trio.lowlevel.wait_readable(socket)
        return Ready.R
    await trio.lowlevel.wait_writable(socket)
    return Ready.W
