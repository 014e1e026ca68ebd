"""The store in threads: real ones, real time, a real file."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio

from komas.errors import StoreUnavailable
from komas.model.signals import SignalInsert
from komas.signals import database, database_threads
from komas.signals.database import SignalDatabase
from komas.signals.database_threads import DatabaseThreads, open_database


async def test_calls_run_in_threads_and_leave_the_loop_free(tmp_path: Path) -> None:
    """One writer at a time, beside readers."""
    release = threading.Event()
    writing: list[int] = []

    def write(_database: SignalDatabase) -> None:
        writing.append(len(writing))
        assert release.wait(30)

    async with open_database(f"sqlite:///{tmp_path / 'komas.db'}") as store, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.write, write)
        while not writing:  # noqa: ASYNC110 - set in a thread
            await trio.sleep(0.01)
        assert (await store.read(lambda database: database.counters())).position == 0
        assert writing == [0]
        release.set()


async def test_a_cancelled_write_is_committed_all_the_same(tmp_path: Path) -> None:
    """Its caller left; the store did what it was asked."""
    async with open_database(f"sqlite:///{tmp_path / 'komas.db'}") as store:
        with trio.CancelScope() as scope:

            def publish(database: SignalDatabase) -> None:
                trio.from_thread.run_sync(scope.cancel)
                database.publish(SignalInsert("mexc_dex", {"a": 1}, "p"), 0)

            await store.write(publish)
        with trio.fail_after(30):
            while (await store.read(lambda database: database.counters())).position == 0:  # noqa: ASYNC110 - a thread's
                await trio.sleep(0.01)


def _of_sqlite(path: Path) -> str:
    """What SQLite itself says of a file."""
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("PRAGMA journal_mode = WAL")
    return str(caught.value)


async def test_a_store_that_cannot_be_opened_is_opened_once_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once a minute, and every time to who asks; that it is there again is said, too."""
    monkeypatch.setattr("komas.signals.database_threads.REOPEN_S", 0.0)
    path = tmp_path / "komas.db"
    path.write_bytes(b"this is no database" * 100)
    words = _of_sqlite(path)
    async with open_database(f"sqlite:///{path}") as store:
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.read(lambda database: database.counters())
            assert str(caught.value) == words
        path.unlink()
        caplog.set_level(logging.INFO)
        assert (await store.read(lambda database: database.counters())).position == 0
        said = [record.levelno for record in caplog.records if record.name == "komas.signals.database_threads"]
        assert said == [logging.ERROR, logging.INFO]
        assert store.failures == 3


async def test_a_store_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the caller, and at the end of the process; the call itself goes on."""
    monkeypatch.setattr("komas.signals.database_threads.WAIT_S", 0.2)
    release = threading.Event()
    async with open_database(tmp_path / "komas.db") as store:
        await store.read(lambda database: database.counters())
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await store.write(lambda _: release.wait(30))
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await store.write(lambda _: release.wait(30))
        release.set()


async def test_who_waits_for_a_store_that_is_being_opened_waits_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call has its own time, from its own beginning."""
    monkeypatch.setattr("komas.signals.database_threads.WAIT_S", 0.5)
    release, took = threading.Event(), list[float]()
    monkeypatch.setattr(SignalDatabase, "open", lambda _: release.wait(30))
    async with open_database(tmp_path / "komas.db") as store:

        async def ask(after_s: float) -> None:
            await trio.sleep(after_s)
            before = trio.current_time()
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.read(SignalDatabase.counters)
            took.append(trio.current_time() - before)

        async with trio.open_nursery() as nursery:
            for after_s in (0.0, 0.05, 0.1):
                nursery.start_soon(ask, after_s)
        release.set()
    assert len(took) == 3
    assert max(took) < 0.9  # and not twice the time


async def test_loading_what_speaks_with_the_database_is_no_silence_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold disk takes its time; several that ask meanwhile wait for the same."""
    made: list[SignalDatabase] = []

    def make() -> SignalDatabase:
        time.sleep(0.5)
        made.append(SignalDatabase(tmp_path / "komas.db"))
        monkeypatch.setattr("komas.signals.database_threads.WAIT_S", 60.0)
        return made[-1]

    slow = DatabaseThreads(make)
    monkeypatch.setattr("komas.signals.database_threads.WAIT_S", 0.1)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(slow.read, SignalDatabase.counters)
    slow.close()
    assert len(made) == 1


async def test_a_file_that_is_gone_is_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers would come again; one that is put in its place is opened."""
    monkeypatch.setattr("komas.signals.database_threads.REOPEN_S", 0.0)
    path = tmp_path / "komas.db"
    draft = SignalInsert("mexc_dex", {"a": 1}, "p")
    async with open_database(path) as store:
        await store.write(lambda database: database.publish(draft, 0))
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"komas.db{suffix}").unlink()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.write(lambda database: database.publish(draft, 0))
            with pytest.raises(StoreUnavailable):
                await store.read(lambda database: database.counters())
        assert not path.exists()
        other = SignalDatabase(path)
        other.open()
        other.close()
        assert (await store.write(lambda database: database.publish(draft, 0)))[0].position == 1


async def test_a_bug_is_not_a_failure_of_the_store(tmp_path: Path) -> None:
    """It travels up."""
    async with open_database(f"sqlite:///{tmp_path / 'komas.db'}") as store:
        with pytest.raises(ZeroDivisionError):
            await store.read(lambda _: 1 / 0)
        assert isinstance(store, DatabaseThreads)
        assert store.failures == 0


def test_the_store_is_waited_for_longer_than_the_database_waits_for_a_lock() -> None:
    """Else a lock would look like a database that is gone."""
    assert database_threads.WAIT_S > database.LOCK_WAIT_S


def test_prices_do_not_wait_for_the_database_to_be_loaded() -> None:
    """A server is there before SQLAlchemy is."""
    program = "import sys, komas.server; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
