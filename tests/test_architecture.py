"""What import contracts cannot say: sans-I/O modules do no I/O, and what replaces a part of Hypercorn says why."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from komas.web.hypercorn.install import PARTS

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


REPLACED = ROOT / "web" / "hypercorn"
FOREIGN = frozenset({"hypercorn", "quart", "quart_trio", "wsproto"})


def _replacements() -> list[Path]:
    """Modules that import what they replace, at run time, or say it; ``install.py`` only puts them in place."""
    found = []
    for path in sorted(REPLACED.glob("*.py")):
        imported = set[str]()
        tree = ast.parse(path.read_text("utf-8"))
        says = "\nReplaces: " in (ast.get_docstring(tree) or "")
        for node in tree.body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
        if (says or imported & FOREIGN) and path.stem != "install":
            found.append(path)
    return found


@pytest.mark.parametrize("path", _replacements(), ids=lambda path: path.stem)
def test_what_replaces_a_part_of_hypercorn_says_when_it_can_go(path: Path) -> None:
    """Where upstream knows of the reason, or that we know of no place; and tests that there are."""
    says = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    found = re.search(
        r"^Replaces: (.+?)^Upstream: (.+?)^Goes when these pass without it:$(.+)", says, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    _, upstream, goes = found.groups()
    links = re.findall(r"https://github\.com/pgjones/(?:hypercorn|quart-trio)/(?:issues|pull)/\d+\b", upstream)
    assert links or "none is known to us" in upstream
    named = re.findall(r"^ +(\S+)::(\S+)$", goes, re.MULTILINE)
    assert named
    for file, test in named:
        source = (ROOT.parent / file).read_text("utf-8")
        assert re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), f"{file} has no {test}"


def test_each_part_that_is_installed_has_a_module_that_says_so() -> None:
    """No replacement is hidden among other things."""
    modules = {ours.__module__.rpartition(".")[2] for _, _, ours in PARTS}
    assert len(modules) == len(PARTS)
    assert modules <= {path.stem for path in _replacements()}
