"""A consistent copy of an SQLite database that others write to meanwhile, as one file.

SQLite's online backup copies from one read transaction, which in WAL mode holds no writer up: the copy has every
transaction that was committed before it began, and none that came later. ``cp`` would miss what is still in the WAL.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from komas.errors import CallerError, StoreUnavailable

PAGES_OF_A_STEP: Final = 256  # 1 MiB at SQLite's usual 4 KiB: Ctrl-C is heard after each step
LOCK_WAIT_S: Final = 5
BESIDE: Final = ("-wal", "-shm", "-journal")  # files that belong to a database file


class Backup(msgspec.Struct, frozen=True):
    """What a copy holds: the last signal's number, and the last position of any signal or update."""

    size_bytes: int
    signal_id: int
    position: int


def _go_on(_done: int, _total: int) -> None:
    """Do nothing; but Python looks for signals meanwhile."""


def back_up(
    database: Path, target: Path, *, overwrites: bool = False, between_steps: Callable[[int, int], None] = _go_on
) -> Backup:
    """Copy a database file; the copy has its name once it is whole, checked and on disk. Only its owner may read it.

    ``between_steps`` is called with how many pages are copied, and of how many.
    Raises ``CallerError`` for a target that cannot be one, ``StoreUnavailable`` for a database that cannot be copied.
    """
    _check_target(database, target, overwrites=overwrites)
    with _draft_beside(target) as draft, _translated(database, target):
        _copy(database, draft, between_steps)
        done = _checked(draft)
        _flush(draft)
        _rename(draft, target, overwrites=overwrites)
    return done


def _check_target(database: Path, target: Path, *, overwrites: bool) -> None:
    if not database.is_file():
        raise StoreUnavailable(f"there is no database {database}")
    if target.is_dir():
        raise CallerError(f"{target} is a folder; give the name of a file")
    own = [database, *(Path(f"{database}{end}") for end in BESIDE)]
    if any(target.resolve() == file.resolve() or (target.exists() and _is_same(target, file)) for file in own):
        raise CallerError(f"{target} is the database itself; give another name")
    if target.exists() and not overwrites:
        raise _there_already(target)
    if target.exists() and not target.is_file():
        raise CallerError(f"{target} is no file that can be replaced; give another name")
    for end in BESIDE:
        if Path(f"{target}{end}").exists():  # SQLite would take it for the copy's own
            raise CallerError(
                f"{target}{end} is there: another program has {target} open, or left it; give another name"
            )


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _there_already(target: Path) -> CallerError:
    return CallerError(f"{target} is there already; give another name, or --overwrite")


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    """A new file in the folder of the target, which only its owner may read; gone afterwards, unless it was renamed."""
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    except OSError as error:
        raise CallerError(f"{target} cannot be written: {error.strerror}") from error
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        for end in ("", *BESIDE):
            Path(f"{name}{end}").unlink(missing_ok=True)


@contextmanager
def _translated(database: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{database} cannot be copied to {target}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"{database} cannot be copied to {target}: {error.strerror}") from error


def _copy(database: Path, draft: Path, between_steps: Callable[[int, int], None]) -> None:
    source = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=rw",  # which makes no file
        uri=True,
        timeout=LOCK_WAIT_S,
        isolation_level=None,
    )
    with closing(source), closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # it is flushed at the end
        if source.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            # From one moment: a backup begins anew after each commit of another connection otherwise, under a busy
            # server for ever. Without a WAL this would hold up writers.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy, pages=PAGES_OF_A_STEP, progress=lambda _, left, total: between_steps(total - left, total))
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, also where none can be made beside it


def _checked(copy: Path) -> Backup:
    """What is in a copy; raises ``StoreUnavailable`` where it is damaged, or no database of komas."""
    with closing(sqlite3.connect(copy)) as connection:
        [(verdict,), *_] = connection.execute("PRAGMA integrity_check").fetchall()
        if verdict != "ok":
            raise StoreUnavailable(f"the database is damaged: {verdict}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "counters" not in tables:
            raise StoreUnavailable("the database holds nothing of komas yet")
        counters = dict(connection.execute("SELECT name, value FROM counters").fetchall())
    return Backup(copy.stat().st_size, counters.get("signal", 0), counters.get("position", 0))


def _flush(file: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def _rename(draft: Path, target: Path, *, overwrites: bool) -> None:
    if overwrites:
        draft.replace(target)
    else:
        try:
            os.link(draft, target)  # fails where a file of that name has come meanwhile, which renaming does not
        except FileExistsError:
            raise _there_already(target) from None
        except OSError:  # no links on this file system: FAT, some shares
            if target.exists():
                raise _there_already(target) from None
            draft.replace(target)
    if os.name == "posix":
        _flush_name(target.parent)


def _flush_name(folder: Path) -> None:
    """Make a name survive a power cut, too, where the file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
