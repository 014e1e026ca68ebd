"""Programs that others wrote: installed by name and version into a folder that is thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

INSTALL_S = 300.0


class Absent(Exception):
    """A counterpart cannot be had on this machine; the text says why."""


class Row(msgspec.Struct, frozen=True):
    """What one counterpart found: cases passed of those run, and what there is to say about the others."""

    name: str
    version: str
    passed: int
    total: int
    notes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether every case passed."""
        return 0 < self.total == self.passed

    def __str__(self) -> str:
        told = "".join(f"\n    {note}" for note in self.notes)
        return f"{'ok' if self.is_good else 'NO'}  {self.name}, {self.version}: {self.passed} of {self.total}{told}"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="komas-conformance-") as name:
        yield Path(name)


def python_with(place: Path, *packages: str, interpreter: str = sys.executable) -> Path:
    """A Python of its own that has these packages."""
    home = place / "python"
    install([interpreter, "-m", "venv", str(home)], place)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    install([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], place)
    return python


def node_with(place: Path, *packages: str) -> Path:
    """A folder whose scripts find these packages of npm, as ``name@version``."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        raise Absent("there is no node with npm here")
    home = place / "node"
    home.mkdir()
    (home / "package.json").write_text('{"private": true}')
    install([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--save-exact", *packages], home)
    return home


def python_of(version: str) -> Path:
    """An interpreter of a version that komas itself does not run on, from the PATH or from pyenv."""
    found = shutil.which(f"python{version}")
    candidates = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), *([Path(found)] if found else [])]
    for candidate in candidates:
        if subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise Absent(f"there is no Python {version} with pip here")


def install(command: Sequence[str], place: Path) -> None:
    """Run what installs something; ``Absent`` where that fails."""
    try:
        done = subprocess.run(
            command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"`{' '.join(command[-3:])}` took longer than {INSTALL_S:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Absent(f"`{' '.join(command[-3:])}` failed: {said[-1] if said else done.returncode}")
