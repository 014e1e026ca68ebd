"""What import contracts cannot say: a module that calls itself sans-I/O does no I/O, whoever adds it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "komas"
IMPURE = frozenset(
    {"trio", "time", "logging", "socket", "ssl", "random", "secrets", "os", "httpx", "psutil", "sqlite3"}
)


def _sans_io() -> list[Path]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if "sans-i/o" in (ast.get_docstring(tree) or "").lower():
            found.append(path)
    return found


@pytest.mark.parametrize("path", _sans_io(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sans_io_module_does_no_io(path: Path) -> None:
    """No loop, no clock, no logger, no chance: time and identifiers are arguments, results are values."""
    imported = set[str]()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert not imported & IMPURE


def test_the_sans_io_modules_are_found() -> None:
    """The rule has something to hold."""
    names = {path.stem for path in _sans_io()}
    assert {"overflow", "history", "sequencing", "order_book", "protocol", "wire", "session", "tokens"} <= names
