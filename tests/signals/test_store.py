"""The store in threads: real ones, real time, a real file."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import trio

from komas.errors import StoreUnavailable
from komas.model.signals import Draft
from komas.signals.ledger import Ledger
from komas.signals.store import Store, open_store


async def test_calls_run_in_threads_and_leave_the_loop_free(tmp_path: Path) -> None:
    """One writer at a time, beside readers."""
    release = threading.Event()
    writing: list[int] = []

    def write(_ledger: Ledger) -> None:
        writing.append(len(writing))
        assert release.wait(30)

    async with open_store(f"sqlite:///{tmp_path / 'komas.db'}") as store, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.write, write)
        while not writing:  # noqa: ASYNC110 - set in a thread
            await trio.sleep(0.01)
        assert (await store.read(lambda ledger: ledger.counters())).position == 0
        assert writing == [0]
        release.set()


async def test_a_cancelled_write_is_committed_all_the_same(tmp_path: Path) -> None:
    """Its caller left; the store did what it was asked."""
    async with open_store(f"sqlite:///{tmp_path / 'komas.db'}") as store:
        with trio.CancelScope() as scope:

            def publish(ledger: Ledger) -> None:
                trio.from_thread.run_sync(scope.cancel)
                ledger.publish(Draft("mexc_dex", {"a": 1}, "p"), 0)

            await store.write(publish)
        assert (await store.read(lambda ledger: ledger.counters())).position == 1


async def test_a_store_that_cannot_be_opened_is_opened_once_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once a minute, and every time to who asks."""
    path = tmp_path / "komas.db"
    path.write_bytes(b"this is no database" * 100)
    async with open_store(f"sqlite:///{path}") as store:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="not a database"):
                await store.read(lambda ledger: ledger.counters())
        assert [record.levelno for record in caplog.records if record.name == "komas.store"] == [logging.ERROR]
        assert store.failures == 3
        path.unlink()
        assert (await store.read(lambda ledger: ledger.counters())).position == 0


async def test_a_bug_is_not_a_failure_of_the_store(tmp_path: Path) -> None:
    """It travels up."""
    async with open_store(f"sqlite:///{tmp_path / 'komas.db'}") as store:
        with pytest.raises(ZeroDivisionError):
            await store.read(lambda _: 1 / 0)
        assert isinstance(store, Store)
        assert store.failures == 0
