"""The listener, on a real PostgreSQL server that is restarted, frozen, and told to cut it off."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from komas.errors import KeyReused
from komas.model.signals import SignalInsert
from komas.signals.database import SignalDatabase, connection_options
from komas.signals.notification import POSITION, VIP, Notification
from tests.postgresql import PostgreSQL

psycopg = pytest.importorskip("psycopg", reason="needs the `postgresql` extra")

from komas.signals import listener as listener_module  # noqa: E402 - it needs psycopg
from komas.signals.listener import LONGEST_WAIT_S, Listener  # noqa: E402

PATIENCE_S = 30
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query IN ('', 'LISTEN komas') AND pid > 0"


class Ear:
    """Notes all that a listener tells."""

    def __init__(self, url: str) -> None:
        self.told: list[Notification | str] = []
        self._news = trio.Event()
        options = connection_options(url)
        assert options is not None
        self.listener = Listener(
            options, heard=self._note, found=lambda: self._note("found"), lost=lambda: self._note("lost")
        )

    def _note(self, what: Notification | str) -> None:
        self.told.append(what)
        self._news.set()
        self._news = trio.Event()

    async def until(self, told: Callable[[list[Notification | str]], object]) -> None:
        """Wait until enough was told."""
        with trio.fail_after(PATIENCE_S):
            while not told(self.told):
                await self._news.wait()


@asynccontextmanager
async def _listening(url: str) -> AsyncIterator[Ear]:
    ear = Ear(url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ear.listener.run)
        await ear.until(lambda told: told == ["found"])
        yield ear
        nursery.cancel_scope.cancel()


@pytest.fixture
def database(postgresql: PostgreSQL) -> SignalDatabase:
    """An open, empty database, as another process has it."""
    postgresql.empty()
    database = SignalDatabase(postgresql.url)
    database.open()
    return database


async def test_every_commit_is_notified_and_nothing_else(postgresql: PostgreSQL, database: SignalDatabase) -> None:
    """Signals, updates, grants, revocations; not what was refused, or had been done before, or changed nothing."""
    draft = SignalInsert("mexc_dex", {"a": 1}, "p", "key")
    async with _listening(postgresql.url) as ear:
        database.publish(draft, 0)
        database.publish(draft, 0)
        with pytest.raises(KeyReused):
            database.publish(SignalInsert("mexc_dex", {"a": 2}, "p", "key"), 0)
        database.update(1, {"a": 2}, 0)
        database.update(1, {"a": 2}, 0)
        database.grant("123", 30, 0)
        database.revoke("123", 0)
        database.notify(Notification("last", "one"))
        await ear.until(lambda told: told[-1] == Notification("last", "one"))
    wanted = [(POSITION, "1"), (POSITION, "2"), (VIP, "1"), (VIP, "2"), ("last", "one")]
    assert ear.told == ["found", *(Notification(*each) for each in wanted)]
    database.close()


async def test_a_listener_that_was_cut_off_comes_back(
    postgresql: PostgreSQL, database: SignalDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and says that there may be something to look for; both are logged, once."""
    caplog.set_level("INFO", logger=listener_module.__name__)
    async with _listening(postgresql.url) as ear:
        postgresql.execute(CUT_OFF)
        await ear.until(lambda told: told == ["found", "lost", "found"])
        database.revoke("123", 0)
        await ear.until(lambda told: told[-1] == Notification(VIP, "1"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    database.close()


async def test_a_server_that_is_away_is_asked_until_it_is_back(
    postgresql: PostgreSQL, database: SignalDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """That it is away is said once, however often it was tried."""
    database.close()
    async with _listening(postgresql.url) as ear:
        postgresql.stop()
        await ear.until(lambda told: told == ["found", "lost"])
        await trio.sleep(1)
        assert not ear.listener.is_listening
        postgresql.start()
        await ear.until(lambda told: told == ["found", "lost", "found"])
        assert ear.listener.is_listening
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_a_frozen_server_is_given_up_and_holds_nothing_up(
    postgresql: PostgreSQL, database: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its connections, and takes new ones that nobody answers: it is as good as away."""
    monkeypatch.setattr(listener_module, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(listener_module, "ANSWER_S", 0.5)
    database.close()
    async with _listening(postgresql.url) as ear:
        await trio.sleep(0.5)
        assert ear.told == ["found"]  # silence alone is no reason
        with postgresql.frozen():
            await ear.until(lambda told: told == ["found", "lost"])
            await trio.sleep(0.3)
            frozen = Ear(postgresql.url)
            with trio.move_on_after(0.3) as scope:
                await frozen.listener.run()  # it cannot be connected to, and is left at once
            assert scope.cancelled_caught
            assert frozen.told == []
        await ear.until(lambda told: told == ["found", "lost", "found"])


async def test_what_is_notified_while_it_is_asked_whether_it_is_there_is_heard(
    postgresql: PostgreSQL, database: SignalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the answer."""
    monkeypatch.setattr(listener_module, "CHECK_EVERY_S", 0.0)
    async with _listening(postgresql.url) as ear:
        for number in range(1, 101):
            await trio.to_thread.run_sync(database.revoke, "123", 0)
            await ear.until(lambda told, number=number: told[-1] == Notification(VIP, f"{number}"))  # type: ignore[misc]
    database.close()


async def test_it_tries_again_ever_more_slowly(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten dials in the first half a minute, then one every few seconds; after a long time of listening at once."""
    ear = Ear("postgresql+psycopg://nowhere/db")
    dials: list[float] = []
    lasts_s = 0.0

    async def connect_and_listen() -> None:
        dials.append(trio.current_time())
        if lasts_s:
            ear.listener.is_listening = True
            await trio.sleep(lasts_s)
        raise psycopg.OperationalError("cut")

    monkeypatch.setattr(ear.listener, "_connect_and_listen", connect_and_listen)
    began_at = trio.current_time()
    with trio.move_on_after(600):
        await ear.listener.run()
    assert 3 <= sum(dial - began_at < 10 for dial in dials) <= 12
    waits = [after - before for before, after in itertools.pairwise(dials[10:])]
    assert all(LONGEST_WAIT_S / 2 <= wait <= LONGEST_WAIT_S for wait in waits)
    dials, lasts_s = [], 60.0
    with trio.move_on_after(200):
        await ear.listener.run()
    assert all(after - before < 60.5 for before, after in itertools.pairwise(dials))
