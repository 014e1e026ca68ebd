"""The desk over a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from komas.signals.database import Ledger


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger; the store opens it."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'komas.db'}")
    yield ledger
    ledger.close()
