"""What a process without a backplane does not load."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys, komas.server
print(*(name for name in sys.modules if name.startswith(('komas.backplane', 'komas.cluster', 'hiredis'))))
"""


def test_a_process_without_a_backplane_loads_none_of_it() -> None:
    """It took longer to start, and a megabyte more, for what it never used."""
    found = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
