"""A worker ends with its supervisor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from komas.lifeline import VARIABLE, hold

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no workers there")

WORKER = """
import signal, sys, time
from komas.lifeline import hold
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
assert hold(0.2)
print("holds", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("word", "status"), [("", -15), ("deaf", 1)])
def test_a_worker_ends_when_the_pipe_closes_whatever_it_does(word: str, status: int) -> None:
    """As asked by SIGTERM; one whose loop hangs, and which does not hear that, soon after."""
    read_end, write_end = os.pipe()
    environment = os.environ | {VARIABLE: str(read_end)}
    command = [sys.executable, "-c", WORKER, word]
    with subprocess.Popen(command, env=environment, pass_fds=[read_end], stdout=subprocess.PIPE) as worker:
        os.close(read_end)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"holds\n"
        assert worker.poll() is None
        os.close(write_end)
        assert worker.wait(60) == status


@pytest.mark.parametrize("text", ["", "no number", "-1", "999999", "file"])
def test_without_a_supervisor_there_is_nothing_to_hold(text: str) -> None:
    """Nor where the number is some other file's, left by whoever started us."""
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - a file that is no pipe
        assert not hold(1, {VARIABLE: str(file.fileno()) if text == "file" else text})
