"""``kill -9`` in mid-publish, two hundred times."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.processes import PATIENCE_S, ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each life is a fork")
def test_two_hundred_kills_lose_nothing_and_double_nothing() -> None:
    """The same as ``python -m benchmarks kills --rounds 200``."""
    program = "import sys; from benchmarks.kills import run; sys.exit(not run(200, seed=2))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=10 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 ids given twice, 0 doubled by a retry, dense" in done.stdout
