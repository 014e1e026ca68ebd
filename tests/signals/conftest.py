"""The signal service over a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from komas.signals.database import SignalDatabase
from tests.postgresql import PostgreSQL, running_postgresql


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SignalDatabase]:
    """An empty ledger; the store opens it."""
    database = SignalDatabase(f"sqlite:///{tmp_path / 'komas.db'}")
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server of our own."""
    with running_postgresql() as server:
        yield server
