"""The signal service over a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from komas.signals.database import SignalDatabase


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SignalDatabase]:
    """An empty ledger; the store opens it."""
    database = SignalDatabase(f"sqlite:///{tmp_path / 'komas.db'}")
    yield database
    database.close()
