"""A database that is a file, and another process that commits to it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from komas.signals.file_watch import SETTLED_NS, SURE_S, FileWatch


class Clock:
    """Both clocks."""

    def __init__(self) -> None:
        self.s = 100.0
        self.ns = 1_000 * SETTLED_NS

    def sleep(self, seconds: float) -> None:
        """Later."""
        self.s += seconds
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    """One."""
    return Clock()


def _watch(path: Path, clock: Clock) -> FileWatch:
    return FileWatch(path, lambda: clock.s, lambda: clock.ns)


def _written(path: Path, clock: Clock, size: int = 10) -> None:
    path.write_bytes(bytes(size))
    os.utime(path, ns=(clock.ns, clock.ns))


def test_what_nobody_wrote_to_has_not_changed(tmp_path: Path, clock: Clock) -> None:
    """Once its last writing is a while ago; and now and then it is said to have, to be sure."""
    path = tmp_path / "komas.db"
    watch = _watch(path, clock)
    _written(path, clock)
    assert watch.has_changed()
    clock.sleep(2)
    assert not watch.has_changed()
    clock.sleep(SURE_S)
    assert watch.has_changed()
    assert not watch.has_changed()


@pytest.mark.parametrize("name", ["komas.db", "komas.db-wal"])
def test_a_write_is_seen_and_another_one_at_the_same_time_too(name: str, tmp_path: Path, clock: Clock) -> None:
    """Files' times move in steps: within one, there may be two commits, and a look between them."""
    path = tmp_path / "komas.db"
    _written(path, clock)
    watch = _watch(path, clock)
    assert watch.has_changed()
    clock.sleep(2)
    assert not watch.has_changed()
    _written(tmp_path / name, clock)
    assert watch.has_changed()
    clock.sleep(0.5)
    assert watch.has_changed()  # the second one may have come since
    clock.sleep(1)
    assert not watch.has_changed()


def test_a_database_that_another_one_is_put_in_place_of_has_changed(tmp_path: Path, clock: Clock) -> None:
    """A restored backup may be older, and as long."""
    path, other = tmp_path / "komas.db", tmp_path / "other.db"
    _written(other, clock)
    _written(path, clock)
    watch = _watch(path, clock)
    watch.has_changed()
    clock.sleep(2)
    other.replace(path)
    assert watch.has_changed()
    clock.sleep(0.1)
    path.unlink()
    assert watch.has_changed()


def test_a_commit_of_sqlite_is_seen(tmp_path: Path) -> None:
    """Whichever of its files that goes to."""
    path, moved_ns = tmp_path / "komas.db", 10 * SETTLED_NS
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        for file in (path, tmp_path / "komas.db-wal"):
            os.utime(file, ns=(moved_ns, moved_ns))
        watch = FileWatch(path, lambda: 1.0)
        watch.has_changed()
        assert not watch.has_changed()
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        assert watch.has_changed()
    connection.close()
