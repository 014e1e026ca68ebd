"""A copy of the database while others write to it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from komas.errors import CallerError, StoreUnavailable
from komas.model.signals import SignalInsert
from komas.signals.backup import BESIDE, PAGES_OF_A_STEP, Backup, back_up
from komas.signals.database import SignalDatabase, plain_address

NOW_MS = 1_770_000_000_123
PAGE_BYTES = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the database is."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "komas.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the copy goes."""
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "copy.db"


@pytest.fixture
def database(file: Path) -> Iterator[SignalDatabase]:
    """A database with one signal, open as a server has it: what is in it is in its WAL alone."""
    opened = SignalDatabase(file)
    opened.open()
    _publish(opened)
    yield opened
    opened.close()


def _publish(database: SignalDatabase, *, letters: int = 2) -> None:
    database.publish(SignalInsert("mexc_dex", {"coin_name": "X" * letters}, "a test", None), NOW_MS)


def _ids(file: Path) -> list[int]:
    database = SignalDatabase(file)
    try:
        database.open()
        return [signal.id for signal in database.signals_after(0, 10_000, most_bytes=2**30)]
    finally:
        database.close()


def test_a_copy_has_what_is_in_the_wal_alone(database: SignalDatabase, file: Path, target: Path) -> None:
    """``cp`` of the file missed all of it; what is copied is one file, for its owner alone."""
    assert back_up(file, target) == Backup(target.stat().st_size, signal_id=1, position=1)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    if os.name == "posix":
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with closing(sqlite3.connect(f"{target.as_uri()}?immutable=1", uri=True)) as connection:  # no file beside it
        assert connection.execute("SELECT count(*) FROM signals").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert _ids(target) == [1]


def test_a_copy_is_of_one_moment_and_comes_to_its_end(database: SignalDatabase, file: Path, target: Path) -> None:
    """SQLite begins a backup anew after each commit of another connection: beside a busy server it never ended."""
    for _ in range(4 * PAGES_OF_A_STEP * PAGE_BYTES // 16_000):
        _publish(database, letters=16_000)
    last = database.counters().position
    steps, told = 0, list[int]()

    def commit(done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        assert steps < 100
        assert 0 <= done <= total
        told.append(done)
        _publish(database)  # which no copy holds up: it would wait for five seconds, and fail

    assert back_up(file, target, between_steps=commit).position == last
    assert steps > 3
    assert told == sorted(told)
    assert _ids(target) == list(range(1, last + 1))
    assert database.counters().position == last + steps


def test_a_copy_of_a_copy(database: SignalDatabase, file: Path, target: Path) -> None:
    """One that no server has opened yet is not in WAL mode."""
    back_up(file, target)
    again = target.with_name("again.db")
    assert back_up(target, again).position == 1
    assert _ids(again) == [1]


def test_a_file_that_is_there_is_kept_unless_said(database: SignalDatabase, file: Path, target: Path) -> None:
    """And may be the last good copy."""
    target.write_text("the last good copy")
    with pytest.raises(CallerError, match="is there already"):
        back_up(file, target)
    assert target.read_text() == "the last good copy"
    assert back_up(file, target, overwrites=True).position == 1
    assert _ids(target) == [1]


def test_a_file_that_comes_meanwhile_is_kept(database: SignalDatabase, file: Path, target: Path) -> None:
    """Two copies at the same moment: one of them says so."""
    with pytest.raises(CallerError, match="is there already"):
        back_up(file, target, between_steps=lambda *_: target.touch())
    assert target.read_bytes() == b""
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_file_systems_without_links_have_copies_too(
    database: SignalDatabase, file: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT, and some shares."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert back_up(file, target).position == 1
    with pytest.raises(CallerError, match="is there already"):
        back_up(file, target)


def test_the_database_is_not_overwritten_by_its_copy(database: SignalDatabase, file: Path) -> None:
    """Nor are the files that belong to it, under whatever name."""
    link = file.with_name("link.db")
    link.symlink_to(file)
    hard = file.with_name("hard.db")
    os.link(file, hard)
    for target in (file, file.parent / "." / file.name, Path(f"{file}-wal"), Path(f"{file}-journal"), link, hard):
        with pytest.raises(CallerError, match="is the database itself"):
            back_up(file, target, overwrites=True)
    assert database.counters().position == 1


@pytest.mark.parametrize("end", BESIDE)
def test_what_belongs_to_another_database_is_no_copys(
    end: str, database: SignalDatabase, file: Path, target: Path
) -> None:
    """SQLite would read an old WAL into the new copy."""
    target.touch()
    Path(f"{target}{end}").touch()
    with pytest.raises(CallerError, match="another program has"):
        back_up(file, target, overwrites=True)


def test_what_is_no_file_is_not_replaced(database: SignalDatabase, file: Path, target: Path) -> None:
    """A folder, a pipe, a device."""
    with pytest.raises(CallerError, match="is a folder"):
        back_up(file, target.parent, overwrites=True)
    with pytest.raises(CallerError, match="cannot be written"):
        back_up(file, target / "missing" / "copy.db")
    if hasattr(os, "mkfifo"):
        os.mkfifo(target)
        with pytest.raises(CallerError, match="no file that can be replaced"):
            back_up(file, target, overwrites=True)


def test_what_is_no_database_of_komas_is_said(file: Path, target: Path) -> None:
    """And leaves nothing behind."""
    with pytest.raises(StoreUnavailable, match="there is no database"):
        back_up(file, target)
    file.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="holds nothing of komas yet"):
        back_up(file, target)
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        back_up(file, target)
    assert list(target.parent.iterdir()) == []


def test_a_damaged_database_gives_no_copy(database: SignalDatabase, file: Path, target: Path) -> None:
    """It would take the place of a good one."""
    for _ in range(200):
        _publish(database, letters=4_000)
    database.close()
    with file.open("rb+") as damaged:
        damaged.seek(file.stat().st_size // 2)
        damaged.write(os.urandom(4 * PAGE_BYTES))
    with pytest.raises(StoreUnavailable):
        back_up(file, target)
    assert list(target.parent.iterdir()) == []


def test_an_interrupted_copy_leaves_nothing_behind(database: SignalDatabase, file: Path, target: Path) -> None:
    """Ctrl-C is heard between two steps."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(file, target, between_steps=interrupt)
    assert list(target.parent.iterdir()) == []
    _publish(database)


def test_the_address_of_a_server_is_without_its_password() -> None:
    """Neither where it usually stands, nor among the parameters."""
    url = "postgresql+psycopg://user:secret@db.example:5433/komas?password=secret&sslpassword=secret&connect_timeout=3"
    assert plain_address(url) == "postgresql://user@db.example:5433/komas?connect_timeout=3"
