"""``komas backup FILE``: a copy of the database of signals, beside a server that goes on writing to it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from komas.cli.progress import Progress
from komas.cli.signals import add_settings, settings_of
from komas.errors import CallerError


def add_backup(parser: argparse.ArgumentParser) -> None:
    """``komas backup``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="where the copy goes; it must not be there yet")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    add_settings(parser)
    parser.set_defaults(run=_back_up)


def _back_up(options: argparse.Namespace) -> None:
    from komas.signals.backup import back_up
    from komas.signals.database import file_of, plain_address
    from komas.signals.services import database_of

    place = database_of(settings_of(options))
    database = file_of(place)
    if database is None:
        line = shlex.join(["pg_dump", "--format=custom", f"--file={options.file}", plain_address(str(place))])
        raise CallerError(f"komas backup copies SQLite files; this database is PostgreSQL's, so run: {line}")
    with Progress() as progress:

        def show(done: int, total: int) -> None:
            progress("copying" if done < total else "checking", done, total)

        done = back_up(database, options.file, overwrites=options.overwrite, between_steps=show)
    last = f"up to signal {done.signal_id}, position {done.position}" if done.position else "no signal yet"
    print(f"{options.file}: {done.size_bytes:,} bytes, {last}")
