"""Small programs around clients that others wrote: each prints an array of JSON for each thing that it is handed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.conformance.counterparts import Absent
from tests.e2e.browser import Pages, browsing, showing
from tests.e2e.processes import Process

PROGRAMS: Final = Path(__file__).with_name("clients")
SCRIPTS: Final = ("watch.mjs", "listen.mjs", "posting.mjs")  # which others import


class Output:
    """What a client has printed so far, without what else it said."""

    def __init__(self, source: Sequence[object], read: Callable[[Any], Sequence[list[Any]]]) -> None:
        self._source = source
        self._read = read
        self._taken = 0
        self._rows: list[list[Any]] = []

    @property
    def rows(self) -> list[list[Any]]:
        """All of it."""
        while self._taken < len(self._source):
            self._rows += self._read(self._source[self._taken])
            self._taken += 1
        return self._rows


def output_of(process: Process) -> Output:
    """What a process prints; all that is no array is a remark."""
    return Output(process.output, lambda line: [json.loads(line)] if line.startswith("[") else [])


def output_of_page(pages: Pages, name: str) -> Output:
    """What one of a page's readers prints, which comes in lists, with the reader's name first."""
    return Output(pages.received, lambda rows: [row[1:] for row in rows if row[0] == name])


def program(name: str, node: Path | None = None) -> str:
    """The path of a program; one of node's is laid beside its packages, where it finds them."""
    if node is None:
        return str(PROGRAMS / name)
    for each in (name, *SCRIPTS):
        shutil.copy(PROGRAMS / each, node)
    return str(node / name)


@contextmanager
def page(name: str, readers: Mapping[str, object], folder: Path, packages: Mapping[str, Path]) -> Iterator[Pages]:
    """A page in Chromium that has ``READERS``, and finds the files of packages under their names."""
    text = (PROGRAMS / name).read_text("utf-8").replace("READERS", json.dumps(readers))
    files = {"/": text, **{f"/{script}": (PROGRAMS / script).read_text("utf-8") for script in SCRIPTS}}
    files |= {
        f"/{package}/{file.name}": file.read_text("utf-8")
        for package, home in packages.items()
        for file in home.glob("*.js")
    }
    with (
        showing({path.replace(".mjs", ".js"): body for path, body in files.items()}) as pages,
        browsing(f"{pages.url}/", folder),
    ):
        yield pages


def chromium_version() -> str:
    """Of Debian's."""
    found = shutil.which("chromium")
    if found is None:
        raise Absent("there is no chromium here")
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until something is so; returns whether it came to be."""
    ends_at = time.monotonic() + within_s
    while not (is_so := condition()) and time.monotonic() < ends_at:
        time.sleep(0.05)
    return is_so
